"""Confidence intervals of means, ratios, shares and their differences, for rows that come in groups.

Rows of one group share a prompt or are twins, so groups are the independent units: variances are of sums by group
(linearisation of a ratio, Binder 1983, International Statistical Review 51:279), and quantiles are Student's with one
degree of freedom less than there are groups of effectively equal size, (Σ n_g)² / Σ n_g² (Kish 1965).

- A mean, or a ratio of means: the union of Student's and Hall's intervals (:mod:`.interval_bounds`).
- A share, or any mean of values in [0, 1]: one group of ones and one of zeros, of mean size, are added before the mean
  and its variance are taken (Agresti & Coull 1998, The American Statistician 52:119), so that shares of 0 and 1 have an
  interval, too.
- A difference of two shares: one group in which only the first counts and one in which only the second does are added
  (Bonett & Price 2012, J. Educ. Behav. Stat. 37:479; Agresti & Caffo 2000, The American Statistician 54:280).
- Its p: signs of the groups' differences are flipped at random, exactly (Fisher 1935); McNemar's exact test where each
  group is one pair.

Fewer than :data:`~safekey_interp.data.conditions.FEW` groups have no interval. How often each kind covers the truth,
and in which range, is simulated by ``python -m analysis.validation.interval_coverage``. Nothing is drawn: the same rows
give the same bounds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from safekey_interp.data.conditions import FEW
from safekey_interp.measures.interval_bounds import effective_groups, half_width, skewed_bounds, student


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    """Lower bound; NaN when undefined."""
    high: float
    """Upper bound; NaN when undefined."""


Groups = Sequence[Hashable] | np.ndarray
"""The group of each row; names are compared as text, arrays of whole numbers as such."""
GroupSums = Float[np.ndarray, "group columns"]
NOTHING = Interval(np.nan, np.nan)
"""The interval of what has none."""


class RatioOfMeans(NamedTuple):
    """Ratio of two means with its interval; arrays of the columns' shape."""

    value: np.ndarray
    """Σ numerator / Σ denominator; NaN where nothing is defined."""
    low: np.ndarray
    """Lower bound; NaN below :data:`FEW` groups."""
    high: np.ndarray
    """Upper bound; NaN below :data:`FEW` groups."""
    n: np.ndarray
    """Rows in which both sides are defined."""
    n_groups: np.ndarray
    """Groups of these rows."""

    def estimate(self, column: int = 0) -> dict[str, float]:
        """Value, low and high of one column."""
        return {name: getattr(self, name)[column] for name in ("value", "low", "high")}


