"""Laws of the intervals: Wilson's is a proportion, a bootstrap draws whole groups, a ratio of means is that by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from safekey_interp.stats import bootstrap_weights, percentile_interval, ratio_of_means, wilson


@given(st.integers(1, 2_000), st.data())
def test_wilson_equals_scipy_and_stays_a_proportion(n, data):
    successes = data.draw(st.integers(0, n))
    interval = wilson(successes, n)
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= interval.low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= interval.high <= 1


def test_wilson_of_nothing_is_undefined():
    assert np.isnan(wilson(0, 0)).all()


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 100))
def test_a_bootstrap_draws_whole_groups(groups, seed):
    weights = bootstrap_weights(groups, 20, seed)
    assert weights.shape == (20, len(groups))
    assert np.array_equal(weights, bootstrap_weights(groups, 20, seed)), "the seed decides"
    n_groups = len(set(groups))
    for group in set(groups):
        rows = weights[:, np.asarray(groups) == group]
        assert (rows == rows[:, :1]).all()
    firsts = [groups.index(group) for group in set(groups)]
    if groups:
        assert (weights[:, firsts].sum(1) == n_groups).all(), "as many groups as there are, with replacement"


def test_percentiles_ignore_undefined_draws():
    draws = np.stack([np.arange(101.0), np.full(101, np.nan), np.r_[np.nan, np.arange(100.0)]], axis=1)
    low, high = percentile_interval(draws, 0.9)
    assert low == pytest.approx([5, np.nan, 4.95], nan_ok=True)
    assert high == pytest.approx([95, np.nan, 94.05], nan_ok=True)
    low, high = percentile_interval(np.arange(101.0))
    assert low.shape == ()
    assert [float(low), float(high)] == pytest.approx([2.5, 97.5])


def test_ratio_of_means_by_hand():
    top = np.array([[1.0, np.nan], [3.0, 2.0], [5.0, 4.0]])
    bottom = np.array([[2.0, 1.0], [2.0, 1.0], [np.nan, 2.0]])
    ratio = ratio_of_means(top, bottom, bootstrap_weights(["a", "a", "b"], 200, 0))
    assert ratio.value == pytest.approx([4 / 4, 6 / 3])
    assert ratio.n.tolist() == [2, 2]
    assert (ratio.low <= ratio.value).all()
    assert (ratio.value <= ratio.high).all()


def test_ratio_without_a_defined_row_is_undefined():
    ratio = ratio_of_means(np.full((3, 1), np.nan), np.ones((3, 1)), bootstrap_weights("abc", 50, 0))
    assert np.isnan([ratio.value, ratio.low, ratio.high]).all()
    assert ratio.n.tolist() == [0]


def test_a_constant_ratio_has_no_width():
    ratio = ratio_of_means(np.full((9, 2), 3.0), np.full((9, 2), 2.0), bootstrap_weights(range(9), 100, 1))
    assert ratio.low == pytest.approx([1.5, 1.5])
    assert ratio.high == pytest.approx([1.5, 1.5])


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        values = rng.normal(size=(60, 1)).repeat(2, axis=0)  # twins: 60 groups of two equal rows
        groups = np.arange(60).repeat(2)
        mean = ratio_of_means(values, np.ones_like(values), bootstrap_weights(groups.tolist(), 300, seed))
        covered.append(mean.low[0] <= 0 <= mean.high[0])
    assert 0.88 <= np.mean(covered) <= 0.99
