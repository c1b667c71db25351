from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from colour_vision import VISION, apart, contrast
from synthetic_probe_runs import CONDITIONS, HOSTILE, write_run

from safekey_interp.errors import RunError
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.attention_figures import largest_lift
from safekey_interp.reporting.figures.figure_style import AUROC_SCALE, LIFT_SCALE, PALETTE, dark_tones


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run"), n_traces=24, n_layers=6, n_heads=4, n_examples=1)
    return {file.stem: pd.read_parquet(file) for file in folder.glob("*.parquet")}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_tones_that_stand_for_something_keep_apart_for_every_eye(theme, vision):
    together = [("prompt", "understanding", "key_sentence", "template"), ("harmful", "benign")]
    for roles in together:
        for one, other in itertools.combinations(roles, 2):
            tones = [getattr(PALETTE[role], theme) for role in (one, other)]
            assert apart(*tones, vision) > 10, (one, other)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_reaches_contrast_aa_and_lines_three_to_one(theme):
    tone = {role: getattr(pair, theme) for role, pair in PALETTE.items()}
    for role in ("ink", "muted", "prompt", "understanding", "key_sentence", "template"):
        assert contrast(tone[role], tone["surface"]) >= 4.5, role
    for role in ("harmful", "benign", "control"):
        assert contrast(tone[role], tone["surface"]) >= 3, role
    # Tokens stay readable at full attention.
    assert contrast(tone["ink"], tone["highlight"]) >= 4.5
    assert contrast(tone["muted"], tone["surface"]) >= 4.5


def test_every_colour_has_one_dark_partner_and_scales_have_a_neutral_middle():
    light = [pair.light for pair in PALETTE.values()] + [tone.light for _, tone in (*LIFT_SCALE, *AUROC_SCALE)]
    assert len(set(light)) == len(light)
    assert set(light) <= set(dark_tones())
    assert dict(LIFT_SCALE)[0.5].light == "#f4f4f2"


def test_the_heat_map_is_log2_of_mass_over_its_control(tables):
    by_head = tables["attention_by_head"]
    for against in ("uniform", "random"):
        figure = figures.lift_heatmap(by_head, to_span="understanding", against=against, limit=50)
        row = by_head[
            (by_head["subset"] == "all")
            & (by_head["from_span"] == "key_sentence")
            & (by_head["to_span"] == "understanding")
            & (by_head["layer"] == 5)
            & (by_head["head"] == 2)
        ].iloc[0]
        heat = figure.data[0]
        assert heat.z[2][5] == pytest.approx(np.log2(row["mass"] / row[f"{against}_mass"]), abs=0.01)
        assert (heat.zmin, heat.zmax) == (-50, 50)
        assert heat.y[2] == 2
        assert heat.x[5] == 5


def test_a_layer_without_pattern_stays_blank_and_zero_mass_takes_the_end(tables):
    by_head = tables["attention_by_head"].copy()
    chosen = (by_head["from_span"] == "key_sentence") & (by_head["to_span"] == "prompt") & (by_head["subset"] == "all")
    by_head.loc[chosen & (by_head["layer"] == 1), "mass"] = np.nan
    by_head.loc[chosen & (by_head["layer"] == 2), "mass"] = 0.0
    z = figures.lift_heatmap(by_head, limit=3).data[0].z
    assert all(row[1] is None for row in z)
    assert all(row[2] == -3 for row in z)
    assert 1 <= largest_lift(by_head) <= 4


def test_mass_stands_beside_its_controls_with_n_and_interval(tables):
    by_layer = tables["attention_by_layer"]
    figure = figures.mass_by_layer(by_layer, to_span="understanding")
    names = [trace.name for trace in figure.data if trace.name]
    assert names == ["measured", "distance-matched baseline", "random key sets", "uniform baseline"]
    assert "n = 24 traces in 12 groups" in figure.layout.meta["caption"]
    lift = figures.mass_by_layer(by_layer, measure="lift")
    assert lift.layout.yaxis.type == "log"
    assert [trace.name for trace in lift.data if trace.name] == ["over the uniform baseline", "over random key sets"]


def test_separability_shows_probe_direction_null_and_words_and_the_final_norm_last(tables):
    separability = tables["separability"]
    figure = figures.auroc_by_layer(separability, position="decision")
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert list(lines) == ["shuffled labels", "words alone", "difference of means", "logistic probe"]
    assert list(lines["logistic probe"].x) == [0, 1, 2, 3, 4, 5, 6]
    assert figure.layout.xaxis.ticktext[-1] == "norm"
    rates = figures.auroc_by_layer(separability, position="decision", measure="tpr_at_1fpr")
    assert "shuffled labels" not in [trace.name for trace in rates.data]


def test_the_map_never_names_a_position_after_the_fact_as_best(tables):
    caption = figures.separability_map(tables["separability"]).layout.meta["caption"]
    assert "Highest before K: decision" in caption
    assert "After the fact" in caption


