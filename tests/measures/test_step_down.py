"""Laws of step-down max-T p-values: valid over correlated places, a floor that does not grow, planted effects found."""

from __future__ import annotations

import numpy as np
import pytest

from safekey_interp.measures.step_down import LEVEL, least_draws, step_down_p_values, step_down_upper


def drawn(rng: np.random.Generator, n_draws: int, n_places: int, correlation: float) -> np.ndarray:
    """A value and its draws at places whose numbers correlate and have different spreads."""
    shared, own = rng.standard_normal((n_draws + 1, 1)), rng.standard_normal((n_draws + 1, n_places))
    return (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own) * np.geomspace(0.1, 10, n_places)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("n_draws", [19, 99])
def test_of_many_places_without_an_effect_one_is_false_in_at_most_seven_per_cent(
    correlation: float, n_draws: int
) -> None:
    rng = np.random.default_rng([n_draws, round(100 * correlation)])
    false = 0
    for _ in range(1_000):
        values = drawn(rng, n_draws, 30, correlation)
        false += bool((step_down_p_values(values[0], values[1:]) <= LEVEL).any())
    assert false / 1_000 <= 0.07


def test_true_effects_are_found_and_cost_the_other_places_nothing_more_than_their_own_number() -> None:
    rng = np.random.default_rng(3)
    found, false = 0, 0
    for _ in range(400):
        values = drawn(rng, 39, 30, 0.5)
        values[0, :2] += 8 * np.geomspace(0.1, 10, 30)[:2]
        p = step_down_p_values(values[0], values[1:])
        found += bool((p[:2] <= LEVEL).all())
        false += bool((p[2:] <= LEVEL).any())
    assert found / 400 >= 0.9
    assert false / 400 <= 0.07, "places with an effect do not make the others false"


def test_the_smallest_p_does_not_grow_with_the_number_of_places() -> None:
    rng = np.random.default_rng(5)
    for n_places in (1, 4, 48):
        values = drawn(rng, least_draws(), n_places, 0.3)
        values[0] += 100 * np.geomspace(0.1, 10, n_places)
        assert step_down_p_values(values[0], values[1:]) == pytest.approx(np.full(n_places, 1 / (1 + least_draws())))
    assert 1 / (1 + least_draws()) <= LEVEL < 1 / least_draws()


def test_p_is_at_least_that_of_a_place_alone_and_does_not_depend_on_the_places_units() -> None:
    rng = np.random.default_rng(7)
    for _ in range(50):
        values = drawn(rng, 20, 6, 0.4)
        p = step_down_p_values(values[0], values[1:])
        alone = [step_down_p_values(values[0, [at]], values[1:, [at]])[0] for at in range(6)]
        assert (p >= np.array(alone)).all()
        assert p.max() <= 1
        in_other_units = values * rng.uniform(0.01, 100, 6) + rng.normal(size=6)
        np.testing.assert_allclose(step_down_p_values(in_other_units[0], in_other_units[1:]), p)
        order = rng.permutation(6)
        np.testing.assert_allclose(step_down_p_values(values[0, order], values[1:, order]), p[order])


def test_a_smaller_value_has_no_smaller_p_even_where_its_own_draws_are_all_small() -> None:
    draws = np.array([[5.0, 0.0]] * 10 + [[0.0, 0.0]] * 9)  # half of the larger value's draws are above it
    assert step_down_upper(np.array([3.0, 2.9]), draws) == pytest.approx([11 / 20, 11 / 20])
    assert step_down_upper(np.array([2.9]), draws[:, [1]]) == pytest.approx([1 / 20])
    rng = np.random.default_rng(11)
    for _ in range(50):
        observed, draws = rng.standard_normal(8), rng.standard_normal((9, 8)) * np.geomspace(0.1, 10, 8)
        p = step_down_upper(observed, draws)
        assert (np.diff(p[np.argsort(-observed)]) >= 0).all()


def test_places_without_draws_are_left_out_and_the_others_share_theirs() -> None:
    rng = np.random.default_rng(9)
    values = drawn(rng, 10, 4, 0.2)
    values[1:, 3] = np.nan
    values[6:, 2] = np.nan
    values[0, 1] = np.nan
    p = step_down_p_values(values[0], values[1:])
    assert np.isnan(p).tolist() == [False, True, False, True]
    np.testing.assert_allclose(p[[0, 2]], step_down_p_values(values[0, [0, 2]], values[1:6, [0, 2]]))
    assert np.isnan(step_down_p_values(np.ones(2), np.full((3, 2), np.nan))).all()
    same = step_down_p_values(np.ones(2), np.ones((4, 2)))
    assert same == pytest.approx([1.0, 1.0]), "a draw like the value is no evidence"
