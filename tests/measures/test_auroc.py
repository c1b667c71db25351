"""Laws of AUROC within folds, TPR at 1 % FPR and Fisher ratio: scikit-learn's or a hand's numbers, else NaN."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from safekey_interp.measures.auroc import (
    auroc_columns,
    fisher_ratio,
    placements,
    standardise_within_folds,
    tpr_at_fpr,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(1, 3))
def test_auroc_is_scikit_learns_averaged_over_pairs_of_folds(seed, n, n_folds):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, n).astype(float)  # ties
    positive, fold = rng.random(n) < 0.5, rng.integers(0, n_folds, n)
    wins = pairs = 0.0
    for number in range(n_folds):
        inside = fold == number
        if 0 < positive[inside].sum() < inside.sum():
            here = positive[inside].sum() * (~positive[inside]).sum()
            wins += here * roc_auc_score(positive[inside], scores[inside])
            pairs += here
    columns = auroc_columns(np.stack([scores, -scores], 1), np.stack([positive, positive], 1), fold)
    expected = wins / pairs if pairs else np.nan
    assert np.allclose(columns, [expected, 1 - expected], equal_nan=True)
    won, compared = placements(scores, positive, fold)
    for part in (positive, ~positive):  # every pair is counted once by each side
        assert won[part].sum() == pytest.approx(wins)
        assert compared[part].sum() == pairs


def test_auroc_compares_within_folds_only():
    scores = np.array([1.0, 0.0, 101.0, 100.0])
    positive, fold = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
    assert auroc_columns(scores[:, None], positive[:, None], fold)[0] == 1.0
    assert roc_auc_score(positive, scores) == 0.75, "pooling would punish the folds' different offsets"


def test_tpr_is_the_best_threshold_with_at_most_one_percent_false_alarms():
    rng = np.random.default_rng(0)
    positive = np.arange(450) < 150
    scores = np.round(rng.normal(size=450) + 2 * positive, 1)
    best = 0.0
    for threshold in np.unique(scores):
        above = scores >= threshold
        if (above & ~positive).sum() <= 0.01 * (~positive).sum():
            best = max(best, (above & positive).sum() / positive.sum())
    assert tpr_at_fpr(scores, positive) == pytest.approx(best)


def test_tpr_of_a_perfect_a_constant_and_a_hopeless_score():
    positive = np.arange(200) < 100
    assert tpr_at_fpr(positive.astype(float), positive) == 1.0
    assert tpr_at_fpr(np.zeros(200), positive) == 0.0
    assert tpr_at_fpr(-positive.astype(float), positive) == 0.0


def test_tpr_lets_one_negative_in_a_hundred_pass_and_no_second():
    scores, positive = np.r_[np.arange(100.0), 98.5, 97.5], np.arange(102) >= 100
    assert tpr_at_fpr(scores, positive) == 0.5, "98.5 has one negative above it, 97.5 two"


def test_tpr_is_undefined_where_one_percent_cannot_be_told():
    assert np.isnan(tpr_at_fpr(np.arange(199.0), np.arange(199) < 100))
    assert np.isnan(tpr_at_fpr(np.arange(200.0), np.zeros(200, bool)))


def test_fisher_ratio_by_hand():
    scores, positive = np.array([0.0, 2.0, 5.0, 7.0]), np.array([False, False, True, True])
    assert fisher_ratio(scores, positive) == pytest.approx(25 / 4)
    assert np.isnan(fisher_ratio(scores, np.array([False, False, False, True])))
    assert np.isnan(fisher_ratio(positive.astype(float), positive)), "nothing varies within the classes"


def test_scores_are_standardised_within_folds_and_rounding_makes_no_order():
    fold = np.repeat([0, 1, 2], 10)
    scores = np.random.default_rng(0).normal(size=(30, 2)) * 5 + fold[:, None] * 100
    scores[fold == 2] = 7.7
    out = standardise_within_folds(scores, fold)
    for number in (0, 1):
        assert np.allclose(out[fold == number].mean(0), 0, atol=1e-8)
        assert np.allclose(out[fold == number].std(0), 1)
    assert not out[fold == 2].any()
    scores[1] = scores[0] * (1 + 1e-15)
    assert (standardise_within_folds(scores, fold)[0] == standardise_within_folds(scores, fold)[1]).all()
