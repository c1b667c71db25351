"""Simulated data for each kind of interval: what was covered, how wide, and how wide the interval before it was.

Every function takes a generator, the number of simulations and a setting, and returns a :class:`Trial`. Data resemble
what the package measures: shares by prompt with an intraclass correlation (beta-binomial), masses and ratios that are
skewed, binormal scores with an effect of the prompt, judges with a bias, wrappers that succeed always or never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from safekey_interp.evaluation.paired_tests import kappa_interval
from safekey_interp.experiments.compare_probes import Scores, median_layer
from safekey_interp.interventions.attribution_patching import correlation_interval
from safekey_interp.measures.auroc_intervals import auroc_difference, auroc_interval, rank, simultaneous, tpr_interval
from safekey_interp.measures.crossed_intervals import crossed_mean, two_way_share
from safekey_interp.measures.intervals import (
    Interval,
    difference_of_ratios,
    difference_of_shares,
    percentiles,
    ratio_of_sums,
    share_from_error,
    share_interval,
    sign_flip_p,
)

Rng = np.random.Generator
_DRAWS = 400


class Trial(NamedTuple):
    """Bounds of each simulation beside the truth."""

    truth: float | np.ndarray
    low: np.ndarray
    high: np.ndarray
    before: float = float("nan")
    """Mean width of a percentile bootstrap over groups on the same data."""
    before_covers: float = float("nan")
    """How often that one covers."""


def _trial(truth: float | np.ndarray, intervals: list[Interval], before: tuple[float, float] | None = None) -> Trial:
    low, high = np.array(intervals).T
    return Trial(truth, low, high, *(before or ()))


def bootstrapped(rng: Rng, truth: float, top: np.ndarray, bottom: np.ndarray) -> tuple[float, float]:
    """Mean width and coverage of the percentile bootstrap, of sums by group, (group, simulation)."""
    top, bottom, n = top[:, :1000], bottom[:, :1000], len(top)
    weights = rng.multinomial(n, [1 / n] * n, size=_DRAWS).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = percentiles((weights @ top) / (weights @ bottom))
    return float(np.nanmean(high - low)), float(np.mean((low <= truth) & (truth <= high)))


MEANS: dict[str, tuple[Callable[[Rng, tuple[int, int]], np.ndarray], float]] = {
    "normal": (lambda rng, s: rng.normal(1, 1, s), 1.0),
    "heavy tails (Laplace)": (lambda rng, s: rng.laplace(1, 1, s), 1.0),
    "exponential, skewness 2": (lambda rng, s: rng.exponential(1, s), 1.0),
    "lognormal, skewness 3.7": (lambda rng, s: rng.lognormal(0, 0.8, s), float(np.exp(0.32))),
    "lognormal, skewness 6.2": (lambda rng, s: rng.lognormal(0, 1, s), float(np.exp(0.5))),
    "masses, beta(.5, 4)": (lambda rng, s: rng.beta(0.5, 4, s), 0.5 / 4.5),
    "two-humped, beta(.2, .2)": (lambda rng, s: rng.beta(0.2, 0.2, s), 0.5),
}


def mean(rng: Rng, n: int, groups: int, kind: str) -> Trial:
    """A mean over groups."""
    draw, truth = MEANS[kind]
    values = draw(rng, (groups, n))
    ones = np.ones_like(values)
    interval = ratio_of_sums(values, ones, ones)
    return Trial(truth, interval.low, interval.high, *bootstrapped(rng, truth, values, ones))


def ratio(rng: Rng, n: int, groups: int, spread: float) -> Trial:
    """A ratio of means, mass over matched mass, with one to four traces a group."""
    sizes = rng.integers(1, 5, (groups, n)).astype(float)
    bottom = sizes * rng.lognormal(0, 0.5, (groups, n))
    top = 1.5 * bottom * rng.lognormal(-(spread**2) / 2, spread, (groups, n))
    interval = ratio_of_sums(top, bottom, sizes)
    return Trial(1.5, interval.low, interval.high, *bootstrapped(rng, 1.5, top, bottom))


def ratio_difference(rng: Rng, n: int, groups: int, spread: float) -> Trial:
    """A difference of two ratios of means on the same prompts."""
    names, intervals = np.arange(groups), []
    for _ in range(n):
        shared = rng.lognormal(0, 0.4, groups)
        bottoms = shared * rng.lognormal(0, 0.2, (2, groups))
        tops = np.array([[1.0], [1.3]]) * bottoms * rng.lognormal(-(spread**2) / 2, spread, (2, groups))
        intervals.append(difference_of_ratios((tops[0], bottoms[0]), (tops[1], bottoms[1]), names)[1])
    return _trial(0.3, intervals)


def rates(rng: Rng, size: tuple[int, ...], share: float, icc: float) -> np.ndarray:
    """Shares of groups, beta with an intraclass correlation; 0 or 1 where it is 1."""
    if icc == 0:
        return np.full(size, share)
    if icc == 1:
        return (rng.random(size) < share).astype(float)
    return rng.beta(share * (1 - icc) / icc, (1 - share) * (1 - icc) / icc, size)


def share(rng: Rng, n: int, groups: int, at: float, *, icc: float, rows: int) -> Trial:
    """A share of traces, ``rows`` a group."""
    hits = rng.binomial(rows, rates(rng, (groups, n), at, icc))
    names = np.repeat(np.arange(groups), rows)
    intervals = [share_interval((np.arange(rows) < column[:, None]).ravel().astype(float), names) for column in hits.T]
    return _trial(at, intervals, bootstrapped(rng, at, hits.astype(float), np.full(hits.shape, float(rows))))


def share_difference(
    rng: Rng, n: int, groups: int, first: float, second: float, *, together: float, rows: int = 2, paired: bool = True
) -> Trial:
    """A difference of shares; paired on the same prompts, or of other prompts."""
    names, intervals = np.repeat(np.arange(groups), rows), []
    other = names if paired else names + groups
    sums = np.zeros((groups, n))
    for i in range(n):
        easy = rng.random(groups)
        both = np.where(rng.random(groups) < together, easy, rng.random(groups))
        first_hits, second_hits = (easy < first).repeat(rows), (both < second).repeat(rows)
        flips = rng.random((2, groups * rows)) < 0.1
        first_hits = np.where(flips[0], rng.random(groups * rows) < first, first_hits).astype(float)
        second_hits = np.where(flips[1], rng.random(groups * rows) < second, second_hits).astype(float)
        intervals.append(difference_of_shares((first_hits, names), (second_hits, other)))
        sums[:, i] = (second_hits - first_hits).reshape(groups, rows).sum(1)
    before = bootstrapped(rng, second - first, sums, np.full(sums.shape, float(rows))) if paired else None
    return _trial(second - first, intervals, before)


def _scores(rng: Rng, groups: int, auroc: float | np.ndarray, icc: float, *, rows: int, layers: int = 1) -> Scores:
    """Binormal scores of ``groups`` groups of each class in five folds; layers share most of a prompt's effect."""
    names = np.repeat(np.arange(2 * groups), rows)
    positive = names < groups
    shared, own = (rng.normal(size=(2 * groups, k)) for k in (1, layers))
    effect = np.sqrt(0.8) * shared + np.sqrt(0.2) * own if layers > 1 else own
    noise = rng.normal(size=(len(names), layers))
    apart = np.sqrt(2) * ndtri(np.broadcast_to(auroc, layers))
    values = np.sqrt(icc) * effect[names] + np.sqrt(1 - icc) * noise + np.outer(positive, apart)
    fold = names % groups % min(5, groups)
    return Scores([str(i) for i in range(len(names))], names.astype(str).tolist(), positive, fold, values)


