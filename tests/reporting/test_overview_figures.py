"""Forest plots of a whole run: their points are numbers of its tables, each beside what it is compared with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_comparison_runs import NAMES, write_comparison
from synthetic_intervention_runs import write_intervention
from synthetic_probe_runs import write_run

from safekey_interp.data.conditions import NO_CONDITIONS, Conditions
from safekey_interp.errors import RunError
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting import figures
from safekey_interp.reporting.pages.page_strip import MOST, StripFigure, strip_group
from safekey_interp.reporting.trace_effects import trace_effects
from safekey_interp.runs.run_folder import Run, open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return open_run(write_run(folder, n_traces=24, n_layers=3, n_heads=2, n_examples=1, conditions=()))


def points(spec: dict[str, Any]) -> dict[tuple[str, str], tuple[float, Any, Any]]:
    """Value, low and high by row and series of a forest plot."""
    rows = [text.replace("<br>", " ") for text in spec["layout"]["yaxis"]["ticktext"]]
    return {
        (rows[round(y)], trace["name"]): (x, *ends)
        for trace in spec["data"]
        for x, y, ends in zip(trace["x"], trace["y"], trace["customdata"], strict=True)
    }


def test_a_forest_plot_draws_each_row_once_and_whiskers_to_the_bounds() -> None:
    table = pd.DataFrame(
        [
            {"place": place, "series": series, "value": value, "low": value - 0.1, "high": value + 0.2}
            for value, (place, series) in enumerate(itertools.product(("<b>", "plain"), ("measured", "control")))
        ]
    )
    table.loc[3, ["low", "high"]] = np.nan
    spec = figures.estimates_as_forest.spec(table, title="t", x="x", caption="c", across_at=0)
    found = points(spec)
    assert set(found) == set(itertools.product(("&lt;b&gt;", "plain"), ("measured", "control")))
    assert found["plain", "measured"] == pytest.approx((2, 1.9, 2.2))
    assert found["plain", "control"] == (3, None, None)
    assert spec["data"][0]["error_x"]["array"] == pytest.approx([0.2, 0.2])
    assert spec["data"][0]["error_x"]["arrayminus"] == pytest.approx([0.1, 0.1])
    low, high = sorted(spec["layout"]["yaxis"]["range"])
    assert all(low < y < high for trace in spec["data"] for y in trace["y"])
    assert spec["layout"]["shapes"][0]["x0"] == 0
    with pytest.raises(RunError, match="no number"):
        figures.estimates_as_forest.spec(table.assign(value=np.nan), title="t", x="x", caption="c")


def test_shares_of_key_sentences_are_counts_and_leave_out_what_was_not_read(run: Run) -> None:
    traces = run.traces.copy()
    unread = traces.index[traces["label"] == "harmful"][:3]
    traces.loc[unread, "aha"] = None
    found = points(figures.aha_by_condition.spec(traces, conditions=NO_CONDITIONS))
    read = traces[(traces["status"] == "measured") & traces["aha"].notna() & (traces["label"] == "harmful")]
    for aha, series in (("safe", "K turns safe"), ("unsafe", "K complies")):
        value, low, high = found[f"harmful (n\u00a0=\u00a0{len(read)})", series]
        assert value == pytest.approx((read["aha"] == aha).mean(), abs=1e-4)
        assert low is None or 0 <= low <= value <= high <= 1
    with pytest.raises(RunError, match="no key sentence was read"):
        figures.aha_by_condition.spec(traces.assign(aha=None), conditions=NO_CONDITIONS)


def test_conditions_and_labels_have_rows_of_their_own(tmp_path: Path) -> None:
    traces = open_run(write_run(tmp_path, n_traces=24, n_layers=2, n_heads=2, n_examples=1)).traces
    names = Conditions(by="source", names=tuple(traces["condition"].unique()))
    found = points(figures.aha_by_condition.spec(traces, conditions=names))
    assert len({place for place, _ in found}) == 4
    unlabelled = figures.aha_by_condition.spec(traces.assign(label=None), conditions=NO_CONDITIONS)
    assert len({place for place, _ in points(unlabelled)}) == 1


def test_attention_stands_beside_its_baselines_in_the_last_layer(run: Run) -> None:
    table = run.attention_by_layer
    spec = figures.attention_beside_baselines.spec(table, queries=["key_sentence"], keys=["understanding", "prompt"])
    found = points(spec)
    assert [*dict.fromkeys(place for place, _ in found)] == ["K on U", "K on X"]
    rows = table[(table["subset"] == "all") & (table["layer"] == 2) & (table["from_span"] == "key_sentence")]
    rows = rows[rows["to_span"] == "prompt"].set_index("measure")
    for measure, series in (("mass", "measured"), ("matched_mass", "distance-matched baseline")):
        assert found["K on X", series] == pytest.approx(tuple(rows.loc[measure, ["value", "low", "high"]]), abs=1e-4)
    with pytest.raises(RunError, match="no number for any of the pairs"):
        figures.attention_beside_baselines.spec(table, queries=["answer"], keys=["prompt"])


@pytest.mark.parametrize(
    "name",
    ["knockout", pytest.param("knockout by head", marks=pytest.mark.slow), "patch", "direction", "suppress", "lens"],
)
def test_the_mean_over_traces_is_the_effect_of_the_place(tmp_path: Path, name: str) -> None:
    """And the mean of the controls the control, so that the trace that moved most is one of those summed up."""
    made = open_run(write_intervention(tmp_path, name))
    found = trace_effects(find_intervention(made.manifest["intervention"]), made.effects, made.summary)
    assert found is not None
    part = found.table
    if found.row["subset"] != "all":
        part = part[part["label"] == found.row["subset"]]
    assert part["effect"].mean() == pytest.approx(found.row["value"])
    assert part["control"].mean() == pytest.approx(found.row["control"], nan_ok=True)
    assert abs(found.most["excess"]) == found.table["excess"].abs().max()


def test_scores_have_no_effect_by_trace(tmp_path: Path) -> None:
    made = open_run(write_intervention(tmp_path, "trajectory"))
    assert trace_effects(find_intervention("trajectory"), made.effects, made.summary) is None


def test_differences_are_those_of_the_table(tmp_path: Path) -> None:
    table = open_run(write_comparison(tmp_path)).comparison
    spec = figures.differences_of_models.spec(table, names=NAMES, conditions=NO_CONDITIONS)
    found = points(spec)
    pairs = table[table["other"].notna()].set_index(["measure", "position"])
    wanted = tuple(pairs.loc[("auroc", "decision"), ["value", "low", "high"]])
    assert found["AUROC at the token before K", "tuned &lt;b&gt; minus base"] == pytest.approx(wanted)
    assert "unjudged" not in " ".join(place for place, _ in found)
    with pytest.raises(RunError, match="no difference"):
        figures.differences_of_models.spec(table[table["other"].isna()], names=NAMES, conditions=NO_CONDITIONS)


def test_a_strip_has_the_first_four_figures_that_can_be_drawn_each_with_its_finding() -> None:
    def spec(caption: str) -> dict[str, Any]:
        return {"data": [], "layout": {"height": 9, "meta": {"caption": caption}, "xaxis": {}, "yaxis": {}}}

    def broken(page: object) -> None:
        raise RunError("no such row")

    drawn = [
        StripFigure(str(at), "t", lambda page: spec("No number here. n = 3 traces. More."), "q", f"{at}")
        for at in range(5)
    ]
    record = [StripFigure("a", "t", broken), StripFigure("b", "t", lambda page: None), *drawn]
    findings = [
        {"question": "other", "text": "0"},
        {"question": "q", "text": "of 1"},
        {"question": "q", "text": "of 0"},
    ]
    group = strip_group(record, None, findings)
    assert [panel.name for panel in group.panels] == ["0", "1", "2", "3"]
    assert len(group.panels) == MOST
    assert [panel.reading for panel in group.panels[:2]] == ["of 0", "of 1"]
    assert group.panels[2].reading == "n = 3 traces.", "without a finding, the caption's first sentence with a number"
    assert all("height" not in panel.variants[""]["layout"] for panel in group.panels)
