"""Other requests' prompts in place of the mask of query-mask modelling.

    masked    K is predicted from the trace's own U: there is no prompt
    other     K is predicted from another trace's prompt and the trace's own U: a prompt that says nothing of K

The second is a control of the first, ours: it separates "the prompt says nothing" from "there is no prompt". A masked
pass is also a kind of text that the model never meets when it is asked, and another's prompt is not.

A partner is drawn anew for every trace and every step, from the seed, the step and the trace's id alone, so that
neither the batch, the number of processes nor a kill changes it. Any trace of another group may be drawn, **whatever
its label**: half of the partners of a harmful trace are benign where the data are balanced, so the prompt carries no
information on K. Partners share the tokens between prompt and response (the template's end): then the other prompt's
tokens followed by the trace's own response are exactly what the tokenizer makes of both. A trace without a partner (its
template ends in other tokens, as when only its response opens the reasoning itself, or no prompt is short enough) is
left out of the loss, and counted.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from safekey_interp.models.encoding import Encoding
from safekey_interp.training.batch import QueryMask
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import Example

_Tail = tuple[int, ...]


class _Kin(NamedTuple):
    """Traces whose templates end alike, the shortest prompt first."""

    lengths: list[int]
    sums: list[int]
    encodings: list[Encoding]
    of_group: dict[str, list[int]]


class OtherPrompts:
    """Draws the trace whose prompt stands before another's response."""

    def __init__(self, examples: Sequence[Example], *, seed: int, limit: int) -> None:
        self._seed, self._limit = seed, limit
        tails: dict[_Tail, list[Example]] = {}
        for example in examples:
            tail = _tail(example.encoding)
            if tail is not None:
                tails.setdefault(tail, []).append(example)
        self._kin: dict[_Tail, _Kin] = {}
        for tail, kin in tails.items():
            kin.sort(key=lambda example: (example.encoding.response_start, example.trace_id))
            of_group: dict[str, list[int]] = {}
            for number, example in enumerate(kin):
                of_group.setdefault(example.group, []).append(number)
            encodings = [example.encoding for example in kin]
            lengths = [encoding.response_start for encoding in encodings]
            self._kin[tail] = _Kin(lengths, [0, *accumulate(lengths)], encodings, of_group)

    def partner(self, example: Example, step: int) -> Encoding | None:
        """The trace whose prompt stands before an example's response in a step.

        Args:
            example: one of the examples.
            step: optimizer steps done.

        Returns:
            A trace of another group, drawn evenly from those whose prompt leaves room for the response up to the end of
            K; None where there is none.
        """
        if (candidates := self._candidates(example)) is None:
            return None
        kin, n, own = candidates
        at = random.Random(f"{self._seed} {step} {example.trace_id}").randrange(n - len(own))
        for number in own:
            at += at >= number
        return kin.encodings[at]

    def has_partner(self, example: Example) -> bool:
        """Whether there is a prompt to draw."""
        return self._candidates(example) is not None

    def mean_length(self, example: Example) -> float:
        """Mean number of tokens of the prompts that may stand before an example's response; 0 where there are none."""
        if (candidates := self._candidates(example)) is None:
            return 0.0
        kin, n, own = candidates
        return (kin.sums[n] - sum(kin.lengths[number] for number in own)) / (n - len(own))

    def longest(self, example: Example) -> int:
        """Tokens of the longest prompt that may stand before an example's response; 0 where there are none."""
        if (candidates := self._candidates(example)) is None:
            return 0
        kin, n, own = candidates
        return kin.lengths[next(number for number in reversed(range(n)) if number not in own)]

    def _candidates(self, example: Example) -> tuple[_Kin, int, list[int]] | None:
        """Traces that end alike, how many are short enough, and which of these are of the example's group; None where
        all of these are."""
        encoding = example.encoding
        kin = self._kin.get(_tail(encoding) or ())
        if kin is None:
            return None
        n = bisect_right(kin.lengths, self._limit - (encoding.end - encoding.response_start))
        own = [number for number in kin.of_group.get(example.group, ()) if number < n]
        return (kin, n, own) if n > len(own) else None


def other_prompts_of(config: TrainingConfig, examples: Sequence[Example], limit: int) -> OtherPrompts | None:
    """What draws other prompts among some examples; None where a run masks the prompt or has no such loss.

    Args:
        config: query_prompt, query_mask_weight and seed.
        examples: of training, or held out: partners are of the same part.
        limit: most tokens of a row, as far as the run and the model read.
    """
    if config.query_prompt != "other" or not config.query_mask_weight:
        return None
    return OtherPrompts(examples, seed=config.seed, limit=limit)


class SecondPass(NamedTuple):
    """Cost of predicting K once more, over an epoch."""

    tokens: int
    """Tokens that are read a second time, other prompts by their mean length."""
    longest: int
    """Of the longest row."""
    n: int
    """Traces whose K is predicted."""
    n_without_partner: int
    """Traces with a K, but without another prompt to stand before it."""


def second_pass(
    config: TrainingConfig, examples: Sequence[Example], limit: int, layout: QueryMask | None
) -> SecondPass | None:
    """What query-mask modelling costs beside the first pass; None where a run has no such loss.

    Args:
        config: query_prompt, query_mask_weight and seed.
        examples: of training.
        limit: most tokens of a row, as far as the run and the model read.
        layout: of the second pass; None for none.
    """
    if layout is None:
        return None
    others = other_prompts_of(config, examples, limit)
    tokens, longest, n, without = 0.0, 0, 0, 0
    for example in examples:
        if not len(example.encoding.positions("key_sentence")):
            continue
        if others is not None and not others.has_partner(example):
            without += 1
            continue
        own = example.encoding.end - (0 if layout == "masked" else example.encoding.response_start)
        tokens += own + (others.mean_length(example) if others else 0.0)
        longest = max(longest, own + (others.longest(example) if others else 0))
        n += 1
    return SecondPass(round(tokens), longest, n, without)


def _tail(encoding: Encoding) -> _Tail | None:
    """Tokens between the prompt and the response; None where the two cannot be cut apart there."""
    prompt = encoding.positions("prompt")
    start = encoding.response_start
    if not len(prompt) or prompt[-1] + 1 >= start or start - 1 in encoding.straddling:
        return None
    return tuple(encoding.input_ids[prompt[-1] + 1 : start].tolist())
