"""p over the layers of all places at once: right under a planted null, and no weaker for more places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from safekey_interp.measures.best_layers import AmongAll, over_all_places
from safekey_interp.measures.separability import separability_table
from safekey_interp.measures.step_down import step_down_upper

N_DRAWS = 99


def places(rng: np.random.Generator, n: int, *, drawn: str, shift: float = 0.0, shared: float = 0.7) -> list[AmongAll]:
    """AUROCs of places that move together, with their nulls; ``shift`` is the effect at the first."""
    common = rng.normal(0, shared, N_DRAWS + 1)
    numbers = 0.5 + 0.05 * (common[:, None] + rng.normal(0, (1 - shared**2) ** 0.5, (N_DRAWS + 1, n)))
    numbers[0, 0] += shift
    return [AmongAll("probe", drawn, float(column[0]), column[1:]) for column in numbers.T]


@pytest.mark.parametrize("n_plans", [1, 3])
def test_a_planted_null_is_found_in_no_more_than_its_share(n_plans: int) -> None:
    """At least one of 36 places, in 1, or in 3 sets whose labels are shuffled apart."""
    rng = np.random.default_rng(0)
    plans = [f"plan {number}" for number in range(n_plans)]
    wrong = 0
    for _ in range(600):
        tested = [one for plan in plans for one in places(rng, 36 // n_plans, drawn=plan)]
        wrong += min(over_all_places(tested)) <= 0.05
    assert wrong / 600 <= 0.07


def test_a_planted_effect_is_found_and_its_neighbours_are_not() -> None:
    rng = np.random.default_rng(1)
    plan = "one"
    found, others = 0, 0
    for _ in range(600):
        p = over_all_places(places(rng, 40, drawn=plan, shift=0.35))
        found += p[0] <= 0.05
        others += min(p[1:]) <= 0.05
    assert found / 600 >= 0.95
    assert others / 600 <= 0.07


def test_the_smallest_p_does_not_grow_with_the_places_that_share_their_shuffles() -> None:
    rng = np.random.default_rng(2)
    one, other = "one", "other"
    for n in (1, 7, 60):
        assert over_all_places(places(rng, n, drawn=one, shift=5.0))[0] == 1 / (1 + N_DRAWS)
    both = [*places(rng, 4, drawn=one, shift=5.0), *places(rng, 4, drawn=other)]
    assert over_all_places(both)[0] == 2 / (1 + N_DRAWS), "shuffles that are no joint draws are shared out"


def test_families_do_not_touch_one_another_and_what_has_no_null_has_no_p() -> None:
    rng = np.random.default_rng(3)
    plan = "one"
    alone = places(rng, 5, drawn=plan)
    words = [one._replace(family="words", observed=0.99) for one in places(rng, 5, drawn=plan)]
    assert over_all_places([*alone, *words])[:5] == over_all_places(alone)
    without = alone[0]._replace(null=np.zeros(0))
    undefined = alone[0]._replace(observed=float("nan"))
    assert np.isnan(over_all_places([without, undefined])).all()


def test_step_down_keeps_the_order_of_the_places() -> None:
    rng = np.random.default_rng(4)
    draws = rng.normal(size=(50, 9))
    observed = rng.normal(1.0, 1.0, 9)
    p = step_down_upper(observed, draws)
    assert (np.diff(p[np.argsort(-observed)]) >= 0).all()
    single = (1 + (draws >= observed).sum(axis=0)) / 51
    assert (p >= single - 1e-12).all()
    np.testing.assert_allclose(p[observed.argmax()], (1 + (draws.max(axis=1) >= observed.max()).sum()) / 51)


def test_positions_with_the_same_rows_share_their_shuffles() -> None:
    """Of nine positions one has the signal; p is as small as for that position alone."""
    rng = np.random.default_rng(5)
    labels = ["harmful", "benign"] * 30
    sign = np.where(np.array(labels) == "harmful", 1.0, -1.0)[:, None]
    signal = rng.normal(size=(60, 4)) + 2 * sign
    noise = {f"at-{number}": rng.normal(size=(60, 4)) for number in range(8)}
    groups = [str(number) for number in range(60)]

    def table(matrices: dict[str, np.ndarray]) -> Any:
        states = SimpleNamespace(
            layers=[SimpleNamespace(layer=0, site="resid_post")],
            positions=tuple(matrices),
            trace_ids=groups,
            matrix=lambda index, position: matrices[position].astype(np.float32),
        )
        made = separability_table(states, labels, groups, {}, n_permutations=60, n_folds=3).table  # type: ignore[arg-type]
        return made[made["method"] == "logistic"].set_index("position")

    alone, among = table({"decision": signal}), table({"decision": signal} | noise)
    assert alone.loc["decision", "p_value_over_all"] == among.loc["decision", "p_value_over_all"] == 1 / 61
    assert (among["p_value_over_all"] >= among["p_value_over_layers"]).all()
    assert among.loc[list(noise), "p_value_over_all"].min() > among.loc[list(noise), "p_value"].min()
