"""Early detection: from which prefix of a response on a detector tells the outcome, at a stated rate of false alarms.

A detector gives a trace a score at each of several prefixes, which grow: a probe on the state of the last token, a
classifier of the words so far. Each prefix has a scale of its own, so a score counts in standard deviations from the
mean of calibration traces that should raise no alarm. The alarm is raised at the first prefix where it passes a
threshold, which is split conformal over whole traces: of further calibration traces, each with its largest score of
all prefixes, at most the stated share passes it (Vovk et al. 2005), so that looking at many prefixes costs no more
false alarms than looking at one. Outcomes predicted from unfinished reasoning: arXiv 2507.12428.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from safekey_interp.errors import InputError
from safekey_interp.measures.auroc_intervals import Ranked, auroc_difference, auroc_interval, rank
from safekey_interp.measures.intervals import group_codes, share_interval


class Scored(NamedTuple):
    """A detector's scores of some traces."""

    scores: Float[np.ndarray, "trace prefix"]
    """Higher is more likely the outcome; NaN where a trace has no such prefix."""
    positive: Bool[np.ndarray, " trace"]
    """Whether the outcome came."""
    quiet: Bool[np.ndarray, " trace"]
    """Whether an alarm would be a false one that counts: traces of benign requests."""
    groups: Sequence[str]
    """The group of each trace."""


class AlarmRule(NamedTuple):
    """What raises the alarm."""

    mean: Float[np.ndarray, " prefix"]
    """Of calibration traces."""
    sd: Float[np.ndarray, " prefix"]
    """Their standard deviation."""
    threshold: float
    """A score of more standard deviations above the mean raises it."""

    def standardised(self, scores: Float[np.ndarray, "trace prefix"]) -> Float[np.ndarray, "trace prefix"]:
        """Scores in standard deviations from the mean of calibration traces; 0 where these do not differ."""
        return np.where(self.sd > 0, (scores - self.mean) / np.where(self.sd > 0, self.sd, 1.0), 0.0 * scores)

    def first_alarm(self, scores: Float[np.ndarray, "trace prefix"]) -> Int[np.ndarray, " trace"]:
        """The first prefix of each trace that raises it; the number of prefixes where none does."""
        raised = self.standardised(scores) > self.threshold
        return np.where(raised.any(1), raised.argmax(1), scores.shape[1])


def conformal_rank(n: int, false_positive_rate: float) -> int:
    """Which of n sorted calibration values a further one passes with a probability of at most the rate, from 1.

    Raises:
        InputError: a rate outside (0, 1), or fewer than 1 / rate - 1 values.
    """
    if not 0 < false_positive_rate < 1:
        raise InputError(f"false_positive_rate: got {false_positive_rate}, expected between 0 and 1")
    least = math.ceil(1 / false_positive_rate - 1 - 1e-9)
    if n < least:
        raise InputError(
            f"traces: got {n} benign ones, expected at least {least} for a false-positive rate of "
            f"{false_positive_rate}; give more, or allow a higher rate"
        )
    return math.ceil((1 - false_positive_rate) * (n + 1) - 1e-9)


def calibrate_alarm(
    reference: Float[np.ndarray, "calibration prefix"],
    further: Float[np.ndarray, "calibration prefix"],
    *,
    false_positive_rate: float = 0.01,
) -> AlarmRule:
    """The rule that at most a stated share of traces like these ever meets.

    Args:
        reference: scores of calibration traces that scores are standardised by.
        further: scores of other calibration traces, which set the threshold.
        false_positive_rate: of whole traces.

    Raises:
        InputError: as :func:`conformal_rank`.
    """
    rule = AlarmRule(np.nanmean(reference, axis=0), np.nanstd(reference, axis=0), math.inf)
    largest = np.sort(np.nanmax(rule.standardised(further), axis=1))
    return rule._replace(threshold=float(largest[conformal_rank(len(largest), false_positive_rate) - 1]))


def detection_table(scored: Scored, rule: AlarmRule, prefixes: Sequence[str]) -> pd.DataFrame:
    """What a detector knows at each prefix, and how many alarms it has raised by then.

    Args:
        scored: traces that neither the detector nor the rule has seen.
        rule: from :func:`calibrate_alarm`.
        prefixes: their names, in order.

    Returns:
        One row a prefix: prefix, auroc, auroc_low, auroc_high (traces with the outcome against the others of requests
        that are not benign), detected, detected_low, detected_high (share of traces with the outcome whose alarm was
        raised at this prefix or before), false_alarms, false_alarms_low, false_alarms_high (of benign requests),
        n_positive, n_negative, n_quiet. Intervals are 95 %, over groups.
    """
    first = rule.first_alarm(scored.scores)
    rows = []
    for number, prefix in enumerate(prefixes):
        ranked = _ranked(scored, number, np.isfinite(scored.scores[:, number]))
        low, high = auroc_interval(ranked)
        row = {"prefix": prefix, "auroc": ranked.value, "auroc_low": low, "auroc_high": high}
        for name, some in (("detected", scored.positive), ("false_alarms", scored.quiet)):
            raised = (first[some] <= number).astype(float)
            low, high = share_interval(
                raised, [group for group, chosen in zip(scored.groups, some, strict=True) if chosen]
            )
            row |= {name: raised.mean() if len(raised) else math.nan, f"{name}_low": low, f"{name}_high": high}
        counts = {
            "n_positive": scored.positive,
            "n_negative": ~scored.positive & ~scored.quiet,
            "n_quiet": scored.quiet,
        }
        rows.append(row | {name: int(some.sum()) for name, some in counts.items()})
    return pd.DataFrame(rows)


def auroc_differences(scored: Scored, other: Scored, prefixes: Sequence[str]) -> pd.DataFrame:
    """How much better a detector ranks the same traces than another does, at each prefix.

    Args:
        scored: traces that neither detector has seen.
        other: the same traces, in the same order, with the other's scores.
        prefixes: their names, in order.

    Returns:
        One row a prefix: prefix, value (AUROC of ``scored`` minus that of ``other``, over the traces of requests that
        are not benign to which both give a score), low, high (95 %, over groups, paired:
        :func:`~safekey_interp.measures.auroc_intervals.auroc_difference`; NaN with fewer than five groups of a class).

    Raises:
        InputError: the traces are not the same.
    """
    if not all(map(np.array_equal, scored[1:], other[1:])):
        raise InputError("other: expected the same traces as scored, in the same order")
    rows = []
    for number, prefix in enumerate(prefixes):
        both = np.isfinite(scored.scores[:, number]) & np.isfinite(other.scores[:, number])
        less, more = (_ranked(one, number, both) for one in (other, scored))
        low, high = auroc_difference(less, more)
        rows.append({"prefix": prefix, "value": more.value - less.value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _ranked(scored: Scored, number: int, some: Bool[np.ndarray, " trace"]) -> Ranked:
    """At one prefix, by the scores of some traces that are not benign."""
    told = some & ~scored.quiet
    codes = group_codes(np.asarray(scored.groups)[told])
    return rank(scored.scores[told, number], scored.positive[told], np.zeros(told.sum(), int), codes)