def auroc(rng: Rng, n: int, groups: int, at: float, *, icc: float, rows: int) -> Trial:
    """AUROC of ``groups`` groups of each class."""
    names = np.repeat(np.arange(2 * groups), rows)
    intervals, before = [], []
    for i in range(n):
        made = _scores(rng, groups, at, icc, rows=rows)
        scores = made.values[:, 0]
        intervals.append(auroc_interval(rank(scores, made.positive, made.fold, names)))
        if i < 200:
            before.append(_bootstrapped_auroc(rng, scores, made.positive, made.fold, names))
    low, high = np.array(before).T
    return _trial(at, intervals, (float(np.nanmean(high - low)), float(np.mean((low <= at) & (at <= high)))))


def _bootstrapped_auroc(
    rng: Rng, scores: np.ndarray, positive: np.ndarray, fold: np.ndarray, names: np.ndarray
) -> tuple[float, float]:
    yes, no = np.flatnonzero(positive), np.flatnonzero(~positive)
    same = fold[yes][:, None] == fold[no][None, :]
    wins = same * ((scores[yes][:, None] > scores[no][None, :]) + 0.5 * (scores[yes][:, None] == scores[no][None, :]))
    n = int(names.max()) + 1
    weights = rng.multinomial(n, [1 / n] * n, size=_DRAWS)[:, names].astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = ((weights[:, yes] @ wins) * weights[:, no]).sum(1) / ((weights[:, yes] @ same) * weights[:, no]).sum(1)
    low, high = percentiles(draws)
    return float(low), float(high)


def auroc_pair(rng: Rng, n: int, groups: int, first: float, second: float) -> Trial:
    """A difference of two AUROCs on the same prompts."""
    names, intervals = np.repeat(np.arange(2 * groups), 2), []
    for _ in range(n):
        made = _scores(rng, groups, np.array([first, second]), 0.5, rows=2, layers=2)
        first_sample, second_sample = (rank(column, made.positive, made.fold, names) for column in made.values.T)
        intervals.append(auroc_difference(first_sample, second_sample))
    return _trial(second - first, intervals)


def auroc_median(rng: Rng, n: int, groups: int, at: float) -> Trial:
    """The median over twelve layers."""
    intervals = [auroc_interval(median_layer(_scores(rng, groups, at, 0.5, rows=1, layers=12))) for _ in range(n)]
    return _trial(at, intervals)


