"""Laws of AUROC within folds, TPR at 1 % FPR and Fisher ratio: scikit-learn's or a hand's numbers, else NaN."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from safekey_interp.ranking import auroc_columns, auroc_draws, fisher_ratio, standardise_within_folds, tpr_draws


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(1, 3))
def test_auroc_is_scikit_learns_averaged_over_pairs_of_folds(seed, n, n_folds):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, n).astype(float)  # ties
    positive, fold = rng.random(n) < 0.5, rng.integers(0, n_folds, n)
    weights = rng.integers(0, 4, (3, n)).astype(np.float32)
    weights[0] = 1
    for draw, got in zip(weights.astype(float), auroc_draws(scores, positive, fold, weights), strict=True):
        wins = pairs = 0.0
        for number in range(n_folds):
            inside = (fold == number) & (draw > 0)
            if 0 < positive[inside].sum() < inside.sum():
                here = draw[inside & positive].sum() * draw[inside & ~positive].sum()
                wins += here * roc_auc_score(positive[inside], scores[inside], sample_weight=draw[inside])
                pairs += here
        assert got == pytest.approx(wins / pairs, abs=1e-9) if pairs else np.isnan(got)
    columns = auroc_columns(np.stack([scores, -scores], 1), np.stack([positive, positive], 1), fold)
    plain = auroc_draws(scores, positive, fold, weights[:1])
    assert np.allclose(columns, [plain[0], 1 - plain[0]], equal_nan=True)


def test_auroc_compares_within_folds_only():
    scores = np.array([1.0, 0.0, 101.0, 100.0])
    positive, fold = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
    assert auroc_columns(scores[:, None], positive[:, None], fold)[0] == 1.0
    assert roc_auc_score(positive, scores) == 0.75, "pooling would punish the folds' different offsets"


def test_tpr_is_the_best_threshold_with_at_most_one_percent_false_alarms():
    rng = np.random.default_rng(0)
    positive = np.arange(450) < 150
    scores = np.round(rng.normal(size=450) + 2 * positive, 1)
    weights = np.concatenate([np.ones((1, 450)), rng.integers(0, 3, (5, 450))]).astype(np.float32)
    for draw, got in zip(weights, tpr_draws(scores, positive, weights), strict=True):
        best = 0.0
        for threshold in np.unique(scores):
            above = scores >= threshold
            if (draw * (above & ~positive)).sum() <= 0.01 * (draw * ~positive).sum():
                best = max(best, (draw * (above & positive)).sum() / (draw * positive).sum())
        assert got == pytest.approx(best, abs=1e-6)


def test_tpr_of_a_perfect_a_constant_and_a_hopeless_score():
    positive = np.arange(200) < 100
    one = np.ones((1, 200), np.float32)
    assert tpr_draws(positive.astype(float), positive, one)[0] == 1.0
    assert tpr_draws(np.zeros(200), positive, one)[0] == 0.0
    assert tpr_draws(-positive.astype(float), positive, one)[0] == 0.0


def test_tpr_is_undefined_where_one_percent_cannot_be_told():
    positive = np.arange(199) < 100
    assert np.isnan(tpr_draws(np.arange(199.0), positive, np.ones((2, 199), np.float32))).all()
    more = np.arange(200) < 100
    weights = np.stack([np.ones(200), more, ~more]).astype(np.float32)
    assert np.isnan(tpr_draws(np.arange(200.0), more, weights)).tolist() == [False, True, True]


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
