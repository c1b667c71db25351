"""One cell of the separability table: out-of-fold scores of one matrix of states, or of texts, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse.linalg import eigsh

from safekey_interp.measures.auroc import (
    auroc_columns,
    fisher_ratio,
    negatives_needed,
    standardise_within_folds,
    tpr_at_fpr,
)
from safekey_interp.measures.auroc_intervals import Ranked, auroc_interval, rank, tpr_interval
from safekey_interp.measures.calibration import ECE_BINS, expected_calibration_error, squared_errors
from safekey_interp.measures.estimators import LDA, LOGISTIC, MASS_MEAN, Estimator, FoldScores, SpaceOf
from safekey_interp.measures.folds import Plan
from safekey_interp.measures.intervals import percentiles, share_interval
from safekey_interp.measures.linear_probes import fit_scaling

DIFFERENCE = "diff_of_means"
"""The method beside every estimator."""


class Scored(NamedTuple):
    """Out-of-fold scores of one method, standardised within each fold; NaN when the rows cannot be split."""

    scores: Float[np.ndarray, " n"]
    """Scores that AUROC and TPR are about."""
    axis: Float[np.ndarray, " n"]
    """Scores that the Fisher ratio is about."""
    observed: float
    """AUROC, under the true labels, of the estimator that the null is about."""
    null: Float[np.ndarray, " n_permutations"]
    """Its AUROC under each shuffle of the labels."""
    probabilities: Float[np.ndarray, " n"]
    """Of the positive class, out of fold; NaN from an estimator that gives none."""


class Cell(NamedTuple):
    """One row of the table, with what layers of a position share."""

    row: dict[str, Any]
    """Columns by name."""
    scored: Scored
    plan: Plan
    ranked: Ranked
    """Its AUROC with what each group adds to the error."""
    drawn: Plan
    """Whose shuffles its null is of: those of cells with the same one are joint draws."""


def measure_states(
    matrix: np.ndarray, plan: Plan, place: dict[str, Any], estimator: Estimator = LOGISTIC
) -> tuple[list[Cell], dict[str, Any]]:
    """Table rows of one matrix, a method each, and its columns of coordinates."""
    scored = score_states(matrix, plan, estimator)
    standardised = fit_scaling(matrix).apply(matrix)
    compact = silhouette(standardised, plan.positive)
    cells = []
    for method, of_method in scored.items():
        fitted_by = MASS_MEAN if method == DIFFERENCE else estimator
        about = {"method": method, "estimator": fitted_by.name, "silhouette": compact}
        cells.append(describe(place | about, of_method, plan))
    first, second = principal_components(standardised).T
    axis = scored[estimator.name].axis
    if estimator not in (LOGISTIC, LDA):
        axis = score(LDA, matrix, replace(plan, shuffled=plan.shuffled[:, :0])).axis
    return cells, place | {"lda": axis, "pc1": first, "pc2": second}


def score_states(
    matrix: Float[np.ndarray, "n d_model"], plan: Plan, estimator: Estimator = LOGISTIC
) -> dict[str, Scored]:
    """By method, the estimator's scores of the plan's rows, and those of the difference of class means."""
    return {estimator.name: score(estimator, matrix, plan), DIFFERENCE: score(MASS_MEAN, matrix, plan)}


def score(estimator: Estimator, matrix: Float[np.ndarray, "n d_model"], plan: Plan) -> Scored:
    """Scores of states by one estimator; NaN where the rows cannot be split."""
    if plan.n_folds == 0:
        return _undefined(plan)
    return scored_by_fold(out_of_fold(states_space(estimator, matrix), plan, estimator), plan)


def score_texts(texts: Sequence[str], plan: Plan, estimator: Estimator = LOGISTIC) -> Scored:
    """Scores of texts by one estimator, on the words of the plan's rows."""
    if plan.n_folds == 0:
        return _undefined(plan)
    return scored_by_fold(out_of_fold(estimator.words(texts), plan, estimator), plan)


def states_space(estimator: Estimator, matrix: Float[np.ndarray, "n d_model"]) -> SpaceOf:
    """States of training and test rows, scaled by the training rows alone."""
    wide = np.asarray(matrix, dtype=np.float64)
    return lambda train, test: estimator.states(wide[train], wide[test])


def out_of_fold(
    space_of: SpaceOf, plan: Plan, estimator: Estimator, fitted_on: Bool[np.ndarray, " n"] | None = None
) -> FoldScores:
    """Scores of every row by probes that never saw its fold.

    Args:
        space_of: training and test rows, by masks, in the coordinates that probes are fitted in.
        plan: the folds and labels.
        estimator: what is fitted.
        fitted_on: rows that probes may be fitted on; all when None. The others are scored all the same.
    """
    labellings = labellings_of(plan)
    n, width = labellings.shape
    out = FoldScores(np.full(n, np.nan), np.full((n, width), np.nan), np.full(n, np.nan))
    for number in range(plan.n_folds):
        test = plan.fold == number
        train = ~test if fitted_on is None else ~test & fitted_on
        for whole, part in zip(out, estimator.scores(space_of(train, test), labellings[train]), strict=True):
            whole[test] = part
    return out


