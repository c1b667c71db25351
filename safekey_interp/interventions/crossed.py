"""Interval of a mean over pairs of a trace and a donor, whose errors are shared by trace and by donor.

One donor stands in several traces' places, and what is peculiar to it moves them all; an interval over traces alone
takes that for an effect. With s_ij the pair's share of the mean's error, its variance is clustered both ways (Cameron,
Gelbach & Miller 2011, "Robust inference with multiway clustering"):

    V = Σ_g (Σ_{i in g} s_ij)² + Σ_h (Σ_{j in h} s_ij)² − Σ_{g, h} (Σ_{i in g, j in h} s_ij)²

over groups g of traces and h of donors, each sum times G / (G − 1), and never less than either of the first two. The
interval is Student's, with one degree of freedom less than the fewer of the two kinds of groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t

from safekey_interp.stats import FEW


class Bounds(NamedTuple):
    """An interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


def crossed_interval(
    value: float, errors: Float[np.ndarray, " pair"], groups: pd.Series, donors: pd.Series, *, confidence: float = 0.95
) -> Bounds:
    """The interval of a mean over pairs.

    Args:
        value: the mean, Σ weight · number.
        errors: weight · (number − its expectation), of each pair; they add up to 0.
        groups: the group of each pair's trace.
        donors: the group of each pair's donor.
        confidence: of the interval.

    Returns:
        NaN with fewer than five groups of either kind.
    """
    first, second = (pd.factorize(names.astype(str))[0] for names in (groups, donors))
    n = min(len(set(first)), len(set(second)))
    if n < FEW:
        return Bounds(np.nan, np.nan)
    both = first.astype(np.int64) * (second.max() + 1) + second
    one, other, cell = (_variance(errors, codes) for codes in (first, second, both))
    spread = float(np.sqrt(max(one + other - cell, one, other)) * t.ppf((1 + confidence) / 2, n - 1))
    return Bounds(value - spread, value + spread)


def _variance(errors: np.ndarray, codes: np.ndarray) -> float:
    _, codes = np.unique(codes, return_inverse=True)
    sums = np.bincount(codes, weights=errors)
    n = len(sums)
    return float((sums**2).sum() * n / max(n - 1, 1))