def test_transfer_shows_home_null_and_words_beside_the_pair(tables):
    transfer = tables["transfer"]
    plain, wrapped = CONDITIONS
    figure = figures.transfer_by_layer(transfer, fitted_on=plain, tested_on=wrapped)
    lines = {trace.name: trace for trace in figure.data if trace.name}
    shown = wrapped.replace("<", "&lt;").replace(">", "&gt;")
    assert list(lines) == ["shuffled labels", "words alone", f"fitted on {shown} itself", f"fitted on {plain}"]
    assert list(lines[f"fitted on {plain}"].x) == [0, 1, 2, 3, 4, 5, 6]
    assert "Fitted on n = 12, tested on n = 12 in 6 groups" in figure.layout.meta["caption"]
    flipped = figures.transfer_by_layer(transfer, fitted_on=wrapped, tested_on=plain)
    assert flipped.layout.yaxis.range[0] < min(value for trace in flipped.data for value in trace.y)
    home = figures.transfer_by_layer(transfer, fitted_on=plain, tested_on=plain)
    assert [trace.name for trace in home.data if trace.name] == ["shuffled labels", "words alone", f"fitted on {plain}"]


def test_the_transfer_map_has_a_row_for_every_pair_and_the_words_first(tables):
    transfer = tables["transfer"]
    heat = figures.transfer_map(transfer).data[0]
    pairs = [f"{fitted} → {tested}" for fitted in CONDITIONS for tested in CONDITIONS]
    assert [name.replace("&lt;", "<").replace("&gt;", ">") for name in heat.y] == pairs
    words = transfer[(transfer["position"] == "decision") & (transfer["method"] == "text_tfidf")]
    assert [row[0] for row in heat.z] == pytest.approx(words["auroc"].tolist(), abs=1e-4)
    assert heat.texttemplate, "few layers: the numbers are printed"
    caption = figures.transfer_map(transfer).layout.meta["caption"]
    assert "highest: plain → wrapped" in caption
    assert "lowest: wrapped" in caption


def test_hover_texts_are_escaped_and_short(tables):
    coordinates = tables["coordinates"]
    ids = coordinates["trace_id"].unique()
    figure = figures.lda_scatter(coordinates, position="decision", layer=3, texts=dict.fromkeys(ids, HOSTILE * 20))
    texts = [text for trace in figure.data for text in trace.text]
    assert texts
    assert not any("<script" in text or "<img" in text or "</script" in text for text in texts)
    assert any("&lt;script&gt;" in text for text in texts)
    assert max(map(len, texts)) < 600
    assert {trace.marker.symbol for trace in figure.data} == {"diamond", "circle-open"}


def test_a_selection_that_is_not_there_is_said_with_what_is(tables):
    with pytest.raises(RunError, match="there are: aha:safe, aha:unsafe, all, benign"):
        figures.lift_heatmap(tables["attention_by_head"], subset="nobody")
    with pytest.raises(RunError, match="position 'nowhere'"):
        figures.auroc_by_layer(tables["separability"], position="nowhere")


def test_figure_and_spec_say_the_same_and_plotly_accepts_it(tables):
    drawn = [
        (figures.lift_heatmap, (tables["attention_by_head"],), {}),
        (figures.mass_by_layer, (tables["attention_by_layer"],), {}),
        (figures.separability_map, (tables["separability"],), {}),
        (figures.auroc_by_layer, (tables["separability"],), {"position": "prompt"}),
        (figures.transfer_map, (tables["transfer"],), {}),
        (figures.transfer_by_layer, (tables["transfer"],), {"fitted_on": "plain", "tested_on": "plain"}),
        (figures.lda_scatter, (tables["coordinates"],), {"position": "prompt", "layer": 5, "site": "ln_final"}),
    ]
    for draw, args, kwargs in drawn:
        figure, spec = json.loads(draw(*args, **kwargs).to_json()), draw.spec(*args, **kwargs)
        assert figure["data"] == json.loads(json.dumps(spec["data"]))
        assert draw.__doc__


def test_all_missing_numbers_still_make_a_figure(tables):
    by_layer = tables["attention_by_layer"].assign(value=np.nan, low=np.nan, high=np.nan)
    assert "No layer has a number" in figures.mass_by_layer(by_layer).layout.meta["caption"]
    separability = tables["separability"].assign(auroc=np.nan, null_auroc_low=np.nan)
    assert "No layer has a number" in figures.separability_map(separability).layout.meta["caption"]
    assert "No layer has a number" in figures.auroc_by_layer(separability, position="decision").layout.meta["caption"]
    by_head = tables["attention_by_head"].assign(mass=np.nan)
    assert "No head has a number" in figures.lift_heatmap(by_head).layout.meta["caption"]
