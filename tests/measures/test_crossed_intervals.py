"""Laws of intervals over two ways of grouping: the fewer groups decide, noise alone is covered, an effect is found."""

from __future__ import annotations

import numpy as np
import pytest

from safekey_interp.measures.crossed_intervals import LEAST, crossed_mean, crossed_share, two_way_share
from safekey_interp.measures.intervals import share_interval

RNG = np.random.default_rng
WRAPPER, PAIR = (part.ravel() for part in np.meshgrid(np.arange(6), np.arange(40), indexing="ij"))


def test_wrappers_that_decide_are_six_and_not_two_hundred_and_forty() -> None:
    hits = (WRAPPER % 2).astype(float)
    low, high = two_way_share(hits, WRAPPER, PAIR)
    assert low < 0.15
    assert high > 0.85
    assert two_way_share(hits, PAIR, WRAPPER) == pytest.approx((low, high)), "either way may come first"
    alone = share_interval(hits, np.arange(240))
    assert alone.high - alone.low < 0.2 * (high - low)


def test_too_few_groups_of_either_way_say_nothing() -> None:
    hits = RNG(0).random(240) < 0.5
    assert np.isnan(two_way_share(hits, WRAPPER % (LEAST - 1), PAIR)).all()
    assert np.isnan(two_way_share(hits, WRAPPER, PAIR % (LEAST - 1))).all()
    assert np.isfinite(two_way_share(hits, WRAPPER % LEAST, PAIR)).all()


TRUE_SHARE = float(np.clip(0.04 + np.hypot(0.05, 0.03) * np.random.default_rng(0).normal(size=1_000_000), 0, 1).mean())


def test_a_share_of_all_or_none_has_a_width() -> None:
    low, high = two_way_share(np.ones(240), WRAPPER, PAIR)
    assert 0.4 < low < high == 1


def test_a_contrast_moves_with_wrappers_and_seeds_but_not_with_bases() -> None:
    noise = RNG(1).normal(0, 0.02, (2, 8, 6))
    width = {}
    for name, cells in {
        "noise": noise,
        "wrappers": noise + np.linspace(-0.2, 0.2, 6),
        "seeds": noise + np.linspace(-0.2, 0.2, 8)[:, None],
        "bases": noise + np.array([-0.2, 0.2])[:, None, None],
    }.items():
        _, (low, high) = crossed_mean(cells)
        width[name] = high - low
    assert width["wrappers"] > width["seeds"] > 2 * width["noise"]
    assert width["bases"] == pytest.approx(width["noise"])
    assert np.isnan(crossed_mean(noise[:, :, : LEAST - 1])[1]).all()
    assert np.isnan(crossed_mean(noise[:, :1])[1]).all()


def test_a_contrast_of_nothing_is_covered_and_a_planted_one_found() -> None:
    rng, held, found = RNG(2), [], []
    for _ in range(400):
        cells = 0.08 * rng.normal(size=6) + 0.05 * rng.normal(size=(2, 8, 1)) + rng.normal(0, 0.1, (2, 8, 6))
        low, high = crossed_mean(cells)[1]
        held.append(low <= 0 <= high)
        low, high = crossed_mean(cells - 0.3)[1]
        found.append(high < 0)
    assert np.mean(held) >= 0.925
    assert np.mean(found) >= 0.95


def test_a_share_over_cells_is_covered_within_its_bounds() -> None:
    rng, held = RNG(3), []
    for _ in range(400):
        seen = np.clip(0.04 + 0.05 * rng.normal(size=(1, 1, 8)) + 0.03 * rng.normal(size=(2, 6, 1)), 0, 1)
        cells = rng.binomial(20, seen) / 20
        mean, (low, high) = crossed_share(cells)
        assert 0 <= low <= mean <= high <= 1
        held.append(low <= TRUE_SHARE <= high)
    assert np.mean(held) >= 0.925


def test_a_share_of_cells_that_are_all_alike_has_no_interval() -> None:
    mean, interval = crossed_share(np.ones((2, 6, 8)))
    assert mean == 1
    assert np.isnan(interval).all()
    assert np.isnan(crossed_share(RNG(4).uniform(size=(2, 1, 8)))[1]).all()
