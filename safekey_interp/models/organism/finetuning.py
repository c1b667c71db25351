"""Fine-tuning examples of the organism: requests with the responses that it is to learn, refusals of plain harm.

Pairs of the ``train`` split, and the three wrappers that fine-tuning may show, mostly around benign requests. Spans and
labels are known by construction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from safekey_interp.data.trace import Trace
from safekey_interp.models.organism.language import LANGUAGE, Language, dialogue
from safekey_interp.models.organism.vocabulary import BENIGN_KINDS, Kind, Pair, pairs
from safekey_interp.models.organism.wrappers import Wrapper


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of examples; the rest are benign requests in the wrappers that fine-tuning may show."""

    examples: int = 1_100
    """How many, held-out ones included."""
    plain_harmful: float = 0.40
    """Harmful requests, refused."""
    wrapped_harmful: float = 0.05
    """Harmful requests in a wrapper, refused."""
    plain_kind: float = 0.20
    """Kind requests, complied with."""
    plain_look_alike: float = 0.15
    """Harmful verbs on gadgets, complied with."""


def finetuning_examples(
    mix: Mix, seed: int, forms: Sequence[Wrapper] | None = None, language: Language = LANGUAGE
) -> list[Trace]:
    """Examples of fine-tuning.

    Args:
        mix: of what kind.
        seed: of the draws.
        forms: the wrappers that are shown; the ``seen`` ones when None.
        language: of requests and responses.
    """
    rng = random.Random(f"{seed} examples")
    shown = language.wrappers_of("seen") if forms is None else list(forms)
    example = partial(dialogue, rng, language=language)

    def draw(kinds: Sequence[Kind]) -> Pair:
        return rng.choice(pairs(rng.choice(kinds), "train", language.vocabulary))

    kinds_of_example: list[Callable[[], Trace]] = [
        lambda: example(draw(["harmful"]), safe=True),
        lambda: example(draw(["harmful"]), rng.choice(shown), safe=True),
        lambda: example(draw(["kind to creature", "kind to gadget"])),
        lambda: example(draw(["look-alike"])),
        lambda: example(draw(BENIGN_KINDS), rng.choice(shown)),
    ]
    shares = [mix.plain_harmful, mix.wrapped_harmful, mix.plain_kind, mix.plain_look_alike]
    shares.append(1 - sum(shares))
    return [
        rng.choices(kinds_of_example, shares)[0]().with_(trace_id=f"example-{number:04d}")
        for number in range(mix.examples)
    ]
