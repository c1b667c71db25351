"""The figures of a training run show its tables' numbers, each beside its controls."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from synthetic_training_runs import write_training_run

from safekey_interp.errors import RunError
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.attention_snapshot_figures import over_layers


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = write_training_run(tmp_path_factory.mktemp("run"), n_layers=6)
    return {file.stem: pd.read_parquet(file) for file in folder.glob("*.parquet")}


def named(figure):
    return {trace.name: trace for trace in figure.data if trace.name}


def lines_at(figure):
    return [shape.x0 for shape in figure.layout.shapes if shape.name == "auxiliary losses begin"]


def test_a_term_is_drawn_as_the_tables_have_it(tables):
    lines = named(figures.loss_by_step(tables["steps"], tables["held_out"], term="query_mask"))
    assert list(lines["held out"].x) == tables["held_out"]["step"].tolist()
    assert list(lines["held out"].y) == pytest.approx(tables["held_out"]["query_mask"], abs=1e-4)
    drawn = [value for value in lines["training"].y if value is not None]
    assert drawn == pytest.approx(tables["steps"]["query_mask"].dropna(), abs=1e-4)
    assert lines["training"].y[0] is None, "before the auxiliary losses begin there is no number"


def test_each_term_says_how_many_it_is_a_mean_over(tables):
    wanted = {"lm": "41,212 response tokens", "head": "111 traces", "query_mask": "1,044 tokens of K"}
    for term, n in wanted.items():
        caption = figures.loss_by_step(tables["steps"], tables["held_out"], term=term).layout.meta["caption"]
        assert f"n = {n}." in caption


def test_the_line_stands_where_the_auxiliary_losses_begin_and_not_past_the_end(tables):
    draw = figures.loss_by_step
    assert lines_at(draw(tables["steps"], tables["held_out"], auxiliary_from=240)) == [240]
    assert lines_at(draw(tables["steps"], tables["held_out"], auxiliary_from=401)) == []
    assert lines_at(draw(tables["steps"], tables["held_out"])) == []


def test_without_a_legend_the_caption_says_what_the_line_is(tables):
    figure = figures.lift_by_step(tables["attention_by_layer"], auxiliary_from=240)
    assert lines_at(figure) == [240]
    assert figure.layout.meta["caption"].endswith("Dashed line: the auxiliary losses begin.")
    assert not figure.layout.annotations


def test_many_rows_become_means_of_like_many():
    n = 1_200
    steps = pd.DataFrame({"step": np.arange(1, n + 1), "lm": np.arange(n, dtype=float), "tokens": 7})
    figure = figures.loss_by_step(steps, None, term="lm")
    [line] = named(figure).values()
    assert len(line.x) == 400
    assert list(line.x[:2]) == [2, 5]
    assert list(line.y[:2]) == [1, 4]
    assert "mean of 3 rows" in figure.layout.meta["caption"]


def test_a_term_without_a_number_is_an_error(tables):
    with pytest.raises(RunError, match="no row with a number for 'key'"):
        figures.loss_by_step(tables["steps"], tables["held_out"], term="key")
    with pytest.raises(RunError, match="grad_norm"):
        figures.optimizer_by_step(tables["steps"].assign(grad_norm=np.nan))


def test_key_sentences_have_a_line_for_each_label_with_n_and_interval(tables):
    aha = tables["aha"]
    figure = figures.aha_by_step(aha)
    lines = named(figure)
    assert list(lines) == ["harmful prompts", "benign prompts"]
    mine = aha[(aha["subset"] == "harmful") & (aha["measure"] == "difference")]
    assert list(lines["harmful prompts"].y) == pytest.approx(mine["value"], abs=1e-4)
    bands = np.array(lines["harmful prompts"].customdata, dtype=float)
    assert bands == pytest.approx(mine[["low", "high"]].to_numpy(), abs=1e-4)
    assert "n = 30 traces in 15 groups" in figure.layout.meta["caption"]


def test_the_difference_is_that_of_both_by_themselves(tables):
    both, apart = (named(draw(tables["aha"])) for draw in (figures.aha_by_step, figures.aha_apart))
    difference = np.array(apart["safe key sentences"].y) - np.array(apart["compliant key sentences"].y)
    assert difference == pytest.approx(np.array(both["harmful prompts"].y), abs=2e-4)


def test_all_layers_together_is_the_ratio_of_sums(tables):
    table = tables["attention_by_layer"]
    pair = table[(table["subset"] == "all") & (table["from_span"] == "decision") & (table["to_span"] == "prompt")]
    found = over_layers(pair).set_index("step")
    sums = pair.groupby(["measure", "step"])["value"].sum()
    wanted = sums["mass"] / sums["matched_mass"]
    assert found["value"].to_numpy() == pytest.approx(wanted.loc[found.index].to_numpy())
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()
    drawn = named(figures.lift_over_steps(table, from_span="decision"))
    assert list(drawn["on X"].y) == pytest.approx(found["value"], abs=1e-4)


def test_a_layer_without_a_number_leaves_the_sums_and_no_layer_leaves_nothing(tables):
    table = tables["attention_by_layer"]
    pair = table[(table["subset"] == "all") & (table["from_span"] == "decision") & (table["to_span"] == "prompt")]
    blank = pair.assign(value=pair["value"].where(pair["layer"] != 2))
    assert over_layers(blank)["value"].tolist() == pytest.approx(
        over_layers(pair[pair["layer"] != 2])["value"].tolist()
    )
    assert over_layers(pair.assign(value=np.nan)).empty


def test_the_map_is_log2_of_attention_over_distance_alone(tables):
    table = tables["attention_by_layer"]
    heat = figures.lift_by_step(table, to_span="prompt", limit=50).data[0]
    row = table[
        (table["subset"] == "all")
        & (table["from_span"] == "decision")
        & (table["to_span"] == "prompt")
        & (table["measure"] == "lift_over_matched")
        & (table["layer"] == 4)
        & (table["step"] == 80)
    ].iloc[0]
    assert heat.z[list(heat.y).index("4")][list(heat.x).index(80)] == pytest.approx(np.log2(row["value"]), abs=0.01)


def test_before_and_after_are_the_first_and_the_last_look(tables):
    lines = named(figures.lift_before_after(tables["attention_by_layer"]))
    assert list(lines) == ["before training", "step 400"]
    probes = named(figures.auroc_before_after(tables["separability"]))
    assert list(probes) == ["shuffled labels", "words alone", "before training", "step 400"]
    only = tables["separability"][tables["separability"]["step"] == 40]
    assert list(named(figures.auroc_before_after(only))) == ["shuffled labels", "words alone", "step 40"]


def test_the_map_of_probes_has_its_controls_below_the_layers(tables):
    separability = tables["separability"]
    heat = figures.auroc_by_step(separability).data[0]
    assert list(heat.y) == ["shuffled", "words", "0", "1", "2", "3", "4", "5", "norm"]
    words = separability[(separability["position"] == "decision") & (separability["method"] == "text_tfidf")]
    assert list(heat.z[1]) == pytest.approx(words["auroc"], abs=1e-3)
    assert set(heat.z[0]) == {0.65}
    bare = separability[separability["method"] != "text_tfidf"].assign(null_auroc_high=np.nan)
    assert list(figures.auroc_by_step(bare).data[0].y) == ["0", "1", "2", "3", "4", "5", "norm"]


def test_figure_and_spec_say_the_same_and_plotly_accepts_it(tables):
    drawn = [
        (figures.loss_by_step, (tables["steps"], tables["held_out"]), {"term": "head", "chance": 0.66}),
        (figures.optimizer_by_step, (tables["steps"],), {"column": "learning_rate"}),
        (figures.aha_by_step, (tables["aha"],), {"measure": "safe"}),
        (figures.aha_apart, (tables["aha"],), {"subset": "benign"}),
        (figures.lift_by_step, (tables["attention_by_layer"],), {}),
        (figures.lift_over_steps, (tables["attention_by_layer"],), {}),
        (figures.lift_before_after, (tables["attention_by_layer"],), {"subset": "benign"}),
        (figures.auroc_by_step, (tables["separability"],), {}),
        (figures.auroc_before_after, (tables["separability"],), {"position": "understanding"}),
    ]
    for draw, args, chosen in drawn:
        kwargs = chosen | ({} if draw.__name__.endswith("after") else {"auxiliary_from": 240})
        figure, spec = json.loads(draw(*args, **kwargs).to_json()), draw.spec(*args, **kwargs)
        assert figure["data"] == json.loads(json.dumps(spec["data"]))
        assert spec["layout"]["meta"]["caption"]
        assert draw.__doc__


@pytest.mark.parametrize(
    ("draw", "table", "wanted"),
    [
        (figures.aha_apart, "aha", {"subset": "nobody"}),
        (figures.aha_by_step, "aha", {"subsets": ["nobody"]}),
        (figures.lift_by_step, "attention_by_layer", {"subset": "nobody"}),
        (figures.auroc_by_step, "separability", {"position": "nobody"}),
    ],
)
def test_a_selection_that_is_not_there_is_said(tables, draw, table, wanted):
    with pytest.raises(RunError, match="nobody"):
        draw(tables[table], **wanted)
