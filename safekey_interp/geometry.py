"""How labelled states lie in space before anything is fitted to the labels: silhouette and principal components."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse.linalg import eigsh


def silhouette(rows: Float[np.ndarray, "n d"], positive: Bool[np.ndarray, " n"]) -> float:
    """Mean silhouette of two classes (Rousseeuw 1987), Euclidean distance, in [-1, 1].

    A row's silhouette is (b − a) / max(a, b): a is its mean distance to its own class, b to the other. NaN when a
    class has fewer than two rows, or when all rows are the same.
    """
    n_own = np.where(positive, positive.sum(), (~positive).sum())
    if n_own.min() < 2 or n_own.max() == len(rows):
        return float("nan")
    squares = np.square(rows).sum(1)
    distance = rows @ rows.T  # the largest array here: everything below happens in place
    distance *= -2
    distance += squares
    distance += squares[:, None]
    np.sqrt(np.maximum(distance, 0.0, out=distance), out=distance)
    np.fill_diagonal(distance, 0.0)
    to_positive, to_negative = distance @ positive, distance @ ~positive
    own = np.where(positive, to_positive, to_negative) / (n_own - 1)
    other = np.where(positive, to_negative, to_positive) / (len(rows) - n_own)
    larger = np.maximum(own, other)
    if not larger.any():
        return float("nan")
    return float(np.mean(np.divide(other - own, larger, out=np.zeros_like(larger), where=larger > 0)))


def principal_components(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Scores of centred rows on their first two principal components; the sign makes the largest score positive.

    NaN when all rows are the same, or when there are fewer than three rows or features.
    """
    n, d = rows.shape
    spread = float(np.square(rows).sum())
    if min(n, d) < 3 or spread <= 0:
        return np.full((n, 2), np.nan)
    small = (rows @ rows.T if n <= d else rows.T @ rows) / spread
    # A start that is fixed, and orthogonal to no component by symmetry, makes the result repeat to the bit.
    values, vectors = eigsh(small, k=2, which="LA", v0=np.random.default_rng(0).standard_normal(len(small)))
    values, vectors = values[::-1], vectors[:, ::-1]
    scores = vectors * np.sqrt(np.maximum(values * spread, 0.0)) if n <= d else rows @ vectors
    largest = scores[np.abs(scores).argmax(0), np.arange(2)]
    return scores * np.where(largest < 0, -1.0, 1.0)
