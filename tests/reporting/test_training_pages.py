"""The page of a training run: one file that acts on nothing, says what is absent, and judges changes by intervals."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from html_pages import check_outline, figures_in, read
from synthetic_probe_runs import write_run
from synthetic_training_runs import hostile_run, write_training_run

from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.reporting.pages.training_controls import changes
from safekey_interp.reporting.pages.training_facts import chance_of_head
from safekey_interp.reporting.pages.training_page_figures import MOST_SNAPSHOTS, few_snapshots, terms_of
from safekey_interp.reporting.report_file import write_report

SMALL = {"n_steps": 80, "evaluate_every": 20, "probe_every": 20, "auxiliary_from": 48, "n_layers": 4}


def words_of(folder) -> str:
    return "".join(read(write_report(folder))[1].words)


def edited(folder, **fields):
    """The run with other fields in run.json."""
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_training_run(tmp_path_factory.mktemp("run"), **SMALL)


@pytest.fixture(scope="module")
def page(run):
    return write_report(run)


def test_the_kind_of_a_run_decides_its_page(tmp_path, page):
    assert "What training changed in" in "".join(read(page)[1].words)
    probe = write_run(tmp_path, n_traces=24, n_layers=2, n_heads=2, n_examples=1)
    assert "What training changed in" not in words_of(probe)


def test_the_page_is_one_file_that_loads_nothing_and_runs_two_scripts(page):
    text, outline = read(page)
    assert page.stat().st_size < 8_000_000
    for tag, attributes in outline.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert attributes.get(name, "#")[:1] == "#" or attributes[name] == "data:,", (tag, attributes)
    assert len(re.findall(r"<script>(.*?)</script>", text, re.S)) == 2


def test_the_questions_come_in_their_order_and_no_name_comes_twice(page):
    _, outline = read(page)
    check_outline(outline)
    sections = [a["id"] for tag, a in outline.tags if tag == "section"]
    assert sections == ["summary", "trained", "fell", "moved", "chance", "reading", "provenance"]


def test_texts_from_data_stay_texts(tmp_path):
    text, outline = read(write_report(hostile_run(tmp_path, **SMALL)))
    assert "<script>alert" not in text
    assert "<img" not in text
    assert not [a for _, a in outline.tags for name in a if name.startswith("on")]
    assert "<script>alert(1)</script>" in "".join(outline.words)


def test_where_the_files_lay_is_not_on_the_page(page):
    text, _ = read(page)
    assert "WJ-SafeKey recipes.jsonl" in text
    assert "/data/of a user" not in text


def test_data_and_what_was_left_out_are_told_with_their_reasons(page):
    words = "".join(read(page)[1].words)
    assert "Trained on 1,021 traces of 702 prompts: 640 harmful, 362 benign, 19 without a label." in words
    assert "1,150 traces were read; 16 were left out." in words
    assert "no sentence after the understanding13trace 17" in words


def test_every_plot_says_its_n(page):
    book = figures_in(page)

    def whole(value):
        if isinstance(value, dict):
            return whole(book["shared"][value["$"]]) if "$" in value else {k: whole(v) for k, v in value.items()}
        return value

    optimizer_and_sum = {"learning-rate", "grad-norm", "loss-total"}
    for name in set(book["variants"]) - optimizer_and_sum:
        for figure in book["variants"][name].values():
            assert "n = " in whole(figure)["layout"]["meta"]["caption"], name


@pytest.mark.parametrize("missing", ["steps", "held_out", "aha", "attention_by_layer", "separability"])
@pytest.mark.parametrize("empties", [False, True])
def test_what_the_folder_lacks_is_said_in_a_line(tmp_path, run, missing, empties):
    for file in run.iterdir():
        if file.suffix == ".parquet" and file.stem == missing:
            if empties:
                pd.read_parquet(file).head(0).to_parquet(tmp_path / file.name)
        elif file.name != "report.html":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    words = words_of(tmp_path)
    if missing == "steps":
        assert "The optimizer" not in words, "the held-out losses are there still"
    else:
        assert f"Not shown: this run folder has no {missing}.parquet" in words


def test_a_run_without_looks_and_held_out_prompts_still_tells_its_losses(tmp_path):
    words = words_of(write_training_run(tmp_path, **SMALL | {"probe_every": None}, held_out=False))
    assert "Language modelling, in training alone: from" in words
    assert "Nothing to compare: this run has no two snapshots with the probes." in words


def test_a_folder_with_nothing_but_its_manifest_still_makes_a_page(tmp_path):
    (tmp_path / "run.json").write_text(
        '{"safekey_interp": "0", "status": "running", "kind": "training"}', encoding="utf-8"
    )
    words = words_of(tmp_path)
    assert "This run is not complete" in words
    assert "run.json has no data_report" in words


@pytest.mark.parametrize(
    ("begins", "told", "at"),
    [
        (48, "The auxiliary losses begin to count in step 49, at the dashed line.", [48]),
        (0, "The auxiliary losses count from the first step.", []),
        (None, "Language modelling alone was trained", []),
    ],
)
def test_the_page_says_when_the_auxiliary_losses_begin(tmp_path, begins, told, at):
    page = write_report(write_training_run(tmp_path, **SMALL | {"auxiliary_from": begins}))
    assert told in "".join(read(page)[1].words)
    drawn = re.findall(r'"x0":(\d+),"x1":\d+,[^{}]*"name":"auxiliary losses begin"', page.read_text(encoding="utf-8"))
    assert sorted(set(map(int, drawn))) == at


def test_only_terms_with_a_weight_are_terms():
    assert terms_of({"head_weight": 0.2, "query_mask_weight": 0.2, "key_weight": 0.0}) == [
        *("total", "lm", "head", "query_mask"),
    ]
    assert terms_of({"head_weight": 0, "query_mask_weight": 0, "key_weight": 0.2}) == ["total", "lm", "key"]
    assert terms_of({"head_weight": 0, "query_mask_weight": 0, "key_weight": 0}) == ["lm"]


def test_a_term_without_a_weight_is_not_on_the_page(tmp_path, page):
    assert "loss-query_mask-plot" in page.read_text(encoding="utf-8")
    other = write_report(write_training_run(tmp_path, **SMALL, key_weight=0.2, query_mask_weight=0.0))
    text = other.read_text(encoding="utf-8")
    assert "loss-key-plot" in text
    assert "loss-query_mask-plot" not in text


def test_a_control_run_says_so(tmp_path):
    folder = write_training_run(tmp_path, **SMALL, shuffled_labels=True)
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))["data_report"]
    words = words_of(edited(folder, data_report=report | {"n_labels_shuffled": 401}))
    assert "This is a control run" in words
    assert "Shuffling changed the label of 401 traces" in words


def test_a_guess_from_the_shares_is_their_entropy():
    even = {"data_report": {"held_out": {"harmful": 5, "benign": 5}}}
    assert chance_of_head(even) == pytest.approx(np.log(2))
    uneven = {"data_report": {"held_out": {"harmful": 30, "benign": 10}}}
    assert chance_of_head(uneven) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert chance_of_head({"data_report": {"held_out": {"harmful": 5, "benign": 0}}}) is None
    assert chance_of_head({}) is None


def aha_table(first: float, last: float, *, n_groups: int = 20) -> pd.DataFrame:
    rows = [
        {"step": step, "subset": "harmful", "measure": "difference", "value": value, "low": value - 0.1}
        | {"high": value + 0.1, "n": 2 * n_groups, "n_groups": n_groups}
        for step, value in ((0, first), (40, -9.0), (80, last))
    ]
    return pd.DataFrame(rows)


def test_a_change_counts_when_the_intervals_of_both_looks_do_not_touch():
    for last, lies in ((0.5, "above"), (0.15, ""), (-0.5, "below")):
        [row] = changes(aha_table(0.0, last), None, None).aha
        assert row.measured.value == last
        assert row.controls["before training"].value == 0.0
        assert row.measured.lies(row.controls["before training"]) == lies


def test_few_prompts_have_no_interval_and_one_look_has_no_change():
    [row] = changes(aha_table(0.0, 5.0, n_groups=3), None, None).aha
    assert not row.measured.is_sure
    assert row.measured.lies(row.controls["before training"]) == ""
    table = aha_table(0.0, 5.0)
    assert changes(table[table["step"] == 0], None, None) == ([], [], [])


def test_both_looks_of_a_probe_are_of_one_layer(run):
    separability = pd.read_parquet(run / "separability.parquet")
    for row in changes(None, None, separability).probes:
        position = {"Mean over U": "understanding", "Decision": "decision", "Mean over K": "key_sentence"}[row.name]
        mine = separability[(separability["position"] == position) & (separability["method"] == "logistic")]
        both = mine.pivot_table(index=["layer", "site"], columns="step", values="auroc")
        place = (both[0] + both[80]).idxmax()
        assert row.measured.value == both.loc[place, 80]
        assert row.controls["before training"].value == both.loc[place, 0]
        assert list(row.controls) == ["before training", "shuffled labels", "words alone"]


def test_many_looks_are_thinned_to_their_ends_and_said():
    table = pd.DataFrame({"step": np.repeat(np.arange(0, 500, 5), 3)})
    kept, note = few_snapshots(table, "aha.parquet")
    assert kept["step"].nunique() == MOST_SNAPSHOTS
    assert {0, 495} <= set(kept["step"])
    assert "48 of 100 snapshots; the others are in aha.parquet" in note
    same, nothing = few_snapshots(table[table["step"] < 100], "aha.parquet")
    assert len(same) == 60
    assert nothing == ""


@pytest.mark.slow
def test_a_run_as_it_is_trained_has_all_that_the_page_shows(tmp_path):
    pytest.importorskip("accelerate")
    pytest.importorskip("peft")
    from safekey_interp.training.config import TrainingConfig
    from safekey_interp.training.training_run import train

    shipped = list(organism.read_shipped())
    config = TrainingConfig(
        out=str(tmp_path / "run"),
        max_steps=2,
        epochs=2,
        auxiliary_epochs=1,
        batch_size=8,
        micro_batch_size=8,
        held_out=0.5,
        probe_every=1,
        evaluate_every=1,
        log_every=1,
    )
    done = train(load("organism:base"), shipped[:: len(shipped) // 80][:80], config)
    words = words_of(done.path)
    assert "Not shown" not in words
    assert "unknown" not in words
    assert "After 2 steps, the held-out language-modelling loss went from" in words
    assert re.search(r"(\d+|None) of \d+ numbers of the last snapshot", words)
    assert "The auxiliary losses begin to count in step 2, at the dashed line." in words


def test_controls_of_own_queries_have_a_row_for_each_pair_and_position(run):
    own = {"key_sentence": "last(warning)", "decision": "warning, typed", "prompt": "question", "context": "warning"}
    by_layer = pd.read_parquet(run / "attention_by_layer.parquet")
    by_layer = by_layer[by_layer["from_span"].isin(own) & by_layer["to_span"].isin(["prompt", "template"])]
    separability = pd.read_parquet(run / "separability.parquet")
    built_in, mine = (
        changes(None, by_layer.replace(names), separability.replace({"position": names})) for names in ({}, own)
    )
    assert [row.name for row in mine.attention] == [
        f"{query} on {key}" for query in ("last(warning)", "warning, typed") for key in ("question", "template")
    ]
    of_prompt = [row for row in mine.attention if row.name.endswith("question")]
    assert [row.measured for row in of_prompt] == [row.measured for row in built_in.attention]
    assert {row.name for row in mine.probes} & set(own.values())
    assert [row.measured for row in mine.probes] != []
    assert len(mine.probes) == len(built_in.probes)
