"""Step-down max-T p-values: many places tested at once against draws of a control.

Of place j the tested value x₀ⱼ and the draws x₁ⱼ … x_Bⱼ are put on one scale, tᵢⱼ = |xᵢⱼ − x̄ⱼ| / sⱼ, with the mean and
the standard deviation of all B + 1. With the places in the order t₀₁ ≥ t₀₂ ≥ …

    p₍ₖ₎ = max over j ≤ k of (1 + #{draws i: max over l ≥ j of tᵢₗ ≥ t₀ⱼ}) / (1 + B)

Each place is thus held against the largest of those that are not above it, in each draw (Westfall & Young 1993,
Algorithm 2.8, with p as Phipson & Smyth 2010; Romano & Wolf 2005, J. Am. Stat. Assoc. 100:94). The smallest p is
1 / (1 + B) whatever the number of places, where Bonferroni's is that number as large. Where value and draws are
exchangeable, all places at once, at least one false p ≤ α has a probability of at most α.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

LEVEL = 0.05
"""p at most, for an effect beyond the draws of its control."""
_TIES = 1 - 1e-9
"""Values that differ by rounding alone are equal."""


def step_down_p_values(
    observed: Float[np.ndarray, " place"], draws: Float[np.ndarray, "draw place"]
) -> Float[np.ndarray, " place"]:
    """p of each place, corrected for all of them, two-sided.

    Args:
        observed: the tested values; NaN where there is none.
        draws: the same of each draw; NaN where a place has no such draw.

    Returns:
        p in (0, 1], from the draws that all places with a value and a draw have; NaN at the others, and everywhere
        where no draw is common to all.
    """
    found = np.full(observed.shape, np.nan)
    there = np.flatnonzero(~np.isnan(observed) & ~np.isnan(draws).all(axis=0))
    common = draws[:, there]
    common = common[~np.isnan(common).any(axis=1)]
    if not common.size:
        return found
    away = standardised(np.vstack([observed[there], common]))
    found[there] = step_down_upper(away[0], away[1:], ties=away[0] * (1 - _TIES))
    return found


def standardised(values: Float[np.ndarray, "draw place"]) -> Float[np.ndarray, "draw place"]:
    """t of the tested values (first row) and the draws: distance from the mean of all, over their standard deviation.

    Returns:
        0 or more; 0 where all values of a place are the same.
    """
    away = np.abs(values - values.mean(axis=0))
    spread = values.std(axis=0)
    return np.divide(away, spread, out=np.zeros_like(away), where=spread > 0)


def step_down_upper(
    observed: Float[np.ndarray, " place"],
    draws: Float[np.ndarray, "draw place"],
    ties: Float[np.ndarray, " place"] | float = 1e-12,
) -> Float[np.ndarray, " place"]:
    """p of each place, corrected for all of them, one-sided, of numbers that are on one scale as they are.

    Args:
        observed: the tested values.
        draws: the same of each draw, at least one; a draw is of all places at once.
        ties: how much smaller a draw still counts as equal.

    Returns:
        p in (0, 1].
    """
    order = np.argsort(-observed, kind="stable")
    # Column k: the largest of the k-th place and of those below it, in each draw.
    largest = np.maximum.accumulate(draws[:, order][:, ::-1], axis=1)[:, ::-1]
    p = (1 + (largest >= (observed - ties)[order]).sum(axis=0)) / (1 + len(draws))
    found = np.empty(observed.shape)
    found[order] = np.maximum.accumulate(p)
    return found


def least_draws(level: float = LEVEL) -> int:
    """How many draws it takes until p can be as small as ``level``: 19 for 0.05."""
    return math.ceil(1 / level - 1e-9) - 1
