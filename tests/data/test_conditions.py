"""Which conditions are told apart: frequent ones, in at least five groups each; what is not is said."""

from __future__ import annotations

import pytest

from safekey_interp.data.conditions import (
    FEW,
    MOST,
    Conditions,
    condition_of,
    conditions_in,
    conditions_of,
    subsets_by_label,
    subsets_of,
)
from safekey_interp.data.trace import Trace


def of(name: str | None, n: int, n_groups: int | None = None, **meta: object) -> list[Trace]:
    return [
        Trace(
            trace_id=f"{name}-{i}", prompt="How?", response="", source=name, group=f"g{i % (n_groups or n)}", meta=meta
        )
        for i in range(n)
    ]


def test_the_most_frequent_come_first_and_one_alone_tells_nothing_apart() -> None:
    assert conditions_of([*of("rare", 12), *of("often", 15)], "source").names == ("often", "rare")
    assert conditions_of([*of("b", 12), *of("a", 12)], "source").names == ("a", "b")
    alone = conditions_of(of("only", 9), "source")
    assert (alone.by, alone.names, alone.left_out) == ("source", (), ())
    assert conditions_of(of(None, 9), "source").left_out == (), "the default asks for nothing that is not there"
    assert conditions_of(of("only", 9), None) == Conditions()


def test_groups_count_and_not_traces() -> None:
    found = conditions_of([*of("a", 12), *of("b", 12), *of("few", 40, n_groups=FEW - 1)], "source")
    assert found.names == ("a", "b")
    assert found.left_out == (
        {"what": "conditions by source: few", "why": f"fewer than {FEW} prompts each, too few to tell apart", "n": 40},
    )
    pair = conditions_of([*of("a", 12), *of("b", FEW - 1)], "source")
    assert pair.names == ()
    assert [row["what"] for row in pair.left_out] == ["conditions by source: b"]


def test_at_most_six_are_told_apart_and_the_others_named() -> None:
    found = conditions_of([trace for k in range(9) for trace in of(f"c{k}", 20 - k)], "source")
    assert found.names == tuple(f"c{k}" for k in range(MOST))
    assert [(row["what"], row["n"]) for row in found.left_out] == [("conditions by source: c6, c7, c8", 39)]


def test_traces_without_a_condition_are_counted() -> None:
    found = conditions_of([*of("a", 12), *of("b", 12), *of(None, 3)], "source")
    assert [(row["what"], row["n"]) for row in found.left_out] == [("traces without source", 3)]


@pytest.mark.parametrize(
    ("value", "name"),
    [("story", "story"), (3, "3"), (True, "true"), (None, None), ("", None), ({"a": 1}, None), ([1], None)],
)
def test_a_column_of_meta_tells_apart_too(value: object, name: str | None) -> None:
    assert condition_of(of("a", 1, wrapper=value)[0], "wrapper") == name


def test_a_column_that_does_not_exist_is_said() -> None:
    found = conditions_of(of("a", 9), "mood")
    assert found.names == ()
    assert [row["what"] for row in found.left_out] == ["conditions by mood"]


def test_subsets_are_the_condition_and_its_label() -> None:
    both = Conditions(by="source", names=("plain", "wrapped"))
    assert both.subsets("wrapped", "harmful") == ["source=wrapped", "source=wrapped, harmful"]
    assert both.subsets("wrapped", None) == ["source=wrapped"]
    assert both.subsets("other", "harmful") == both.subsets(None, "harmful") == Conditions().subsets("a", "b") == []
    assert set(both.words()) == {both.subset(n, x) for n in both.names for x in (None, "harmful", "benign")}
    assert conditions_in({"conditions": both.record()}) == both
    assert conditions_in({}) == Conditions()


def test_summaries_are_split_by_the_labels_of_the_data() -> None:
    assert subsets_by_label(["benign", None]) == subsets_by_label([]) == ("all", "harmful", "benign")
    assert subsets_by_label(["wrong", float("nan"), "correct", "wrong"]) == ("all", "correct", "wrong")
    assert subsets_by_label(["a", "b", "c"]) == ("all",), "more than two are not split"
    assert subsets_by_label(["all", "x"]) == ("all", "x")
    graded = [trace.with_(label=("correct", "wrong")[number % 2]) for number, trace in enumerate(of("a", 24))]
    found = conditions_of([*graded, *of("b", 12)], "source")
    assert found.labels == ("correct", "wrong")
    assert conditions_in({"conditions": found.record()}).labels == found.labels
    assert conditions_in({"conditions": {"by": "source", "names": ["a", "b"]}}).labels == ("harmful", "benign")
    assert subsets_of("wrong", "safe", "a", found) == ["all", "wrong", "aha:safe", "source=a", "source=a, wrong"]
    assert subsets_of("wrong", None) == ["all"], "not a label of the run"
    assert conditions_of([trace.with_(label=trace.trace_id) for trace in of("a", 5)], None).labels == ()
