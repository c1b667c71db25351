"""AUROC of out-of-fold scores, over pairs of rows of the same fold.

AUROC here is the chance that a positive row scores above a negative row *of the same fold* (ties count half), over
all such pairs: Σ_fold #concordant / Σ_fold #pairs. With stratified folds that is the mean of the folds' AUROCs. Scores
of different folds come from different probes with intercepts of their own, and pooling them biases AUROC, below 0.5 for
shuffled labels (Parker, Günter & Bedo 2007, *Stratification bias in low signal microarray studies*, BMC Bioinformatics
8:326; Forman & Scholz 2010, *Apples-to-apples in cross-validation studies*, SIGKDD Explorations 12(1)); comparing
within folds is the stratified AUROC of Janes & Pepe 2009, Biometrika 96(2).

TPR at 1 % FPR needs one threshold for all folds (a fold alone has too few negatives), so scores are first
standardised within each fold, without labels: it is the share of positive rows above the lowest threshold at which at
most 1 % of the negative rows lie at or above it. Below 100 negative rows a single one is more than 1 %, the threshold
would be the highest negative score whatever their number, and its expected FPR, 1 / (n + 1), above 1 %: NaN. TPR at 5 %
FPR likewise, from 20 negative rows on.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

_TIE_DECIMALS = 9  # of standardised scores: identical states must tie, whatever order a matrix product adds in


def standardise_within_folds(
    scores: Float[np.ndarray, "n columns"], fold: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n columns"]:
    """Scores with mean 0 and standard deviation 1 within each fold, labels unseen; constant scores become 0."""
    out = np.zeros_like(scores, dtype=np.float64)
    for number in np.unique(fold):
        rows = fold == number
        centred = scores[rows] - scores[rows].mean(0)
        spread = centred.std(0)
        out[rows] = np.round(centred / np.where(spread > 0, spread, 1.0), _TIE_DECIMALS) + 0.0
    return out


def auroc_columns(
    scores: Float[np.ndarray, "n columns"], positive: Bool[np.ndarray, "n columns"], fold: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " columns"]:
    """AUROC over pairs of the same fold, for columns of scores, each with its own labels; NaN without a pair."""
    wins, pairs = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        order = np.argsort(scores[rows], axis=0, kind="stable")
        ranked = np.take_along_axis(scores[rows], order, axis=0)
        truth = np.take_along_axis(positive[rows], order, axis=0)
        n_positive = truth.sum(0)
        wins += (_midranks(ranked) * truth).sum(0) - n_positive * (n_positive + 1) / 2
        pairs += n_positive * (len(rows) - n_positive)
    with np.errstate(invalid="ignore", divide="ignore"):
        return wins / pairs


def placements(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], fold: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Of each row, the pairs that it is ranked rightly in (ties half), and the pairs that it is in.

    A pair is a positive and a negative row of the same fold.
    """
    wins, pairs = np.zeros(len(scores)), np.zeros(len(scores))
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        yes, no = rows[positive[rows]], rows[~positive[rows]]
        for own, others, sign in ((yes, np.sort(scores[no]), 1), (no, np.sort(scores[yes]), -1)):
            below, upto = (np.searchsorted(others, scores[own], side=side) for side in ("left", "right"))
            ranked = (below + upto) / 2
            wins[own] = ranked if sign == 1 else len(others) - ranked
            pairs[own] = len(others)
    return wins, pairs


def negatives_needed(max_fpr: float) -> int:
    """Negative rows below which a false positive rate cannot be measured, so that TPR at it is NaN."""
    return round(1 / max_fpr)


def tpr_at_fpr(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], max_fpr: float = 0.01) -> float:
    """TPR at an FPR of at most ``max_fpr``, of pooled scores; NaN with too few negatives, or no positive."""
    yes, no = scores[positive], np.sort(scores[~positive])[::-1]
    if len(no) < negatives_needed(max_fpr) or not len(yes):
        return float("nan")
    # At most this many negatives may lie at or above the threshold, so it lies above the next one.
    next_one = no[int(max_fpr * len(no) + 1e-9)]
    return float((yes > next_one).mean())


def fisher_ratio(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """(μ₁ − μ₀)² / (σ₁² + σ₀²) of scores (Fisher 1936); NaN when a class has one row or nothing varies."""
    yes, no = scores[positive], scores[~positive]
    if min(len(yes), len(no)) < 2:
        return float("nan")
    within = yes.var(ddof=1) + no.var(ddof=1)
    return float((yes.mean() - no.mean()) ** 2 / within) if within > 0 else float("nan")


def _midranks(ranked: np.ndarray) -> np.ndarray:
    """Ranks from 1 of columns sorted ascending; tied rows share the middle of theirs."""
    index = np.arange(len(ranked))[:, None]
    new = np.ones(ranked.shape, bool)
    new[1:] = ranked[1:] != ranked[:-1]
    last = np.ones(ranked.shape, bool)
    last[:-1] = new[1:]
    first = np.maximum.accumulate(np.where(new, index, 0), axis=0)
    end = np.minimum.accumulate(np.where(last, index, len(ranked))[::-1], axis=0)[::-1]
    return (first + end) / 2 + 1
