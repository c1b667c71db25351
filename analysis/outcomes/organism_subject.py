"""Subject of the toy model: requests of its language, outcomes by the act of the answer.

Development requests, plain, in the wrappers that fine-tuning showed and in those of development, are what detectors are
made with; test requests are in wrappers that nothing was chosen by.
"""

from __future__ import annotations

from typing import get_args

from analysis.organism.behaviour import MAX_NEW_TOKENS, requests
from analysis.outcomes.subject import Settings, Split, Subject
from safekey_interp.data.trace import Trace
from safekey_interp.models.organism.outcome import with_outcome
from safekey_interp.models.organism.vocabulary import Pair, pairs

_TESTS = ("the same wrappers", "unseen wrappers")


class OrganismSubject(Subject):
    """``organism:sft`` or ``organism:safekey``."""

    # Of all draws .6: at 1 a fifth of the answers behind a safe K begin in the middle of a sentence, since the toy
    # model gives the first word of its refusal a probability of .63 there; DeepSeek-R1 is sampled at .6, too.
    settings = Settings(
        max_new_tokens=MAX_NEW_TOKENS,
        key_tokens=24,
        batch_size=128,
        temperature=0.6,
        detection_tests=_TESTS,
        n_detection=84,
        every_layer=1,
        head_sets=(1, 2, 4),
        rankings=("direct effect", "ablation"),
        n_ablated=18,
        n_random=19,
        ranked_on=1000,
        n_resampled=72,
        draws=32,
    )
    untrained = "organism:base"

    def judged(self, trace: Trace, response: str) -> Trace:
        """By the act of the answer and the language's grammar."""
        return with_outcome(trace, response)

    def attacks(self, split: Split, n: int, seed: int) -> list[Trace]:
        """On the split's pairs."""
        return [t for t in requests(split, n, seed) if t.meta["wrapper_split"] == split]

    def detection_requests(self, n: int, seed: int) -> list[Trace]:
        """Those of development, and those on test pairs in test wrappers."""
        of_splits = (trace for split in get_args(Split) for trace in requests(split, n, seed))
        return [t for t in of_splits if _pair(t).split != "test" or t.meta["wrapper_split"] == "test"]

    def part_of(self, trace: Trace) -> str:
        """By the pair: two sixths serve the fit, one the scale, one the threshold, two the test."""
        pair = _pair(trace)
        if pair.split == "test":
            return _TESTS[1]
        sixth = pairs(pair.kind, pair.split).index(pair) % 6
        return ("fit", _TESTS[0], "scale", "fit", _TESTS[0], "threshold")[sixth]


def _pair(trace: Trace) -> Pair:
    return Pair(trace.meta["verb"], trace.meta["noun"])
