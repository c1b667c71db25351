"""Laws of the intervals of AUROC, of a difference, of the best layer, and of TPR at 1 % FPR."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from safekey_interp.measures.auroc_intervals import (
    LEAST,
    Ranked,
    auroc_difference,
    auroc_interval,
    exact,
    rank,
    simultaneous,
    tpr_interval,
)

RNG = np.random.default_rng


def ranked(scores: np.ndarray, positive: np.ndarray, codes: np.ndarray | None = None, n_folds: int = 1) -> Ranked:
    names = np.arange(len(scores)) if codes is None else codes
    return rank(scores, positive, names % n_folds, names)


def binormal(rng: np.random.Generator, auroc: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    positive = np.arange(2 * n) % 2 == 0
    return rng.normal(size=2 * n) + np.sqrt(2) * ndtri(auroc) * positive, positive


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000))
def test_the_value_is_scikit_learns_and_the_error_delongs(seed: int) -> None:
    rng = RNG(seed)
    scores, positive = np.round(binormal(rng, 0.8, 30)[0], 1), np.arange(60) % 2 == 0
    found = ranked(scores, positive)
    assert found.value == pytest.approx(roc_auc_score(positive, scores))
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    yes, no = scores[positive][:, None], scores[~positive][None, :]
    wins = (yes > no) + 0.5 * (yes == no)
    delong = wins.mean(1).var(ddof=1) / 30 + wins.mean(0).var(ddof=1) / 30
    assert found.error == pytest.approx(np.sqrt(delong), rel=0.02)


def test_copies_of_rows_add_nothing_and_turned_scores_mirror() -> None:
    scores, positive = binormal(RNG(0), 0.7, 20)
    alone = auroc_interval(ranked(scores, positive))
    codes = np.arange(40).repeat(3)
    assert auroc_interval(ranked(scores.repeat(3), positive.repeat(3), codes)) == pytest.approx(alone)
    order = RNG(1).permutation(120)
    shuffled = ranked(scores.repeat(3)[order], positive.repeat(3)[order], codes[order])
    assert auroc_interval(shuffled) == pytest.approx(alone)
    turned = auroc_interval(ranked(-scores, positive))
    assert turned == pytest.approx((1 - alone.high, 1 - alone.low))


@pytest.mark.parametrize("n", [LEAST, 12, 100])
def test_a_perfect_auroc_is_as_sure_as_its_groups_allow(n: int) -> None:
    positive = np.arange(2 * n) % 2 == 0
    low, high = auroc_interval(ranked(positive.astype(float), positive))
    assert high == 1
    assert low == pytest.approx(0.025 ** (1 / n)), "what one of n trials would have shown"
    assert np.isnan(auroc_interval(ranked(positive[2:].astype(float), positive[2:]))).all() == (n == LEAST)


@given(st.integers(0, 30), st.integers(1, 30))
def test_exact_is_clopper_and_pearsons(k: int, n: int) -> None:
    if k <= n:
        expected = binomtest(k, n).proportion_ci(method="exact")
        assert exact(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_an_auroc_less_itself_is_nothing_and_shared_prompts_shorten_a_difference() -> None:
    rng = RNG(2)
    scores, positive = binormal(rng, 0.8, 40)
    near = ranked(scores + 0.3 * rng.normal(size=80), positive)
    far = ranked(binormal(rng, 0.8, 40)[0], positive)
    one = ranked(scores, positive)
    low, high = auroc_difference(one, one)
    assert low == pytest.approx(-high)
    assert high - low < 0.5 * np.subtract(*auroc_interval(one)[::-1])
    close, wide = (auroc_difference(one, other) for other in (near, far))
    assert close.high - close.low < wide.high - wide.low
    assert auroc_difference(near, one) == pytest.approx((-close.high, -close.low))
    assert np.isnan(auroc_difference(one, ranked(scores[:6], positive[:6]))).all()


def test_layers_that_are_one_cost_nothing_and_others_at_most_bonferroni() -> None:
    parts = [RNG(i).normal(size=60) for i in range(12)]
    same, apart = simultaneous([parts[0]] * 12, 30, seed=0), simultaneous(parts, 30, seed=0)
    assert same == pytest.approx(0.95, abs=0.01)
    assert 0.99 < apart <= 1 - 0.05 / 12
    assert simultaneous(parts[:1], 30, seed=0) == 0.95


def test_the_best_of_layers_without_a_signal_holds_chance_only_over_layers() -> None:
    held = {"over": 0, "alone": 0}
    rng, positive = RNG(3), np.arange(60) % 2 == 0
    for i in range(150):
        layers = [ranked(rng.normal(size=60), positive) for _ in range(20)]
        best = max(layers, key=lambda one: one.value)
        level = simultaneous([one.influence for one in layers], 30, seed=i)
        held["over"] += auroc_interval(best, level).low <= 0.5
        held["alone"] += auroc_interval(best).low <= 0.5
    assert held["over"] >= 0.93 * 150
    assert held["alone"] < 0.8 * 150


@pytest.mark.parametrize("auroc", [0.6, 0.9, 0.99])
def test_an_auroc_is_covered_as_often_as_said(auroc: float) -> None:
    rng, held = RNG(4), []
    for _ in range(300):
        low, high = auroc_interval(ranked(*binormal(rng, auroc, 20), n_folds=1))
        held.append(low <= auroc <= high)
    assert np.mean(held) >= 0.93


def test_tpr_is_covered_and_says_little_of_few_negatives() -> None:
    truth = float(ndtr(np.sqrt(2) * ndtri(0.9) - ndtri(0.99)))
    rng, held = RNG(5), []
    for _ in range(100):
        scores, positive = binormal(rng, 0.9, 500)
        low, high = tpr_interval(scores, positive, np.arange(1000))
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.93
    assert 0 < low < high < 1
    scores, positive = binormal(rng, 0.9, 100)
    assert tpr_interval(scores, positive, np.arange(200)).low == 0, "the threshold may lie above all of them"
    assert np.isnan(tpr_interval(scores, positive, np.arange(200) % 4)).all()
