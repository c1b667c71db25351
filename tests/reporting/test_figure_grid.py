"""Figures of several plots, and the plots that only they and notebooks hold."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_probe_runs import write_run

from safekey_interp.data.trace import TokenSpan
from safekey_interp.errors import RunError
from safekey_interp.models.encoding import Encoding, TokenSet
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel, Row
from safekey_interp.reporting.figures.subset_figures import Kind


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run"), n_traces=24, n_layers=4, n_heads=3, n_examples=1)
    return {file.stem: pd.read_parquet(file) for file in folder.glob("*.parquet")}


@pytest.fixture(scope="module")
def rows(tables):
    lines = [
        Panel(title=to, spec=figures.mass_by_layer.spec(tables["attention_by_layer"], to_span=to))
        for to in ("prompt", "understanding", "template")
    ]
    heads = [
        Panel(title=to, spec=figures.mass_heatmap.spec(tables["attention_by_head"], to_span=to, limit=1))
        for to in ("prompt", "understanding")
    ]
    return [
        Row(heading="Lines", panels=lines[:2], order=("uniform baseline",)),
        Row(panels=lines[2:], columns=2),
        Row(heading="Heads", panels=heads, scale="mass", one_y=False),
    ]


def test_panels_lie_inside_the_figure_and_apart(rows):
    layout = figures.grid.spec(rows, caption="")["layout"]
    boxes = [(*layout[f"xaxis{end}"]["domain"], *layout[f"yaxis{end}"]["domain"]) for end in ("", "2", "3", "4", "5")]
    assert all(0 <= low < high <= 1 for left, right, down, up in boxes for low, high in ((left, right), (down, up)))
    for one, other in itertools.combinations(boxes, 2):
        beside = one[1] <= other[0] or other[1] <= one[0]
        above = one[3] <= other[2] or other[3] <= one[2]
        assert beside or above
    widths = [right - left for left, right, *_ in boxes]
    assert widths[2] == pytest.approx(widths[0]), "a panel alone is as wide as those above it"


def test_every_row_names_each_series_once_and_a_click_hides_it_in_all(rows):
    data = figures.grid.spec(rows, caption="")["data"]
    shown = [(trace["name"], trace["line"]["color"]) for trace in data if trace.get("showlegend")]
    assert len(shown) == len(set(shown))
    assert {name for name, _ in shown} == {
        "measured",
        "distance-matched baseline",
        "random key sets",
        "uniform baseline",
    }
    assert {trace["legend"] for trace in data if trace["type"] == "scatter"} == {"legend"}
    groups = {trace["name"]: trace["legendgroup"] for trace in data if "name" in trace}
    assert len(set(groups.values())) == len(groups)
    assert all("legendgroup" in trace for trace in data if trace["type"] == "scatter")
    ranks = {trace["name"]: trace["legendrank"] for trace in data if trace.get("showlegend")}
    assert min(ranks, key=lambda name: ranks[name]) == "uniform baseline"


def test_letters_run_in_reading_order_and_one_scale_stands_for_a_row(rows):
    spec = figures.grid.spec(rows, caption="said")
    texts = [note["text"] for note in spec["layout"]["annotations"]]
    assert [text[3:6] for text in texts if text.startswith("<b>(")] == ["(a)", "(b)", "(c)", "(d)", "(e)"]
    assert [trace["showscale"] for trace in spec["data"] if trace["type"] == "heatmap"] == [False, True]
    assert spec["layout"]["meta"]["caption"] == "said"
    assert "matches" in spec["layout"]["yaxis2"]
    assert "matches" not in spec["layout"]["yaxis5"]


def test_plotly_accepts_a_grid_and_panels_keep_their_numbers(rows):
    figure = json.loads(figures.grid(rows, caption="").to_json())
    drawn = [trace["y"] for trace in figure["data"] if trace.get("name") == "measured"]
    assert drawn == [
        next(trace["y"] for trace in panel.spec["data"] if trace.get("name") == "measured")
        for row in rows[:2]
        for panel in row.panels
    ]


def test_the_heat_map_of_mass_is_the_mass(tables):
    by_head = tables["attention_by_head"]
    heat = figures.mass_heatmap(by_head, to_span="understanding").data[0]
    row = by_head[
        (by_head["subset"] == "all")
        & (by_head["from_span"] == "key_sentence")
        & (by_head["to_span"] == "understanding")
        & (by_head["layer"] == 3)
        & (by_head["head"] == 1)
    ].iloc[0]
    assert heat.z[1][3] == pytest.approx(row["mass"], abs=6e-4)
    assert heat.zmin == 0
    nothing = by_head.assign(mass=np.nan)
    assert "No head has a number" in figures.mass_heatmap(nothing).layout.meta["caption"]


def test_kinds_of_traces_each_have_their_line_over_their_own_control(tables):
    by_layer = tables["attention_by_layer"]
    kinds = [Kind("benign", "benign", "benign", "solid"), Kind("harmful", "harmful", "harmful", "dash")]
    figure = figures.lift_by_kind(by_layer, kinds=kinds, against="random")
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert list(named) == ["benign", "harmful"]
    rows = by_layer[
        (by_layer["subset"] == "harmful")
        & (by_layer["from_span"] == "key_sentence")
        & (by_layer["to_span"] == "prompt")
        & (by_layer["measure"] == "lift_over_random")
    ]
    np.testing.assert_allclose(named["harmful"].y, rows["value"], atol=6e-5)
    assert figure.layout.yaxis.type == "log"
    with pytest.raises(RunError, match="subset 'nobody'"):
        figures.lift_by_kind(by_layer, kinds=[Kind("nobody", "nobody", "harmful", "solid")], against="random")


def test_bars_are_the_mean_weight_and_the_line_is_even_attention():
    spans = {
        "prompt": TokenSpan(1, 3),
        "template": TokenSet((TokenSpan(3, 4),)),
        "first_token": TokenSpan(0, 1),
        "understanding": TokenSpan(4, 6),
        "key_sentence": TokenSpan(6, 8),
        "decision": TokenSpan(5, 6),
    }
    text = "<ab>cdef"
    encoding = Encoding(
        trace_id="one", text=text, input_ids=torch.arange(8), offsets=tuple((i, i + 1) for i in range(8)),
        response_start=4, spans=spans, straddling=(),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    weights = pd.DataFrame(
        [
            {"layer": layer, "head": head, "from_span": "key_sentence", "position": p, "token": text[p], "weight": w}
            for layer, head in itertools.product(range(2), range(3))
            for p, w in enumerate(rng.dirichlet(np.ones(8)))
        ]
    )
    figure = figures.attention_on_tokens(weights, encoding)
    bars = {x: y for trace in figure.data if trace.type == "bar" for x, y in zip(trace.x, trace.y, strict=True)}
    wanted = weights[weights["layer"] == 1].groupby("position")["weight"].mean()
    assert [bars[p] for p in range(8)] == pytest.approx(list(wanted), abs=6e-5)
    [even] = [trace for trace in figure.data if trace.name == "uniform baseline"]
    assert sum(even.y) == pytest.approx(1, abs=1e-3)
    assert even.y[7] == pytest.approx(1 / 8 / 2, abs=6e-5), "the last token is seen from K's last row alone"
    texts = [text for trace in figure.data if trace.type == "bar" for text in trace.text]
    assert "&lt;" in texts
    with pytest.raises(RunError, match="from_span 'decision'"):
        figures.attention_on_tokens(weights, encoding, from_span="decision")
