"""How sure a figure is: Wilson intervals for proportions, bootstraps over groups for everything else.

Traces of one group share a prompt or are twins, so they are drawn together: the bootstrap resamples groups, never rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from einops import einsum
from scipy.special import ndtri

FEW = 5
"""Fewer prompts than this say nothing about other prompts: a bootstrap over them would look surer than it is."""


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    """Lower bound; NaN when undefined."""
    high: float
    """Upper bound; NaN when undefined."""


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927). NaN bounds when ``n`` is 0."""
    if n == 0:
        return Interval(np.nan, np.nan)
    z = float(ndtri(0.5 + confidence / 2))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Interval(float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def bootstrap_weights(groups: Sequence[Hashable], n_draws: int, seed: int) -> np.ndarray:
    """How often each row counts in each bootstrap draw, when whole groups are drawn with replacement.

    Args:
        groups: the group of each of ``n`` rows.
        n_draws: number of draws.
        seed: seed of the draws.

    Returns:
        (n_draws, n) float32; rows of one group share their count.
    """
    _, index = np.unique(np.asarray([str(group) for group in groups], dtype=object), return_inverse=True)
    n_groups = int(index.max()) + 1 if len(index) else 0
    if n_groups == 0:
        return np.zeros((n_draws, 0), np.float32)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    return counts[:, index].astype(np.float32)


def percentile_interval(draws: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper percentile over the first axis, ignoring NaN draws; NaN where every draw is NaN."""
    tail = (1 - confidence) / 2
    flat = draws.reshape(len(draws), -1)
    low, high = np.full(flat.shape[1], np.nan), np.full(flat.shape[1], np.nan)
    defined = ~np.isnan(flat).all(axis=0)
    if defined.any():
        low[defined], high[defined] = np.nanquantile(flat[:, defined], [tail, 1 - tail], axis=0)
    return low.reshape(draws.shape[1:]), high.reshape(draws.shape[1:])


class RatioOfMeans(NamedTuple):
    """Ratio of two means over traces with its bootstrap interval; arrays of the columns' shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    """Rows in which both sides are defined."""


def ratio_of_means(numerator: np.ndarray, denominator: np.ndarray, weights: np.ndarray) -> RatioOfMeans:
    """Σ numerator / Σ denominator over rows, with a bootstrap interval; per column, a row with a NaN is left out.

    Args:
        numerator: (n, columns).
        denominator: (n, columns), or ones for a plain mean.
        weights: (n_draws, n) from :func:`bootstrap_weights`.
    """
    defined = ~(np.isnan(numerator) | np.isnan(denominator))
    top = np.where(defined, numerator, 0.0).astype(np.float64)
    bottom = np.where(defined, denominator, 0.0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = top.sum(0) / bottom.sum(0)
        draws = einsum(weights, top, "draw row, row column -> draw column") / einsum(
            weights, bottom, "draw row, row column -> draw column"
        )
    low, high = percentile_interval(draws)
    return RatioOfMeans(value, low, high, defined.sum(0))
