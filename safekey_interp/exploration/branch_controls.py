"""Random controls of what a branch changes: random keys, a random direction, a neutral sentence, foreign states.

Random keys are as many as the hidden span has, drawn evenly among the tokens before the first that does not see it,
outside the span, the understanding, the key sentence and the first token (as
:mod:`~safekey_interp.capture.attention_mask` draws them), and hidden from the same tokens. A random direction is one of
the direction's own draws of shuffled labels, else of the states' covariance, else isotropic, at the direction's norm.
States of another branch are controlled as in :mod:`~safekey_interp.interventions.activation_patching`: by those of an
answer to another prompt, of the same outcome as the branch that is patched, at as many tokens of the same position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, SafekeyError, TraceError
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.exploration.branch_record import StatePatch
from safekey_interp.generation.generation_edits import GENERATED, GenerationEdit, HideSpan
from safekey_interp.measures.control_directions import ControlKind, control_draws
from safekey_interp.measures.direction_record import Direction
from safekey_interp.models.encoding import Encoding

_KINDS: tuple[ControlKind, ...] = ("shuffled_labels", "covariance", "isotropic")


class NoControl(SafekeyError):
    """A change that has no random control; says why."""


def control_edits(
    edits: Sequence[GenerationEdit], encoding: Encoding, rng: np.random.Generator
) -> list[GenerationEdit]:
    """A random control of each edit.

    Args:
        edits: new ones of a branch.
        encoding: what the branch begins with.
        rng: draws.

    Raises:
        NoControl: an edit has none.
    """
    return [
        control
        for edit in edits
        for control in (
            _random_keys(edit, encoding, rng)
            if isinstance(edit, HideSpan)
            else [replace(edit, direction=random_direction(edit.direction, rng))]
        )
    ]


def random_direction(direction: Direction, rng: np.random.Generator) -> Direction:
    """One of a direction's control draws, at its norm."""
    for kind in _KINDS:
        n = 1 if direction.controls is None else max(1, len(direction.controls.covariance))
        seed = [int(rng.integers(2**31))]
        try:
            drawn = control_draws(direction.controls, kind, n, d_model=direction.d_model, seed=seed, what="direction")
        except InputError:
            continue
        vector = drawn[rng.integers(len(drawn))]
        return replace(direction, vector=vector / np.linalg.norm(vector), method=f"random: {kind}", controls=None)
    raise NoControl("no random direction can be drawn")


def other_answers(
    traces: Sequence[Trace], asked: Iterable[Trace], outcome: str | None, rng: np.random.Generator
) -> Iterator[Trace]:
    """Answers to other prompts, in random order.

    Args:
        traces: with a response or without.
        asked: traces whose prompts are no others.
        outcome: the refusal judge's label that they have; any when None.
        rng: draws.
    """
    known = {name for trace in asked for name in (trace.group, trace.prompt)}
    for number in rng.permutation(len(traces)):
        trace = traces[number]
        if not trace.response or not known.isdisjoint((trace.group, trace.prompt)):
            continue
        if outcome is None or outcome == judge_refusal(trace.prompt, trace.response).label:
            yield trace


def control_patch(
    patch: StatePatch, n: int, others: Iterable[Trace], encoded: Callable[[Trace], Encoding]
) -> StatePatch:
    """The states of another answer in the place of a patch's.

    Args:
        patch: of a branch.
        n: tokens that it replaces.
        others: answers to other prompts; the first with so many tokens of the position is taken.
        encoded: the tokens and spans of an answer.

    Raises:
        NoControl: none has so many.
    """
    for trace in others:
        with suppress(TraceError):
            if len(encoded(trace).positions(patch.positions)) >= n > 0:
                return replace(patch, source=trace)
    raise NoControl(
        f"no answer to another prompt, of the same outcome, has {n} tokens of {patch.positions}; run another prompt, "
        "or give traces"
    )


def _random_keys(edit: HideSpan, encoding: Encoding, rng: np.random.Generator) -> list[GenerationEdit]:
    span, n_tokens = list(encoding.positions(edit.span)), len(encoding.input_ids)
    if not span:
        raise NoControl(f"{edit.span} is not in what the branch begins with, so that no random keys are as many")
    from_ = [] if edit.from_ in (None, GENERATED) else list(encoding.positions(str(edit.from_)))
    first = next((at for at in from_ if at > span[-1]), span[-1] + 1 if edit.from_ is None else n_tokens)
    tested = {0, *span, *encoding.positions("understanding"), *encoding.positions("key_sentence")}
    pool = [at for at in range(1, first) if at not in tested]
    if len(pool) < len(span):
        raise NoControl(f"{len(span)} tokens are hidden, and only {len(pool)} others could be")
    keys = sorted(rng.permutation(pool)[: len(span)].tolist())
    hidden = " + ".join(f"token({key})" for key in keys)
    if edit.from_ is not None:
        return [replace(edit, span=hidden)]
    behind = [f"token({first}) .. token({n_tokens - 1})"] if first < n_tokens else []
    return [replace(edit, span=hidden, from_=name) for name in (*behind, GENERATED)]
