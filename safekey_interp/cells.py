"""One cell of the separability table: out-of-fold scores of one matrix of states, or of texts, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from safekey_interp.estimators import (
    FoldSpace,
    fit_logistic,
    fit_scaling,
    mean_difference_scores,
    ridge_scores,
    row_space,
)
from safekey_interp.folds import Plan
from safekey_interp.geometry import principal_components, silhouette
from safekey_interp.ranking import (
    MIN_NEGATIVES_FOR_TPR,
    auroc_columns,
    auroc_draws,
    fisher_ratio,
    standardise_within_folds,
    tpr_draws,
)
from safekey_interp.stats import percentile_interval
from safekey_interp.text_baseline import count_words, text_space


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


class Cell(NamedTuple):
    """One row of the table, with what layers of a position share."""

    row: dict[str, Any]
    """Columns by name."""
    scored: Scored
    plan: Plan


def measure_states(matrix: np.ndarray, plan: Plan, place: dict[str, Any]) -> tuple[list[Cell], dict[str, Any]]:
    """Table rows of one matrix, a method each, and its columns of coordinates."""
    scored = score_states(matrix, plan)
    standardised = fit_scaling(matrix).apply(matrix)
    compact = silhouette(standardised, plan.positive)
    cells = [describe(place | {"method": method, "silhouette": compact}, one, plan) for method, one in scored.items()]
    first, second = principal_components(standardised).T
    return cells, place | {"lda": scored["logistic"].axis, "pc1": first, "pc2": second}


def score_states(matrix: Float[np.ndarray, "n d_model"], plan: Plan) -> dict[str, Scored]:
    """Methods ``logistic`` (its axis: LDA, its null: the ridge classifier) and ``diff_of_means`` on the plan's rows."""
    if plan.n_folds == 0:
        return {method: _undefined(plan) for method in ("logistic", "diff_of_means")}
    wide = np.asarray(matrix, dtype=np.float64)
    logistic, ridge, difference = _blank(plan, 1), _blank(plan), _blank(plan)
    labellings = _labellings(plan)
    for number in range(plan.n_folds):
        test = plan.fold == number
        train_rows, test_rows, known = wide[~test], wide[test], labellings[~test]
        scaling = fit_scaling(train_rows)
        space = row_space(scaling.apply(train_rows), scaling.apply(test_rows))
        logistic[test, 0] = _logistic(space, known[:, 0])
        ridge[test] = ridge_scores(space, known)
        centre = train_rows.mean(0)
        difference[test] = mean_difference_scores(train_rows - centre, test_rows - centre, known)
    logistic, ridge, difference = (
        standardise_within_folds(scores, plan.fold) for scores in (logistic, ridge, difference)
    )
    return {
        "logistic": _scored(logistic[:, 0], ridge, labellings, plan),
        "diff_of_means": _scored(difference[:, 0], difference, labellings, plan),
    }


def score_texts(texts: Sequence[str], plan: Plan) -> Scored:
    """Logistic probe on the words of the plan's rows (its axis and null: the ridge classifier)."""
    if plan.n_folds == 0:
        return _undefined(plan)
    logistic, ridge = _blank(plan, 1), _blank(plan)
    labellings, counts = _labellings(plan), count_words(texts)
    for number in range(plan.n_folds):
        test = plan.fold == number
        space = text_space(counts, test)
        logistic[test, 0] = _logistic(space, labellings[~test, 0])
        ridge[test] = ridge_scores(space, labellings[~test])
    logistic, ridge = (standardise_within_folds(scores, plan.fold) for scores in (logistic, ridge))
    return _scored(logistic[:, 0], ridge, labellings, plan)


def figures(scored: Scored, plan: Plan) -> dict[str, float | str]:
    """One table row: AUROC and TPR with intervals, Fisher ratio, null and p-value; NaN where undefined."""
    everyone = np.ones((1, len(plan.rows)), np.float32)
    counts = np.concatenate([everyone, plan.weights])
    auroc = auroc_draws(scored.scores, plan.positive, plan.fold, counts)
    tpr = tpr_draws(scored.scores, plan.positive, counts)
    notes = [*plan.notes]
    if plan.n_folds == 0:
        auroc, tpr = np.full_like(auroc, np.nan), np.full_like(tpr, np.nan)
    elif np.isnan(tpr[0]):
        notes.append(f"TPR at 1 % FPR needs {MIN_NEGATIVES_FOR_TPR} negative rows, got {int((~plan.positive).sum())}")
    out: dict[str, float | str] = {"fisher_ratio": fisher_ratio(scored.axis, plan.positive)}
    for name, short, draws in (("auroc", "auroc", auroc), ("tpr_at_1fpr", "tpr", tpr)):
        low, high = percentile_interval(draws[1:]) if len(draws) > 1 else (np.nan, np.nan)
        out |= {name: float(draws[0]), f"{short}_low": float(low), f"{short}_high": float(high)}
    low, high = percentile_interval(scored.null) if len(scored.null) else (np.nan, np.nan)
    mean = float(scored.null.mean()) if len(scored.null) else np.nan
    out |= {"null_auroc_mean": mean, "null_auroc_low": float(low), "null_auroc_high": float(high)}
    return out | {"p_value": p_value(scored.observed, scored.null), "note": "; ".join(notes)}


def describe(place: dict[str, Any], scored: Scored, plan: Plan) -> Cell:
    """The table row of one method in one place."""
    n_positive = int(plan.positive.sum())
    counts = {"n": len(plan.rows), "n_harmful": n_positive, "n_benign": len(plan.rows) - n_positive}
    design = {"n_groups": plan.n_groups, "n_folds": plan.n_folds}
    return Cell(place | figures(scored, plan) | counts | design, scored, plan)


def best_of_layers(cells: list[Cell]) -> list[dict[str, Any]]:
    """Rows with the p-value of the maximum over the layers that share a method and a split, and so their shuffles."""
    out = []
    for cell in cells:
        family = [
            other.scored.null
            for other in cells
            if other.plan is cell.plan and other.row["method"] == cell.row["method"]
        ]
        out.append(cell.row | {"p_value_over_layers": p_value(cell.scored.observed, np.max(family, axis=0))})
    return out


def p_value(observed: float, null: Float[np.ndarray, " n_permutations"]) -> float:
    """(1 + #null >= observed) / (1 + #null), one-sided; NaN without a null (Phipson & Smyth 2010)."""
    if len(null) == 0 or np.isnan(observed):
        return float("nan")
    return float((1 + np.sum(null >= observed - 1e-12)) / (1 + len(null)))


def _labellings(plan: Plan) -> Bool[np.ndarray, "n columns"]:
    """True labels, then the shuffled ones, a column each."""
    return np.concatenate([plan.positive[:, None], plan.shuffled], axis=1)


def _blank(plan: Plan, columns: int | None = None) -> np.ndarray:
    return np.full((len(plan.rows), columns or 1 + plan.shuffled.shape[1]), np.nan)


def _undefined(plan: Plan) -> Scored:
    nothing = np.full(len(plan.rows), np.nan)
    return Scored(nothing, nothing, float("nan"), np.zeros(0))


def _logistic(space: FoldSpace, positive: np.ndarray) -> np.ndarray:
    return space.test @ fit_logistic(space.train, positive, space.mean_square)[0]


def _scored(scores: np.ndarray, columns: np.ndarray, labellings: np.ndarray, plan: Plan) -> Scored:
    auroc = auroc_columns(columns, labellings, plan.fold)
    return Scored(scores, columns[:, 0], float(auroc[0]), auroc[1:])
