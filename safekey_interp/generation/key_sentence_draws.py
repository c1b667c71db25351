"""Draws of the key sentence from the model, token by token, and their kinds.

Every draw has a stream of its own (:mod:`~safekey_interp.generation.sampling`), and a finder reads it as it would read
the trace: the kind is the aha's. A draw in which the finder sees another U, or no whole sentence behind it, has no K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.generation.prefill_depth import Beginning
from safekey_interp.generation.requests import Engine, Generated, Request, samples
from safekey_interp.generation.sampling import Sampling
from safekey_interp.generation.tokens import Asked, response_text
from safekey_interp.segmentation.segmenter import segmented
from safekey_interp.segmentation.sentence_splitter import iterate_sentences

if TYPE_CHECKING:
    from safekey_interp.segmentation.segmenter import Segmentation

KINDS = {"safe": "safe", "unsafe": "go_ahead", "neutral": "neutral"}
"""Condition of each aha."""
CONDITIONS = tuple(KINDS.values())
"""Kinds of K, in the order of the rows."""


class TokenEngine(Engine, Protocol):
    """An engine whose tokens are known here: a local model's, or vLLM's."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        ...

    @property
    def max_positions(self) -> int | None:
        """How far the model reads; None where nobody knows."""
        ...


class Drawn(NamedTuple):
    """A draw that has a key sentence."""

    number: int
    """From 1."""
    generated: Generated
    """What was written behind U."""
    key: CharSpan
    """K in the response."""


@dataclass
class Tries:
    """What was drawn behind one trace's U."""

    trace: Trace
    """The trace."""
    found: Segmentation
    """Where its own U and K lie."""
    begun: Beginning
    """Its tokens before K."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CONDITIONS, 0))
    """Draws of each kind."""
    kept: dict[str, list[Drawn]] = field(default_factory=dict)
    """The first of each kind, in their order."""

    def request(self) -> Request:
        """What is drawn from."""
        return self.begun.request(self.trace, len(self.begun.ends), share=1.0, condition="resampled")


def draw(
    engine: TokenEngine,
    all_tries: Mapping[str, Tries],
    sampling: Sampling,
    *,
    n_tries: int,
    per_kind: int,
    key_tokens: int,
    options: Mapping[str, Any],
) -> None:
    """Draw key sentences behind each trace's U, count them, and keep the first of each kind.

    Args:
        engine: who writes.
        all_tries: by trace id; what is drawn goes there.
        sampling: temperature, top_p and seed.
        n_tries: draws for each trace.
        per_kind: draws of each kind that are kept.
        key_tokens: tokens of a draw at most.
        options: for :func:`~safekey_interp.segmentation.segmenter.segmented`.
    """
    # With few tokens first: a draw that is made again with more goes on in the same stream, so that it is the same.
    pending = list(samples((tries.request() for tries in all_tries.values()), n_tries))
    for limit in sorted({-(-key_tokens // 3), key_tokens}):
        answers = list(engine.generate(pending, replace(sampling, n=1, max_new_tokens=limit))) if pending else []
        pending = []
        found_in = segmented((one.trace() for one in answers), **options)
        for one, (_, found) in zip(answers, found_in, strict=True):
            if one.cut and limit < key_tokens and not _is_settled(found):
                pending.append(one.request)
                continue
            tries = all_tries[one.trace_id]
            key = found.key_sentence
            condition = None if key is None else _kind(tries.found, found, key, cut=one.cut)
            if key is not None and condition is not None:
                tries.counts[condition] += 1
                so_far = [*tries.kept.get(condition, []), Drawn(one.sample + 1, one, key)]
                tries.kept[condition] = sorted(so_far, key=lambda drawn: drawn.number)[:per_kind]


def _is_settled(found: Segmentation) -> bool:
    """Whether no more text can change where K lies: a whole sentence follows it, or the reasoning has ended."""
    response, end = found.response, found.reasoning.end
    if found.region == "reasoning" and response[end:].strip():
        return True
    if found.key_sentence is None:
        return False
    return len(list(islice(iterate_sentences(response, found.key_sentence.end, end), 2))) == 2


def _kind(original: Segmentation, found: Segmentation, key: CharSpan, *, cut: bool) -> str | None:
    """The condition of a draw; None where it is no K behind the same U, or has no end."""
    if found.region != original.region or found.understanding != original.understanding or found.aha is None:
        return None
    is_whole = not cut or bool(found.response[key.end :].strip())
    return KINDS[found.aha] if is_whole else None


def behind(tokenizer: Any, drawn: Drawn, condition: str, sample: int) -> Request:
    """The request that goes on behind a drawn K, from the very tokens that were drawn."""
    one = drawn.generated
    assert one.input_ids is not None
    assert one.new_ids is not None
    n_prefill = len(one.input_ids) - (one.response_start or 0)
    asked, begins = Asked(list(one.input_ids), n_prefill), one.response[: drawn.key.end]
    for n in range(1, len(one.new_ids) + 1):
        text = response_text(tokenizer, one.request, asked, one.new_ids[:n])
        if text.startswith(begins):
            break
    else:
        n, text = len(one.new_ids), one.response
    ids = (*one.input_ids, *one.new_ids[:n])
    return replace(one.request, prefill=text, input_ids=ids, condition=condition, depth=n_prefill + n, sample=sample)
