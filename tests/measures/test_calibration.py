"""Laws of calibration and of TPR at a false positive rate, against scikit-learn's and counts by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_curve

from safekey_interp.measures.auroc import tpr_at_fpr
from safekey_interp.measures.calibration import expected_calibration_error, squared_errors

ROWS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(ROWS)
def test_the_brier_score_is_scikit_learns(rows):
    p, y = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    assert squared_errors(p, y).mean() == pytest.approx(brier_score_loss(y, p, pos_label=True), abs=1e-12)


@given(ROWS)
def test_the_calibration_error_is_a_sum_over_bins_by_hand(rows):
    total = 0.0
    for low in range(10):
        inside = [(p, y) for p, y in rows if low <= p * 10 < low + 1 or (low == 9 and p == 1)]
        if inside:
            gap = sum(y for _, y in inside) / len(inside) - sum(p for p, _ in inside) / len(inside)
            total += len(inside) / len(rows) * abs(gap)
    p, y = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    assert expected_calibration_error(p, y) == pytest.approx(total, abs=1e-12)
    assert 0 <= expected_calibration_error(p, y) <= 1


def test_the_calibration_error_of_what_is_known():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    assert expected_calibration_error(p, y) < 0.01, "probabilities that are right"
    assert expected_calibration_error(p**3, y) > 0.15
    assert expected_calibration_error(y.astype(float), y) == 0
    assert expected_calibration_error(1 - y.astype(float), y) == 1
    assert np.isnan(expected_calibration_error(np.array([]), np.array([], bool)))
    assert np.isnan(expected_calibration_error(np.array([np.nan]), np.array([True])))


@given(st.integers(0, 9), st.sampled_from([0.01, 0.05]), st.booleans())
def test_tpr_is_the_highest_on_the_curve_within_the_rate(seed, rate, ties):
    rng = np.random.default_rng(seed)
    positive = rng.random(400) < 0.6
    scores = rng.normal(size=400) + positive
    scores = np.round(scores, 1) if ties else scores
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert tpr_at_fpr(scores, positive, rate) == pytest.approx(tpr[fpr <= rate + 1e-12].max())


def test_tpr_at_five_percent_by_hand():
    no, yes = np.arange(20.0), np.array([17.5, 18.0, 18.5, 19.0, 30.0])
    scores, positive = np.append(no, yes), np.append(np.zeros(20, bool), np.ones(5, bool))
    # One negative of 20 may pass: 19. The threshold lies above 18.
    assert tpr_at_fpr(scores, positive, 0.05) == 3 / 5
    assert np.isnan(tpr_at_fpr(scores[1:], positive[1:], 0.05)), "19 negatives cannot measure one in twenty"
    assert np.isnan(tpr_at_fpr(scores, positive, 0.01))
