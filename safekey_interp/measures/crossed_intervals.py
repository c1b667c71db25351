"""Confidence intervals over two ways of grouping at once: wrappers and prompts, traces and donors, wrappers and runs.

With few groups in one way, such as six wrappers, Student's t has that number minus one as its degrees of freedom.

- A share or a mean over two ways: variance V = max(V₁, V₂, V₁ + V₂ - V₁₂) (Cameron, Gelbach & Miller 2011, J. Bus.
  Econ. Stat. 29:238), a share with one group of ones and one of zeros added as in
  :mod:`safekey_interp.measures.intervals`.
- A mean over cells (base, seed, wrapper): wrappers are crossed with all seeds, seeds lie within a base, and the bases
  are those that there are (no interval speaks of other ones). V = V_wrapper + V_seed, each of the means of its own
  level, with Satterthwaite's (1946) degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit

from safekey_interp.data.conditions import FEW
from safekey_interp.measures.intervals import NOTHING, Groups, Interval, group_codes, share_from_error, student

LEAST = 5
"""Groups of either way; with fewer there is no interval."""


def two_way_share(
    values: Sequence[float] | np.ndarray, first: Groups, second: Groups, confidence: float = 0.95
) -> Interval:
    """Interval of a share, or of a mean of values in [0, 1], whose rows are grouped in two ways.

    Args:
        values: of each row.
        first: its group in one way, such as the wrapper.
        second: its group in the other, such as the pair that the request is about.
        confidence: nominal coverage.

    Returns:
        NaN below :data:`LEAST` groups of either way.
    """
    shares = np.asarray(values, np.float64)
    first_codes, second_codes = group_codes(first), group_codes(second)
    if min(len(np.unique(codes)) for codes in (first_codes, second_codes)) < LEAST:
        return NOTHING
    mean = float(shares.mean())
    error, n = _two_way_error((shares - mean) / len(shares), first_codes, second_codes)
    return share_from_error(mean, error, n, confidence)


def two_way_interval(
    value: float, errors: Float[np.ndarray, " row"], first: Groups, second: Groups, confidence: float = 0.95
) -> Interval:
    """Student's interval of a mean whose rows are grouped in two ways, such as a trace and a donor.

    A donor of several traces moves them all; an interval over traces alone takes what is
    peculiar to that donor for an effect.

    Args:
        value: the mean, the sum of weight times number over rows.
        errors: weight times (number minus its expectation), of each row; they add up to 0.
        first: each row's group in one way, such as the trace's.
        second: its group in the other, such as the donor's.
        confidence: nominal coverage.

    Returns:
        NaN below :data:`~safekey_interp.data.conditions.FEW` groups of either way.
    """
    error, n = _two_way_error(errors, group_codes(first), group_codes(second))
    if n < FEW:
        return NOTHING
    half = float(student(n - 1, confidence) * error)
    return Interval(value - half, value + half)


def _two_way_error(errors: Float[np.ndarray, " row"], first: np.ndarray, second: np.ndarray) -> tuple[float, int]:
    """Standard error by the formula above, and the smaller number of groups."""
    both = first.astype(np.int64) * (int(second.max(initial=0)) + 1) + second
    variances, sizes = [], []
    for codes in (first, second, both):
        sums = np.bincount(np.unique(codes, return_inverse=True)[1], errors)
        k = len(sums)
        sizes.append(k)
        variances.append(k / (k - 1) * (sums**2).sum() if k > 1 else 0.0)
    v_one, v_two, v_both = variances
    return float(np.sqrt(max(v_one, v_two, v_one + v_two - v_both))), min(sizes[:2])


def crossed_mean(cells: Float[np.ndarray, "base seed wrapper"], confidence: float = 0.95) -> tuple[float, Interval]:
    """The mean over cells, with its interval over other seeds and other wrappers on these bases.

    Args:
        cells: the mean of each cell, or for a contrast the difference of two; none NaN.
        confidence: nominal coverage.

    Returns:
        The mean; its interval, NaN below :data:`LEAST` wrappers or two seeds of a base, and too narrow with two or
        three seeds in all.
    """
    mean, error, freedom = crossed_error(cells)
    if np.isnan(error):
        return mean, NOTHING
    half = float(student(freedom, confidence) * error) if error else 0.0
    return mean, Interval(mean - half, mean + half)


def crossed_share(cells: Float[np.ndarray, "base seed wrapper"], confidence: float = 0.95) -> tuple[float, Interval]:
    """As :func:`crossed_mean`, of shares: see :func:`share_between`."""
    mean, error, freedom = crossed_error(cells)
    return mean, share_between(mean, error, freedom, confidence)


def share_between(mean: float, error: float, freedom: float, confidence: float = 0.95) -> Interval:
    """Interval of a share within [0, 1], from its standard error: Student's t on the log-odds by the delta method.

    Args:
        mean: the share.
        error: its standard error.
        freedom: degrees of freedom of Student's t.
        confidence: nominal coverage.

    Returns:
        NaN where no unit differs from another, since the error says nothing there.
    """
    if not error > 0 or not 0 < mean < 1:
        return NOTHING
    half = float(student(freedom, confidence) * error / (mean * (1 - mean)))
    return Interval(*(float(expit(logit(mean) + side)) for side in (-half, half)))


def crossed_error(cells: Float[np.ndarray, "base seed wrapper"]) -> tuple[float, float, float]:
    """The mean over cells, its standard error as for :func:`crossed_mean`, and the degrees of freedom of Student's t.

    Args:
        cells: as for :func:`crossed_mean`.

    Returns:
        Error and degrees of freedom are NaN where there is no interval; without any variance 0 and infinite.
    """
    n_bases, n_seeds, n_wrappers = cells.shape
    mean = float(cells.mean())
    if n_wrappers < LEAST or n_seeds < 2:
        return mean, np.nan, np.nan
    of_wrapper = cells.mean((0, 1)).var(ddof=1) / n_wrappers
    of_seed = cells.mean(2).var(axis=1, ddof=1).sum() / (n_seeds * n_bases**2)
    total = of_wrapper + of_seed
    if total == 0:
        return mean, 0.0, np.inf
    freedom = total**2 / (of_wrapper**2 / (n_wrappers - 1) + of_seed**2 / (n_bases * (n_seeds - 1)))
    return mean, float(np.sqrt(total)), float(freedom)