def best_layer(rng: Rng, n: int, groups: int, at: float, *, alone: bool = False) -> Trial:
    """The layer of twelve alike that came out best, with the interval of all layers or, ``alone``, its own."""
    names, intervals = np.arange(2 * groups), []
    for i in range(n):
        made = _scores(rng, groups, at, 0.5, rows=1, layers=12)
        layers = [rank(column, made.positive, made.fold, names) for column in made.values.T]
        best = max(layers, key=lambda layer: layer.value)
        level = 0.95 if alone else simultaneous([layer.influence for layer in layers], groups, seed=i)
        intervals.append(auroc_interval(best, level))
    return _trial(at, intervals)


def tpr(rng: Rng, n: int, groups: int, at: float, rows: int) -> Trial:
    """TPR at 1 % FPR."""
    names, intervals = np.repeat(np.arange(2 * groups), rows), []
    for _ in range(n):
        made = _scores(rng, groups, at, 0.5, rows=rows)
        intervals.append(tpr_interval(made.values[:, 0], made.positive, names))
    return _trial(float(ndtr(np.sqrt(2) * ndtri(at) - ndtri(0.99))), intervals)


def kappa(rng: Rng, n: int, groups: int, agree: float, rows: int) -> Trial:
    """Cohen's kappa of two judges with three labels who agree on a share beside chance."""
    common, names, intervals = np.array([0.6, 0.3, 0.1]), np.repeat(np.arange(groups), rows), []
    for _ in range(n):
        hard = rng.random(groups).repeat(rows) < 0.5  # half of the prompts are decided as a whole
        sure = np.where(hard, (rng.random(groups) < agree).repeat(rows), rng.random(groups * rows) < agree)
        first_rater, second_rater = rng.choice(3, (2, groups * rows), p=common)
        intervals.append(
            kappa_interval(np.eye(9)[first_rater * 3 + np.where(sure, first_rater, second_rater)], names)[1]
        )
    return _trial(agree, intervals)


def pearson(rng: Rng, n: int, groups: int, at: float, rows: int) -> Trial:
    """Pearson's correlation over rows of groups."""
    names, intervals = np.repeat(np.arange(groups), rows), []
    for _ in range(n):
        x, e = np.sqrt(0.4) * rng.normal(size=(2, groups))[:, names] + np.sqrt(0.6) * rng.normal(size=(2, len(names)))
        intervals.append(correlation_interval(x, at * x + np.sqrt(1 - at**2) * e, names)[1])
    return _trial(at, intervals)


def two_way(rng: Rng, n: int, wrappers: int, share_of: float, icc: float) -> Trial:
    """A share over wrappers crossed with 72 pairs, wrappers apart by ``icc``."""
    first, second = (part.ravel() for part in np.meshgrid(np.arange(wrappers), np.arange(72), indexing="ij"))
    intervals, sums = [], np.zeros((wrappers, n))
    for i in range(n):
        chance = rates(rng, (wrappers,), share_of, icc)[:, None]
        easy = rng.normal(size=72)[None, :] * 0.5
        inside = np.clip(chance, 1e-9, 1 - 1e-9)
        # The pair's effect keeps the wrapper's mean: the normal scale with the sum of both variances.
        hits = rng.random((wrappers, 72)) < ndtr(ndtri(inside) * np.sqrt(1.25) + easy)
        intervals.append(two_way_share(hits.ravel().astype(float), first, second))
        sums[:, i] = hits.sum(1)
    return _trial(share_of, intervals, bootstrapped(rng, share_of, sums, np.full(sums.shape, 72.0)))


def crossed(rng: Rng, n: int, wrappers: int, of_wrapper: float, of_seed: float) -> Trial:
    """A contrast over 2 bases x 8 seeds x wrappers, the bases as they are; noise of 24 requests a cell."""
    base, intervals = np.array([-0.05, 0.05])[:, None, None], []
    for _ in range(n):
        cells = base + of_wrapper * rng.normal(size=wrappers) + of_seed * rng.normal(size=(2, 8, 1))
        intervals.append(crossed_mean(-0.15 + cells + rng.normal(0, 0.12, (2, 8, wrappers)))[1])
    return _trial(-0.15, intervals)


def harness(rng: Rng, n: int, tasks: int, at: float) -> Trial:
    """A benchmark's share of tasks, from the harness's standard error; without one where all came out alike."""
    values = rng.binomial(tasks, at, n) / tasks
    values = values[(values > 0) & (values < 1)]
    intervals = [share_from_error(v, float(np.sqrt(v * (1 - v) / (tasks - 1))), tasks) for v in values]
    return _trial(at, intervals)


def flipped(rng: Rng, n: int, groups: int, rows: int) -> Trial:
    """How often the p of flipped signs is above .05 when there is no difference; as an interval that holds 0."""
    names, held = np.repeat(np.arange(groups), rows), []
    for _ in range(n):
        apart = rng.choice([-1, 0, 1], groups, p=[0.3, 0.4, 0.3]).repeat(rows)
        held.append(sign_flip_p(apart, names) > 0.05)
    kept = np.array(held)
    return Trial(0.0, np.where(kept, -1.0, 1.0), np.ones(n))
