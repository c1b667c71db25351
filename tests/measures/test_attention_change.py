"""A change of a lift is that of the mass minus that of the baseline, with intervals that draw groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import safekey_interp as ski
from safekey_interp.errors import InputError
from safekey_interp.measures.attention_change import split_change


def table(mass: float, matched: float, *, seed: int, n: int = 40, noise: float = 0.1) -> pd.DataFrame:
    """One pair of spans over two layers and two heads; every trace has a size of its own."""
    stream = np.random.default_rng(seed)
    size = np.repeat(np.random.default_rng(0).uniform(0.5, 1.5, n), 4)
    rows = pd.DataFrame({"trace_id": np.repeat([f"t{i}" for i in range(n)], 4), "from_span": "decision"})
    rows["to_span"], rows["layer"], rows["head"] = "understanding", [0, 0, 1, 1] * n, [0, 1, 0, 1] * n
    rows["mass"] = mass * size * np.exp(stream.normal(0, noise, 4 * n))
    rows["matched_mass"] = matched * size * np.exp(stream.normal(0, noise, 4 * n))
    return rows


def changes(first: pd.DataFrame, second: pd.DataFrame, **options: object) -> pd.DataFrame:
    return ski.split_lift_change(first, second, **options).set_index("part")  # type: ignore[arg-type]


@pytest.mark.parametrize(("of_mass", "of_baseline"), [(1.5, 1.0), (1.0, 0.6), (1.3, 1.3)])
def test_a_planted_change_is_found_on_its_own_side(of_mass: float, of_baseline: float) -> None:
    found = changes(table(0.2, 0.1, seed=1), table(0.2 * of_mass, 0.1 * of_baseline, seed=2))
    for part, factor in (("mass", of_mass), ("matched", of_baseline), ("lift", of_mass / of_baseline)):
        row = found.loc[part]
        assert row["low"] <= np.log(factor) <= row["high"], part
        assert row["log_change"] == pytest.approx(np.log(row["second"] / row["first"]))
        if factor == 1.0:
            assert row["low"] < 0 < row["high"]
        else:
            assert row["low"] * row["high"] > 0
    assert found.loc["lift", "log_change"] == pytest.approx(
        found.loc["mass", "log_change"] - found.loc["matched", "log_change"]
    )


def test_the_lift_is_the_ratio_of_sums_over_the_shared_traces() -> None:
    first, second = table(0.2, 0.1, seed=1), table(0.3, 0.1, seed=2)
    shorter = second[second["trace_id"] != "t3"]
    kept = first[first["trace_id"] != "t3"]
    found = changes(first, shorter)
    assert found.loc["lift", "first"] == pytest.approx(kept["mass"].sum() / kept["matched_mass"].sum())
    assert found.loc["mass", "first"] == pytest.approx(kept["mass"].sum() / 39)
    assert (found["n"] == 39).all()


def test_intervals_draw_groups() -> None:
    first, second = table(0.2, 0.1, seed=1), table(0.3, 0.1, seed=2)
    pairs = {f"t{i}": f"g{i // 2}" for i in range(40)}
    assert (changes(first, second, groups=pairs)["n_groups"] == 20).all()
    few = changes(first, second, groups={f"t{i}": f"g{i % 4}" for i in range(40)})
    assert few[["low", "high"]].isna().all(axis=None), "four groups give no interval"
    assert few["log_change"].notna().all()


def test_no_mass_has_no_change() -> None:
    sums = pd.DataFrame({"top": [0.0] * 6, "bottom": 1.0, "group": list("abcdef")}, index=list("abcdef"))
    found = split_change(sums, sums.assign(top=1.0))
    assert np.isnan(found["mass"].log_change)
    assert found["matched"].log_change == 0


def test_tables_without_a_trace_in_common_are_refused() -> None:
    other = table(0.2, 0.1, seed=1).assign(trace_id="x")
    with pytest.raises(InputError, match="of the same traces"):
        ski.split_lift_change(table(0.2, 0.1, seed=1), other)
