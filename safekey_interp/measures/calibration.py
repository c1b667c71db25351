"""Calibration of probabilities: Brier score and expected calibration error.

    Brier = mean (p − y)²                                    Brier 1950, Monthly Weather Review 78:1
    ECE   = Σ_b n_b / n · |mean y in b − mean p in b|        Naeini et al. 2015, AAAI

of the positive class's probability p and y in {0, 1}, in :data:`ECE_BINS` bins of equal width. Both are of the rows as
they are: they depend on how common the classes are, and predicting that share alone, q, has a Brier score of q (1 − q).
ECE is no less than 0, so of few rows it is positive for probabilities that are right, too.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

ECE_BINS = 10
"""Bins of equal width over [0, 1]: [0, 0.1), …, [0.9, 1]."""


def squared_errors(probabilities: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """(p − y)² of each row, whose mean is the Brier score."""
    return np.square(probabilities - positive)


def expected_calibration_error(
    probabilities: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], n_bins: int = ECE_BINS
) -> float:
    """ECE in [0, 1] over bins of equal width; NaN without rows, or where a probability is NaN."""
    if len(probabilities) == 0 or np.isnan(probabilities).any():
        return float("nan")
    bins = np.minimum((probabilities * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, positive - probabilities, n_bins)
    return float(np.abs(gaps).sum() / len(probabilities))