def group_codes(groups: Groups) -> Int[np.ndarray, " n"]:
    """The group of each row as a number from 0, in the sorted order of the groups."""
    names = groups if isinstance(groups, np.ndarray) and groups.dtype.kind in "iu" else [str(group) for group in groups]
    return np.unique(np.asarray(names), return_inverse=True)[1]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Σ numerator / Σ denominator over rows of (n, columns), without interval; a row with a NaN is left out."""
    defined = ~(np.isnan(numerator) | np.isnan(denominator))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, numerator, 0.0).sum(0) / np.where(defined, denominator, 0.0).sum(0)


def ratio_of_means(
    numerator: np.ndarray, denominator: np.ndarray, groups: Groups, confidence: float = 0.95
) -> RatioOfMeans:
    """Σ numerator / Σ denominator over rows, with its interval; per column, a row with a NaN is left out.

    Args:
        numerator: (n, columns).
        denominator: (n, columns), or ones for a plain mean.
        groups: the group of each row.
        confidence: nominal coverage.
    """
    defined = ~(np.isnan(numerator) | np.isnan(denominator))
    codes = group_codes(groups)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    top, bottom, counts = (
        np.add.reduceat(np.where(defined, part, 0.0)[order].astype(np.float64), starts, axis=0)
        if len(starts)
        else np.zeros((0, *defined.shape[1:]))
        for part in (numerator, denominator, np.ones(defined.shape))
    )
    return ratio_of_sums(top, bottom, counts, confidence)


def mean_interval(values: np.ndarray, groups: Groups, confidence: float = 0.95) -> RatioOfMeans:
    """Mean of each of (n, columns) values over rows, with its interval; a row with a NaN is left out of its column."""
    return ratio_of_means(values, np.ones_like(values), groups, confidence)


def ratio_of_sums(top: GroupSums, bottom: GroupSums, counts: GroupSums, confidence: float = 0.95) -> RatioOfMeans:
    """As :func:`ratio_of_means`, of sums by group; ``counts`` are the rows of each, 0 where it has none."""
    has_rows = counts > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        value = top.sum(0) / bottom.sum(0)
        weight = bottom.sum(0) / has_rows.sum(0)
        residual = np.where(has_rows, top - value * bottom, 0.0) / weight
        apart = np.where(has_rows, bottom / weight - 1, 0.0)
    low, high = skewed_bounds(residual, apart, has_rows.sum(0), effective_groups(counts), confidence)
    return RatioOfMeans(value, value + low, value + high, counts.sum(0).astype(int), has_rows.sum(0))


def difference_of_ratios(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    groups: Groups,
    confidence: float = 0.95,
) -> tuple[float, Interval]:
    """The second ratio of sums minus the first, with its interval; rows of a group count together.

    Args:
        first: numerator and denominator, (n,) each; a row that the first has no part in is 0 in both.
        second: the same of the second.
        groups: the group of each of the n rows.
        confidence: nominal coverage.

    Returns:
        The difference, and its interval; NaN where either side has fewer than :data:`FEW` groups.
    """
    codes = group_codes(groups)
    values, parts, n_groups = [], [], []
    for top, bottom in (first, second):
        tops, bottoms = (np.bincount(codes, np.asarray(part, np.float64)) for part in (top, bottom))
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(tops.sum() / bottoms.sum())
            parts.append((tops - values[-1] * bottoms) / bottoms.sum())
        n_groups.append(int((bottoms != 0).sum()))
    least = np.array([min(n_groups, default=0)])
    influence = (parts[1] - parts[0])[:, None] * len(parts[0])
    low, high = skewed_bounds(influence, np.zeros_like(influence), least, least, confidence)
    value = float(values[1] - values[0])
    return value, Interval(value + float(low[0]), value + float(high[0]))


def share_interval(values: Sequence[float] | np.ndarray, groups: Groups, confidence: float = 0.95) -> Interval:
    """Interval of a share, or of a mean of values in [0, 1]; NaN below :data:`FEW` groups."""
    codes = group_codes(groups)
    sums, counts = np.bincount(codes, np.asarray(values, np.float64)), np.bincount(codes)
    if len(counts) < FEW:
        return NOTHING
    size = counts.mean()
    sums, counts = np.r_[sums, size, 0.0], np.r_[counts, size, size]
    centre = sums.sum() / counts.sum()
    influence = (sums - centre * counts) / counts.sum()
    half = half_width(influence, float(effective_groups(counts[:-2])) - 1, confidence)
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def difference_of_shares(
    first: tuple[Sequence[float] | np.ndarray, Groups],
    second: tuple[Sequence[float] | np.ndarray, Groups],
    confidence: float = 0.95,
) -> Interval:
    """Interval of the second share minus the first; a group may have rows in both or in one.

    Args:
        first: values in [0, 1] and the group of each.
        second: the same of the second.
        confidence: nominal coverage.

    Returns:
        NaN where either side has fewer than :data:`FEW` groups.
    """
    codes = group_codes([*first[1], *second[1]])
    n, sides = len(first[1]), []
    for values, part in ((first[0], codes[:n]), (second[0], codes[n:])):
        length = int(codes.max(initial=-1)) + 1
        sums, counts = np.bincount(part, np.asarray(values, np.float64), length), np.bincount(part, minlength=length)
        if (counts > 0).sum() < FEW:
            return NOTHING
        sides.append((sums, counts))
    centres, parts, freedom = [], [], []
    for number, (sums, counts) in enumerate(sides):
        size = counts[counts > 0].mean()
        added = np.array([0.0, size] if number == 0 else [size, 0.0])
        freedom.append(float(effective_groups(counts)) - 1)
        tops, bottoms = np.r_[sums, added], np.r_[counts, size, size]
        centres.append(tops.sum() / bottoms.sum())
        parts.append((tops - centres[-1] * bottoms) / bottoms.sum())
    centre, half = centres[1] - centres[0], half_width(parts[1] - parts[0], min(freedom), confidence)
    return Interval(max(-1.0, float(centre - half)), min(1.0, float(centre + half)))


def share_from_error(value: float, error: float, n: int | float, confidence: float = 0.95) -> Interval:
    """As :func:`share_interval`, of a share with a known standard error over ``n`` independent units."""
    if n < 2 or not np.isfinite([value, error]).all():
        return NOTHING
    centre = (value * n + 1) / (n + 2)
    squares = error**2 * n * (n - 1) + n * (value - centre) ** 2 + (1 - centre) ** 2 + centre**2
    half = float(student(n - 1, confidence) * np.sqrt(squares / ((n + 2) * (n + 1))))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def sign_flip_p(differences: Sequence[int] | np.ndarray, groups: Groups) -> float:
    """Exact two-sided p of a sum of whole differences when the sign of each group's sum is a coin's.

    With one pair a group it is McNemar's exact test (1947).

    Args:
        differences: of each row, a whole number, such as 1 (for the second alone), -1 (for the first alone) or 0.
        groups: the group of each row.

    Returns:
        The share of all assignments of signs whose sum is as far from 0 as the one observed; 1 without a difference.
    """
    whole = np.asarray(differences, dtype=np.int64)
    sums = np.rint(np.bincount(group_codes(groups), whole)).astype(int) if len(whole) else np.zeros(0, int)
    sizes = np.abs(sums[sums != 0])
    chance = np.ones(1)  # of each sum from -Σ|d| to Σ|d|, in steps of one
    for size in sizes.tolist():
        longer = np.zeros(len(chance) + 2 * size)
        longer[: len(chance)] += chance / 2
        longer[2 * size :] += chance / 2
        chance = longer
    total = int(sizes.sum())
    far = np.abs(np.arange(-total, total + 1)) >= abs(int(sums.sum()))
    return min(1.0, float(chance[far].sum()))


def percentiles(draws: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper percentile of draws over the first axis, ignoring NaN draws; NaN where every draw is NaN."""
    tail = (1 - confidence) / 2
    flat = draws.reshape(len(draws), -1)
    low, high = np.full(flat.shape[1], np.nan), np.full(flat.shape[1], np.nan)
    defined = ~np.isnan(flat).all(axis=0)
    if defined.any():
        low[defined], high[defined] = np.nanquantile(flat[:, defined], [tail, 1 - tail], axis=0)
    return low.reshape(draws.shape[1:]), high.reshape(draws.shape[1:])
