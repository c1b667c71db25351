"""Bounds of Student's and Hall's intervals, for rows summed by group.

An interval of a ratio of means holds the ratios r at which the mean of d_g = y_g - r x_g does not differ from 0
(Fieller 1954, JRSS B 16:175). That is judged by Student's t, which holds for symmetric values, and by Hall's (1992,
JRSS B 54:221), which removes the skewness γ of the d_g, g(t) = t + γ/(3√G) t² + γ²/(27G) t³ + γ/(6√G), with γ times
1 + 6 / G for its small-sample bias (Bobée & Robitaille 1975, Water Resources Research 11:851). The interval is the
union, as far as it holds together around the value: each bound is the first ratio, from the value outwards, that both
reject.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from safekey_interp.data.conditions import FEW

_FINE, _FAR = 0.25, 64.0
"""Steps in which a bound is looked for near the value, and how far at most, in half-widths of the interval there."""
_HALVINGS = 36


def student(freedom: float | np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Two-sided quantile of Student's t."""
    return stdtrit(np.maximum(freedom, 1.0), 0.5 + confidence / 2)


def effective_groups(counts: np.ndarray) -> np.ndarray:
    """Groups of equal size that would be as many, (Σ n)² / Σ n²."""
    with np.errstate(invalid="ignore"):
        return counts.sum(0) ** 2 / (np.asarray(counts, np.float64) ** 2).sum(0)


def half_width(influence: np.ndarray, freedom: float, confidence: float) -> float:
    """Half the width of Student's interval, of what each group adds to a figure's error."""
    n = len(influence)
    return float(student(freedom, confidence) * np.sqrt(n / (n - 1) * (influence**2).sum()))


def skewed_bounds(
    residual: Float[np.ndarray, "group columns"],
    apart: Float[np.ndarray, "group columns"],
    n_groups: np.ndarray,
    n_effective: np.ndarray,
    confidence: float,
) -> tuple[np.ndarray, np.ndarray]:
    """How far below and above the value the interval reaches; NaN below :data:`FEW` groups.

    Args:
        residual: y - value * x over the mean of x; its mean is 0.
        apart: x over its mean, minus 1; 0 for a plain mean.
        n_groups: groups of each column.
        n_effective: as many groups of equal size.
        confidence: nominal coverage.
    """
    n = np.maximum(n_groups, 3).astype(np.float64)
    t = student(np.minimum(n_effective, n) - 1, confidence)
    square, further = residual * residual, apart * apart
    products = (
        (square, residual * apart, further),
        (square * residual, square * apart, residual * further, further * apart),
    )
    (ee, ex, xx), (eee, eex, exx, xxx) = ([part.sum(0) / n for part in parts] for parts in products)

    sign = np.array([[-1.0], [1.0]])  # of the lower and the upper bound
    factor = np.sqrt(n * (n - 1)) / (n - 2) * (1 + 6 / n)

    def reach(moved: Float[np.ndarray, "bound columns"]) -> Float[np.ndarray, "bound columns"]:
        """The bounds, from the spread and skewness of d at ratios that are ``moved`` from the value."""
        square = ee - 2 * moved * ex + moved**2 * xx
        cube = eee - 3 * moved * eex + 3 * moved**2 * exx - moved**3 * xxx
        bend = np.nan_to_num(factor * cube / square**1.5) / (3 * np.sqrt(n))
        turned = -sign * t - bend / 2
        hall = np.where(np.abs(bend) < 1e-9, turned, (np.cbrt(1 + 3 * bend * turned) - 1) / bend)
        return sign * np.sqrt(square / (n - 1)) * np.maximum(t, -sign * hall)

    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        bounds = reach(np.zeros((2, *ee.shape)))
        if xx.any():
            bounds = sign * _first_rejected(lambda distance: np.abs(reach(sign * distance)), np.abs(bounds))
        # Fieller's set is no interval where the mean of x itself may be 0.
        none = (n_groups < FEW) | (t * np.sqrt(xx / (n - 1)) >= 1) | np.isnan(bounds).any(0)
    low, high = np.where(none, np.nan, bounds)
    return low, high


def _first_rejected(
    half_width: Callable[[Float[np.ndarray, "bound columns"]], Float[np.ndarray, "bound columns"]],
    at_value: Float[np.ndarray, "bound columns"],
) -> Float[np.ndarray, "bound columns"]:
    """The smallest distance from the value that is no smaller than the half-width there; NaN where there is none.

    A fixed point of the half-width may repel, so that it is not iterated: the distance is bracketed from the value
    outwards, then halved.

    Args:
        half_width: of the interval, by distance.
        at_value: the half-width at distance 0.
    """
    steps = [*np.arange(_FINE, 3.0, _FINE), *np.geomspace(3.0, _FAR, 14)]
    inside, outside = np.zeros_like(at_value), np.where(at_value > 0, np.nan, 0.0)
    for step in steps:
        distance = step * at_value
        is_open = np.isnan(outside)
        rejected = distance >= half_width(distance)
        outside = np.where(is_open & rejected, distance, outside)
        inside = np.where(is_open & ~rejected, distance, inside)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        rejected = middle >= half_width(middle)
        inside, outside = np.where(rejected, inside, middle), np.where(rejected, middle, outside)
    return outside
