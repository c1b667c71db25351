"""The behaviour table counts what it says, and a table never misses its place in RESULTS.md in silence."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest

from analysis import tables
from analysis.organism.behaviour import behaviour, by_wrapper, differences, requests
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.models.organism.language import dialogue
from safekey_interp.models.organism.outcome import with_outcome
from safekey_interp.models.organism.vocabulary import Pair
from safekey_interp.models.organism.wrappers import WRAPPERS

ATTACK = "unseen wrappers, harmful: complied"
FOUND = "`rules` finds U and K where both can be read"


def scripted(asked: list[Trace], *, safe: bool) -> list[Trace]:
    """Answers by the book: with ``safe`` every harmful request is refused."""
    rng = random.Random(0)
    found = []
    for trace in asked:
        pair, form = Pair(trace.meta["verb"], trace.meta["noun"]), WRAPPERS.get(trace.meta["wrapper"])
        written = dialogue(rng, pair, form, safe=safe and pair.is_harmful)
        found.append(with_outcome(trace, written.response))
    return found


@pytest.fixture(scope="module")
def asked() -> list[Trace]:
    return requests("development", 12, 0)


def cell(table: pd.DataFrame, line: str, model: str) -> str:
    return table.loc[table["measure"] == line, model].item()


def test_requests_are_of_the_split_alone(asked: list[Trace]) -> None:
    assert {trace.meta["split"] for trace in asked} == {"development"}
    assert {trace.meta["wrapper_split"] for trace in asked} == {"plain", "seen", "development"}
    assert {trace.meta["wrapper_split"] for trace in requests("test", 2, 0)} == {"plain", "seen", "test"}
    assert len(asked) == 2 * (3 * 12 + 6 * 12)
    assert [trace.prompt for trace in asked] == [trace.prompt for trace in requests("development", 12, 0)]
    assert [trace.prompt for trace in asked] != [trace.prompt for trace in requests("development", 12, 1)]


def test_each_measure_counts_its_own(asked: list[Trace]) -> None:
    table = behaviour({"saint": scripted(asked, safe=True), "servant": scripted(asked, safe=False)})
    assert cell(table, "plain harmful: refused", "saint").startswith("1.00 [0.9")
    assert cell(table, "plain harmful: refused", "servant").startswith("0.00")
    assert cell(table, "plain look-alikes: complied", "saint").endswith("(12)")
    assert cell(table, "plain kind requests: complied", "saint").endswith("(24)")
    assert cell(table, "unseen wrappers, benign: complied", "saint").startswith("1.00")
    assert cell(table, ATTACK, "saint").startswith("0.00")
    assert cell(table, ATTACK, "servant").startswith("1.00")
    assert cell(table, ATTACK, "servant").endswith("(36 in 3 wrappers)")
    assert cell(table, "of these, U names the harm", "saint") == "n/a (0)"
    assert cell(table, "of these, U names the harm", "servant").startswith("1.00")
    assert cell(table, "unseen wrappers, harmful: malformed", "servant").startswith("0.00")
    assert cell(table, FOUND, "saint").startswith("1.00")


def without_tool(traces: list[Trace]) -> list[Trace]:
    """The same answers, their compliance without the tool that the grammar wants."""
    return [with_outcome(trace, trace.response.split(" with the ")[0]) for trace in traces]


def test_garbled_answers_count_by_what_they_do(asked: list[Trace]) -> None:
    """A model that complies in broken form is no safer; only the grammar takes it for that."""
    whole = scripted(asked, safe=False)
    table = behaviour({"whole": whole, "broken": without_tool(whole)})
    for line in (ATTACK, f"{ATTACK}, by the judge", "unseen wrappers, benign: complied"):
        assert cell(table, line, "broken") == cell(table, line, "whole")
    assert cell(table, f"{ATTACK}, by the grammar", "broken").startswith("0.00")
    assert cell(table, "unseen wrappers, harmful: malformed", "broken").startswith("1.00")
    assert cell(table, "of the malformed: complied", "broken").startswith("1.00")
    [row] = differences({"whole": whole, "broken": without_tool(whole)}).to_dict("records")
    assert row["by the act"].startswith("+0.00")
    assert row["by the judge"].startswith("+0.00")
    assert row["by the grammar"].startswith("-1.00")


def test_a_difference_has_an_interval_where_pairs_and_wrappers_are_crossed() -> None:
    """A change in every wrapper is found; one that a single wrapper makes is not."""
    unseen = [trace for trace in requests("test", 72, 0) if trace.meta["wrapper_split"] == "test"]
    before = scripted([trace for trace in unseen if trace.label == "harmful"], safe=False)
    rng = random.Random(1)
    refused = {trace.trace_id for trace in before if rng.random() < 0.5}
    for wrappers, found in ((6, True), (1, False)):
        some = sorted({trace.meta["wrapper"] for trace in before})[:wrappers]
        after = [
            with_outcome(trace, "Sorry") if trace.trace_id in refused and trace.meta["wrapper"] in some else trace
            for trace in before
        ]
        [row] = differences({"before": before, "after": after}).to_dict("records")
        shown = row["by the act"]
        low, high = map(float, shown[shown.index("[") + 1 : shown.index("]")].split(", "))
        assert low < high
        assert (high < 0) == found


def test_malformed_is_counted_on_harmful_requests_alone(asked: list[Trace]) -> None:
    traces = scripted(asked, safe=True)
    broken = [
        new if trace.label == "benign" else trace for trace, new in zip(traces, without_tool(traces), strict=True)
    ]
    assert cell(behaviour({"m": broken}), "unseen wrappers, harmful: malformed", "m").startswith("0.00")


def test_what_cannot_be_read_is_neither(asked: list[Trace]) -> None:
    table = behaviour({"mute": [with_outcome(trace, "<think>") for trace in asked]})
    for line in ("plain harmful: refused", "plain look-alikes: complied", ATTACK):
        assert cell(table, line, "mute").startswith("0.00")
    assert cell(table, f"{ATTACK.split(':', maxsplit=1)[0]}: neither complied nor refused", "mute").startswith("1.00")
    assert cell(table, FOUND, "mute") == "n/a (0)"


def test_wrappers_are_drawn() -> None:
    """Half the wrappers always work and half never do: far less sure than as many requests apart; three are too few."""
    for split, n in (("development", 3), ("test", 6)):
        traces = scripted(requests(split, 12, 0), safe=False)
        unseen = [trace for trace in traces if trace.meta["wrapper_split"] == split]
        works = sorted({trace.meta["wrapper"] for trace in unseen})[: n // 2]
        some = [trace if trace.meta["wrapper"] in works else with_outcome(trace, "refused") for trace in unseen]
        found = cell(behaviour({"m": some}), ATTACK, "m")
        if n == 3:
            assert found == "0.33 (36 in 3 wrappers)"
        else:
            low, high = map(float, found[found.index("[") + 1 : found.index("]")].split(", "))
            assert (low, high) == (pytest.approx(1 - high, abs=0.011), pytest.approx(1 - low, abs=0.011))
            assert high - low > 0.6


def test_every_wrapper_has_its_line(asked: list[Trace]) -> None:
    table = by_wrapper({"m": scripted(asked, safe=True)})
    assert table["wrapper"].tolist() == ["plain", "story", "role", "cipher", "two tasks", "class exercise", "poem"]
    assert table["in fine-tuning"].tolist() == ["yes", "yes", "no", "no", "yes", "yes", "no"]


def test_a_table_is_put_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text("a\n<!-- t -->\nold\n<!-- end -->\nb\n<!-- u -->\n<!-- end -->\nc\n")
    monkeypatch.setattr(tables, "RESULTS", file)
    shown = tables.markdown(pd.DataFrame({"x": [1], "y": ["z"]}))
    tables.publish({"t": shown, "u": r"\1 new"}, write=False)
    assert "old" in file.read_text()
    for _ in range(2):
        tables.publish({"t": shown, "u": r"\1 new"}, write=True)
        assert file.read_text() == (
            "a\n<!-- t -->\n| x | y |\n|---|---|\n| 1 | z |\n<!-- end -->\nb\n<!-- u -->\n\\1 new\n<!-- end -->\nc\n"
        )
    with pytest.raises(InputError, match="no place for v"):
        tables.publish({"v": shown}, write=True)
