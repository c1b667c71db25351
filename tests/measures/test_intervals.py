"""Laws of the intervals over groups: what they hold, what moves them, what leaves them, and how often they cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from safekey_interp.data.conditions import FEW
from safekey_interp.measures.intervals import (
    difference_of_ratios,
    difference_of_shares,
    mean_interval,
    percentiles,
    ratio,
    ratio_of_means,
    share_from_error,
    share_interval,
    sign_flip_p,
)

RNG = np.random.default_rng


def mean(values: np.ndarray, groups: object) -> tuple[float, float, float]:
    found = ratio_of_means(values[:, None], np.ones((len(values), 1)), groups)  # type: ignore[arg-type]
    return float(found.value[0]), float(found.low[0]), float(found.high[0])


def test_ratio_of_means_by_hand() -> None:
    top = np.array([[1.0, np.nan], [3.0, 2.0], [5.0, 4.0]])
    bottom = np.array([[2.0, 1.0], [2.0, 1.0], [np.nan, 2.0]])
    found = ratio_of_means(top, bottom, ["a", "a", "b"])
    assert found.value == pytest.approx([4 / 4, 6 / 3])
    assert found.n.tolist() == [2, 2]
    assert found.n_groups.tolist() == [1, 2]
    assert np.isnan([found.low, found.high]).all(), "two groups say nothing"
    assert ratio(top, bottom) == pytest.approx(found.value)


def test_ratio_without_a_defined_row_is_undefined() -> None:
    found = ratio_of_means(np.full((12, 1), np.nan), np.ones((12, 1)), range(12))
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.n.tolist() == [0]


def test_fewer_groups_than_few_have_no_interval_and_few_have_one() -> None:
    values = RNG(0).normal(size=FEW)
    few, enough = (mean(values[:n].repeat(3), np.arange(n).repeat(3)) for n in (FEW - 1, FEW))
    assert np.isnan(few[1:]).all()
    assert np.isfinite(enough).all()
    ones = [1.0] * FEW
    assert np.isnan(share_interval(ones[1:], range(FEW - 1))).all()
    assert np.isnan(difference_of_shares((ones, range(FEW)), (ones[1:], range(FEW - 1)))).all()


def test_symmetric_values_have_students_interval() -> None:
    values = RNG(1).normal(size=30)
    values = np.concatenate([values, 2 * 3.0 - values])  # symmetric about 3: no skewness
    low, high = ttest_1samp(values, 0).confidence_interval()
    assert mean(values, range(60)) == pytest.approx((3.0, low, high))


@given(st.integers(0, 50), st.integers(FEW, 40))
def test_the_interval_holds_the_mean_and_students_interval(seed: int, n: int) -> None:
    values = RNG(seed).lognormal(0, 1, n)
    low, high = ttest_1samp(values, 0).confidence_interval()
    value, lower, upper = mean(values, range(n))
    assert lower <= low + 1e-9
    assert value < high - 1e-9 <= upper


def test_skewed_values_reach_further_to_the_long_side() -> None:
    value, low, high = mean(RNG(2).lognormal(0, 1, 40), range(40))
    assert high - value > 1.2 * (value - low)
    mirrored = mean(-RNG(2).lognormal(0, 1, 40), range(40))
    assert mirrored == pytest.approx((-value, -high, -low)), "and mirrored values mirror it"


@given(st.integers(0, 30))
def test_groups_are_the_units_whatever_the_order_of_rows(seed: int) -> None:
    rng = RNG(seed)
    values, groups = rng.normal(size=15), np.arange(15)
    alone = mean(values, groups)
    assert mean(values.repeat(4), groups.repeat(4)) == pytest.approx(alone), "copies of rows add nothing"
    order = rng.permutation(60)
    assert mean(values.repeat(4)[order], groups.repeat(4)[order]) == pytest.approx(alone)
    assert mean(5 * values + 2, [f"g{g}" for g in groups]) == pytest.approx(tuple(5 * one + 2 for one in alone))


def test_a_constant_ratio_has_no_width_and_one_over_nothing_no_interval() -> None:
    found = ratio_of_means(np.full((12, 2), 3.0), np.full((12, 2), 2.0), range(12))
    assert found.low == pytest.approx([1.5, 1.5])
    assert found.high == pytest.approx([1.5, 1.5])
    noise = RNG(0).normal(size=(12, 1))  # a denominator that is not told from 0
    assert np.isnan(ratio_of_means(np.ones((12, 1)), noise - noise.mean() + 0.1, range(12)).low).all()


def test_a_column_with_gaps_is_that_of_its_own_rows() -> None:
    rng = RNG(3)
    top, bottom = rng.lognormal(size=(30, 1)), rng.lognormal(size=(30, 1))
    groups = np.arange(30) % 15
    gaps = np.where(groups[:, None] < 3, np.nan, top)
    both = ratio_of_means(np.hstack([top, gaps]), np.hstack([bottom, bottom]), groups)
    alone = ratio_of_means(top[groups >= 3], bottom[groups >= 3], groups[groups >= 3])
    assert [both.low[1], both.high[1], both.n_groups[1]] == pytest.approx([alone.low[0], alone.high[0], 12])


def test_difference_of_ratios_is_the_mean_of_differences_on_the_same_rows() -> None:
    one, two = RNG(4).normal(size=(2, 25))
    value, interval = difference_of_ratios((one, np.ones(25)), (two, np.ones(25)), range(25))
    assert (value, *interval) == pytest.approx(mean(two - one, range(25)))


def test_pairs_that_move_together_have_a_shorter_difference() -> None:
    shared = 3 * RNG(5).normal(size=25)
    one, two = shared + RNG(6).normal(size=(2, 25))
    ones, nothing = np.ones(25), np.zeros(25)
    paired = difference_of_ratios((one, ones), (two, ones), range(25))[1]
    apart = difference_of_ratios(
        (np.r_[one, nothing], np.r_[ones, nothing]), (np.r_[nothing, two], np.r_[nothing, ones]), range(50)
    )[1]
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)


@given(st.integers(FEW, 200), st.data())
def test_a_share_has_an_interval_inside_0_and_1_that_holds_it(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    hits = np.arange(n) < k
    low, high = share_interval(hits, range(n))
    assert 0 <= low <= k / n <= high <= 1
    assert high - low > 0.5 / n, "0 and 1 observed are not 0 and 1"
    turned = share_interval(~hits, range(n))
    assert turned == pytest.approx((1 - high, 1 - low)), "misses mirror hits"
    error = np.sqrt(k / n * (1 - k / n) / (n - 1))
    assert share_from_error(k / n, float(error), n) == pytest.approx((low, high))


def test_a_share_counts_groups_and_is_near_the_exact_interval_for_single_rows() -> None:
    hits = np.arange(20) < 13
    alone = share_interval(hits, range(20))
    assert share_interval(hits.repeat(5), np.arange(20).repeat(5)) == pytest.approx(alone)
    exact = binomtest(13, 20).proportion_ci(method="exact")
    assert alone == pytest.approx((exact.low, exact.high), abs=0.03)


@given(st.integers(0, 40))
def test_a_difference_of_shares_mirrors_and_is_never_of_width_0(seed: int) -> None:
    rng = RNG(seed)
    one, two = rng.random((2, 24)) < rng.random((2, 1))
    groups = np.arange(24) // 2
    low, high = difference_of_shares((one, groups), (two, groups))
    assert -1 <= low <= two.mean() - one.mean() <= high <= 1
    assert high - low > 0.02
    assert difference_of_shares((two, groups), (one, groups)) == pytest.approx((-high, -low))


def test_all_of_one_and_none_of_the_other_differ_for_sure_but_not_by_exactly_one() -> None:
    low, high = difference_of_shares(([0] * 12, range(12)), ([1] * 12, range(12)))
    assert 0.3 < low < 1 == high
    low, high = difference_of_shares(([1] * 12, range(12)), ([1] * 12, range(12)))
    assert low < 0 < high


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=60))
def test_flipped_signs_of_single_pairs_are_mcnemars_exact_test(apart: list[int]) -> None:
    differing = sum(map(abs, apart))
    expected = binomtest(apart.count(1), differing).pvalue if differing else 1.0
    assert sign_flip_p(apart, range(len(apart))) == pytest.approx(expected)


def test_flipped_signs_count_groups_as_one_and_by_size() -> None:
    apart = [1] * 10 + [-1] * 2
    assert sign_flip_p(np.repeat(apart, 6), np.arange(12).repeat(6)) == pytest.approx(sign_flip_p(apart, range(12)))
    # 2 + 1 of {±2 ±1}: as far from 0 as 3 are 3 and -3, of four equally likely sums.
    assert sign_flip_p([1, 1, 1], ["a", "a", "b"]) == pytest.approx(0.5)
    assert sign_flip_p([], []) == 1.0


def test_percentiles_ignore_undefined_draws() -> None:
    draws = np.stack([np.arange(101.0), np.full(101, np.nan), np.r_[np.nan, np.arange(100.0)]], axis=1)
    low, high = percentiles(draws, 0.9)
    assert low == pytest.approx([5, np.nan, 4.95], nan_ok=True)
    assert high == pytest.approx([95, np.nan, 94.05], nan_ok=True)


@pytest.mark.parametrize("n", [FEW, 40])
def test_means_and_ratios_cover_as_often_as_they_say(n: int) -> None:
    rng = RNG(7)
    values, bottom = rng.exponential(1, (n, 2000)), rng.lognormal(0, 0.4, (n, 2000))
    plain = ratio_of_means(values, np.ones_like(values), range(n))
    over = ratio_of_means(values * bottom, bottom, range(n))
    for found in (plain, over):
        assert 0.935 <= np.mean((found.low <= 1) & (found.high >= 1)) <= 0.985


def test_shares_cover_as_often_as_they_say_and_a_planted_difference_is_found() -> None:
    rng, groups = RNG(8), np.arange(12).repeat(2)
    held, found = [], []
    for _ in range(600):
        hits = (rng.random(12) < 0.9).repeat(2)
        low, high = share_interval(hits, groups)
        held.append(low <= 0.9 <= high)
        low, high = difference_of_shares((rng.random(24) < 0.1, groups), (hits, groups))
        found.append(low > 0)
    assert np.mean(held) >= 0.935
    assert np.mean(found) >= 0.95


@pytest.mark.parametrize(("n", "spread"), [(10, 0.2), (10, 0.6), (12, 1.0), (50, 0.5)])
def test_bounds_of_a_ratio_solve_their_equation_and_do_not_jump(n: int, spread: float) -> None:
    """A bound is where the half-width of the differences there reaches the value; rounding moves it as little."""
    rng = np.random.default_rng(n)
    below = np.exp(spread * rng.normal(size=(n, 400)))
    above = below * np.exp(spread * rng.normal(size=(n, 400)))
    groups = np.arange(n).astype(str)
    found = ratio_of_means(above, below, groups)
    jittered = ratio_of_means(above * (1 + 1e-10 * rng.normal(size=above.shape)), below, groups)
    for end, sign, again in ((found.low, -1, jittered.low), (found.high, 1, jittered.high)):
        there = ~np.isnan(end)
        assert there.mean() > 0.8
        np.testing.assert_allclose(end[there], again[there], rtol=1e-6)
        away = np.abs(end - found.value)[there]
        for share, is_inside in ((0.999, True), (1.001, False)):
            at = found.value[there] + sign * share * away
            differences = above[:, there] - at * below[:, there]  # their mean is 0 at the value
            centred = mean_interval(differences - differences.mean(0), groups)
            reached = -centred.low if sign < 0 else centred.high
            assert ((np.abs(differences.mean(0)) < reached) == is_inside).all()
