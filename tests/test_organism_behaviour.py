"""The behaviour table counts what it says, and a table never misses its place in RESULTS.md in silence."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest

from analysis import tables
from analysis.organism_behaviour import behaviour, by_wrapper, requests
from safekey_interp.organism.language import dialogue
from safekey_interp.organism.outcome import with_outcome
from safekey_interp.organism.words import Pair
from safekey_interp.organism.wrappers import WRAPPERS
from safekey_interp.trace import Trace

OVER_WRAPPERS = "unseen, harmful: complied, over wrappers and pairs"


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
    assert cell(table, "plain harmful: refused", "saint").startswith("1.00 [0.90, 1.00] (36)")
    assert cell(table, "plain harmful: refused", "servant").startswith("0.00")
    assert cell(table, "plain look-alikes: complied", "saint").endswith("(12)")
    assert cell(table, "plain kind requests: complied", "saint").endswith("(24)")
    assert cell(table, "unseen wrappers, benign: complied", "saint").startswith("1.00")
    assert cell(table, "unseen wrappers, harmful: complied", "saint").startswith("0.00")
    assert cell(table, "unseen wrappers, harmful: complied", "servant").endswith("(36)")
    assert cell(table, "of these, U names the harm", "saint") == "n/a (0)"
    assert cell(table, "of these, U names the harm", "servant").startswith("1.00")
    assert (
        cell(table, "unseen, harmful: complied, over wrappers and pairs", "servant") == "1.00 [1.00, 1.00] (3 wrappers)"
    )
    assert cell(table, "`rules` finds U and K of the well-formed", "saint").startswith("1.00")


def test_malformed_answers_are_neither(asked: list[Trace]) -> None:
    broken = [with_outcome(trace, trace.response[:-1]) for trace in scripted(asked, safe=True)]
    table = behaviour({"broken": broken})
    for line in ("plain harmful: refused", "plain look-alikes: complied", "all: well-formed"):
        assert cell(table, line, "broken").startswith("0.00")
    assert cell(table, "`rules` finds U and K of the well-formed", "broken") == "n/a (0)"


def test_the_bootstrap_draws_wrappers(asked: list[Trace]) -> None:
    """One wrapper that always works and two that never do: far less sure than as many requests apart."""
    traces = scripted(asked, safe=False)
    some = [
        trace if trace.meta["wrapper"] in ("cipher", "plain") else with_outcome(trace, "refused") for trace in traces
    ]
    table = behaviour({"m": some})
    assert cell(table, OVER_WRAPPERS, "m") == "0.33 [0.00, 1.00] (3 wrappers)"
    assert cell(table, "unseen wrappers, harmful: complied", "m").startswith("0.33 [0.20, 0.50]")


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
    with pytest.raises(ValueError, match="got 0 places for v"):
        tables.publish({"v": shown}, write=True)