def scored_by_fold(raw: FoldScores, plan: Plan) -> Scored:
    """Raw scores of the plan's rows, standardised within each fold, with the AUROC that their null is about."""
    both = standardise_within_folds(np.column_stack([raw.scores, raw.columns]), plan.fold)
    auroc = auroc_columns(both[:, 1:], labellings_of(plan), plan.fold)
    return Scored(both[:, 0], both[:, 1], float(auroc[0]), auroc[1:], raw.probabilities)


def figures(scored: Scored, ranked: Ranked, plan: Plan) -> dict[str, float | str]:
    """One table row: AUROC and TPR with intervals, Fisher ratio, null and p-value; NaN where undefined."""
    tpr, problem = _tpr(scored, plan, 0.01, ("tpr_at_1fpr", "tpr_low", "tpr_high"))
    out: dict[str, float | str] = {"fisher_ratio": fisher_ratio(scored.axis, plan.positive)}
    return out | auroc_figures(scored, ranked) | tpr | {"note": "; ".join([*plan.notes, *problem])}


def further_figures(scored: Scored, plan: Plan, estimator: str) -> dict[str, float | str]:
    """TPR at 5 % FPR and calibration, with intervals; ``undefined`` says why one is NaN."""
    out, reasons = _tpr(scored, plan, 0.05, ("tpr_at_5fpr", "tpr_at_5fpr_low", "tpr_at_5fpr_high"))
    brier, bounds = np.nan, (np.nan, np.nan)
    if np.isfinite(scored.probabilities).all():
        errors = squared_errors(scored.probabilities, plan.positive)
        brier, bounds = float(errors.mean()), share_interval(errors, plan.codes)
    elif plan.n_folds:
        reasons.append(f"{estimator} gives scores and no probabilities")
    out |= {"brier": brier, "brier_low": bounds[0], "brier_high": bounds[1]}
    out |= {"ece": expected_calibration_error(scored.probabilities, plan.positive), "ece_bins": ECE_BINS}
    return out | {"undefined": "; ".join(reasons)}


def _tpr(
    scored: Scored, plan: Plan, max_fpr: float, names: tuple[str, str, str]
) -> tuple[dict[str, float | str], list[str]]:
    """TPR at a false positive rate with its bounds, and why it is NaN where rows could be split."""
    value = tpr_at_fpr(scored.scores, plan.positive, max_fpr) if plan.n_folds else np.nan
    bounds, problem = (np.nan, np.nan), []
    if np.isfinite(value):
        bounds = tpr_interval(scored.scores, plan.positive, plan.codes, max_fpr=max_fpr)
    elif plan.n_folds:
        needed, got = negatives_needed(max_fpr), int((~plan.positive).sum())
        problem.append(f"TPR at {100 * max_fpr:g} % FPR needs {needed} negative rows, got {got}")
    return dict(zip(names, (value, *bounds), strict=True)), problem


def auroc_figures(scored: Scored, ranked: Ranked) -> dict[str, float]:
    """AUROC with its interval, its null and p-value; NaN where undefined."""
    interval = auroc_interval(ranked)
    auroc = {"auroc": ranked.value, "auroc_low": interval.low, "auroc_high": interval.high}
    low, high = percentiles(scored.null) if len(scored.null) else (np.nan, np.nan)
    mean = float(scored.null.mean()) if len(scored.null) else np.nan
    null = {"null_auroc_mean": mean, "null_auroc_low": float(low), "null_auroc_high": float(high)}
    return auroc | null | {"p_value": p_value(scored.observed, scored.null)}


def describe(place: dict[str, Any], scored: Scored, plan: Plan) -> Cell:
    """The table row of one method in one place."""
    n_positive = int(plan.positive.sum())
    counts = {"n": len(plan.rows), "n_harmful": n_positive, "n_benign": len(plan.rows) - n_positive}
    design = {"n_groups": plan.n_groups, "n_folds": plan.n_folds}
    ranked = ranked_of(scored, plan)
    further = further_figures(scored, plan, place["estimator"])
    return Cell(place | figures(scored, ranked, plan) | counts | design | further, scored, plan, ranked, plan)


def ranked_of(scored: Scored, plan: Plan) -> Ranked:
    """AUROC of out-of-fold scores, and what each group adds to its error; NaN where nothing could be split."""
    if plan.n_folds == 0:
        return Ranked(float("nan"), np.full(plan.n_groups, np.nan), 0)
    return rank(scored.scores, plan.positive, plan.fold, plan.codes)


def p_value(observed: float, null: Float[np.ndarray, " n_permutations"]) -> float:
    """(1 + #null >= observed) / (1 + #null), one-sided; NaN without a null (Phipson & Smyth 2010)."""
    if len(null) == 0 or np.isnan(observed):
        return float("nan")
    return float((1 + np.sum(null >= observed - 1e-12)) / (1 + len(null)))


def labellings_of(plan: Plan) -> Bool[np.ndarray, "n columns"]:
    """True labels, then the shuffled ones, a column each."""
    return np.concatenate([plan.positive[:, None], plan.shuffled], axis=1)


def _undefined(plan: Plan) -> Scored:
    nothing = np.full(len(plan.rows), np.nan)
    return Scored(nothing, nothing, float("nan"), np.zeros(0), nothing)


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
