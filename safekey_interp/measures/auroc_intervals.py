"""Confidence intervals of AUROC, of a difference of two, of the best of many, and of TPR at 1 % FPR, rows in groups.

Scores are held fixed, so an interval speaks of new prompts and not of new probes. The variance is DeLong's by group
(Obuchowski 1997, Biometrics 53:567), with pairs of the same fold alone: of row i, its wins minus AUROC times its pairs;
u_g, their sum over the rows of group g, over the number of all pairs; se² = G / (G - 1) · Σ u_g². Near 1 that is too
small and at 1 it is 0, so the interval is Clopper & Pearson's (1934) of an effective number of trials, as Korn &
Graubard (1998, Survey Methodology 24:193) make it of a share,

    n = AUROC (1 - AUROC) / se² · (z / t)²,    t with m - 1 degrees, m the groups of the class that has fewer,

but at most 2 m, which is what exponential scores give near 1 (Hanley & McNeil 1982), and m where AUROC is 0 or 1: of m
independent rows of a class, one that all rows of the other class outrank would show with probability 1 - AUROC or more.

The best of L layers: every layer's interval at once, at the level of the largest of L correlated t values (Hothorn,
Bretz & Westfall 2008, Biometrical Journal 50:346), never wider than Bonferroni's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import betaincinv, ndtri, stdtr

from safekey_interp.measures.auroc import placements
from safekey_interp.measures.intervals import NOTHING, Interval, student

LEAST = 5
"""Groups that each class must have; with fewer there is no interval."""
_N_DRAWS = 2_000


class Ranked(NamedTuple):
    """AUROC and what each group adds to its error."""

    value: float
    """AUROC over pairs of the same fold; NaN without a pair."""
    influence: Float[np.ndarray, " group"]
    """Of each group, in the order of the codes."""
    n_least: int
    """Groups of the class that has fewer."""

    @property
    def error(self) -> float:
        """Standard error."""
        n = len(self.influence)
        return float(np.sqrt(n / (n - 1) * (self.influence**2).sum())) if n > 1 else float("nan")


def rank(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    codes: Int[np.ndarray, " n"],
) -> Ranked:
    """AUROC of scores, with its influence by group.

    Args:
        scores: higher is more positive.
        positive: class of each row.
        fold: pairs are of rows of one fold.
        codes: group of each row, numbers from 0.
    """
    wins, pairs = placements(scores, positive, fold)
    n_groups = int(codes.max(initial=-1)) + 1
    least = min(len(np.unique(codes[positive])), len(np.unique(codes[~positive])))
    total = pairs[positive].sum()
    if total == 0:
        return Ranked(float("nan"), np.full(n_groups, np.nan), least)
    value = float(wins[positive].sum() / total)
    return Ranked(value, np.bincount(codes, (wins - value * pairs) / total, n_groups), least)


def auroc_interval(ranked: Ranked, confidence: float = 0.95) -> Interval:
    """Interval of an AUROC; NaN with fewer than :data:`LEAST` groups of a class."""
    value, m = ranked.value, ranked.n_least
    if m < LEAST or not np.isfinite(value):
        return NOTHING
    trials, error = float(m), ranked.error
    if 0 < value < 1 and error > 1e-12:
        factor = (ndtri(0.5 + confidence / 2) / student(m - 1, confidence)) ** 2
        trials = float(min(value * (1 - value) / error**2 * factor, 2.0 * m))
    return exact(value * trials, trials, confidence)


def auroc_difference(first: Ranked, second: Ranked, confidence: float = 0.95) -> Interval:
    """Interval of the second AUROC minus the first, of the same groups in the same order.

    From the two intervals and the correlation of what groups add to both (Zou & Donner 2008, Statistics in Medicine
    27:1693; Newcombe 1998, Statistics in Medicine 17:2635, method 10).
    """
    first_interval, second_interval = auroc_interval(first, confidence), auroc_interval(second, confidence)
    if not np.isfinite([*first_interval, *second_interval]).all():
        return NOTHING
    scale = np.sqrt((first.influence**2).sum() * (second.influence**2).sum())
    together = float(first.influence @ second.influence / scale) if scale > 1e-15 else 0.0
    # What both have in common is known no better than the smaller class allows.
    together *= 1 - 2 / min(first.n_least, second.n_least) if together > 0 else 1.0

    def reach(a: float, b: float) -> float:
        return float(np.sqrt(max(a * a + b * b - 2 * together * a * b, 0.0)))

    difference = second.value - first.value
    low = difference - reach(second.value - second_interval.low, first_interval.high - first.value)
    high = difference + reach(second_interval.high - second.value, first.value - first_interval.low)
    return Interval(max(-1.0, low), min(1.0, high))


def simultaneous(influences: Sequence[np.ndarray], n_least: int, seed: int, confidence: float = 0.95) -> float:
    """The confidence of each of several intervals at which all hold at once.

    Args:
        influences: of each figure, by group; the same groups for all.
        n_least: groups of the smaller class; t has one degree of freedom less.
        seed: of the draws of the largest t.
    """
    defined = [part for part in influences if np.isfinite(part).all() and (part**2).sum() > 1e-24]
    bonferroni = 1 - (1 - confidence) / max(1, len(influences))
    if len(defined) < 2 or n_least < LEAST:
        return bonferroni
    units = np.stack([part / np.sqrt((part**2).sum()) for part in defined])
    rng = np.random.default_rng(seed)
    freedom = n_least - 1
    normal = rng.standard_normal((_N_DRAWS, units.shape[1])) @ units.T
    largest = np.abs(normal).max(1) / np.sqrt(rng.chisquare(freedom, _N_DRAWS) / freedom)
    critical = float(np.quantile(largest, confidence))
    return min(bonferroni, float(2 * stdtr(freedom, critical) - 1))


def tpr_interval(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    codes: Int[np.ndarray, " n"],
    confidence: float = 0.95,
    *,
    max_fpr: float = 0.01,
) -> Interval:
    """Interval of TPR at an FPR that holds whatever the scores' distribution.

    So it is wide, at 1 % below some 400 negative groups. Half of the error is spent on the threshold (an order
    statistic of the negatives), half on the share of positives above its ends (Bonferroni); groups count as single
    rows, which is the most that they can depend on one another.
    """
    each = 0.5 + confidence / 2
    n_yes, n_no = (len(np.unique(codes[part])) for part in (positive, ~positive))
    if min(n_yes, n_no) < LEAST:
        return NOTHING
    yes, no = np.sort(scores[positive]), np.sort(scores[~positive])[::-1]
    low, high = _fpr_bounds(len(no), n_no, each)
    fewest, most = int(np.argmax(high >= max_fpr)), int(len(no) - np.argmax(low[::-1] <= max_fpr))

    def share(passed: int, *, strict: bool) -> float:
        if passed == len(no):
            return 1.0
        return float(1 - np.searchsorted(yes, no[passed], side="right" if strict else "left") / len(yes))

    # Above the highest negative there is no telling how far up the threshold lies.
    bottom = 0.0 if fewest == 0 else exact(share(fewest - 1, strict=True) * n_yes, n_yes, each).low
    return Interval(bottom, exact(share(most, strict=False) * n_yes, n_yes, each).high)


@lru_cache(maxsize=16)
def _fpr_bounds(n: int, n_groups: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the FPR when the k highest of n negatives pass, k from 0 to n; the same for all layers of a split."""
    passed = np.arange(n + 1) / n
    return exact_columns(passed * n_groups, n_groups, confidence)


def exact(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Clopper & Pearson's interval of a proportion, of any numbers of successes and trials."""
    low, high = exact_columns(np.array([successes]), trials, confidence)
    return Interval(float(low[0]), float(high[0]))


def exact_columns(successes: np.ndarray, trials: float, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`exact`, of several numbers of successes."""
    tail, misses = (1 - confidence) / 2, trials - successes
    low = np.where(successes > 1e-9, betaincinv(np.maximum(successes, 1e-9), misses + 1, tail), 0.0)
    high = np.where(misses > 1e-9, betaincinv(successes + 1, np.maximum(misses, 1e-9), 1 - tail), 1.0)
    return low, high
