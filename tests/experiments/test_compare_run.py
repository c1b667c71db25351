"""Models on the same prompts: shares, differences and intervals from the models' own runs, and a kill loses nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_models import shipped, tiny_model

from safekey_interp.errors import InputError, ModelError, RunError
from safekey_interp.evaluation.paired_tests import compare_models
from safekey_interp.experiments.compare_measures import paired
from safekey_interp.experiments.compare_probes import knowledge_of
from safekey_interp.experiments.compare_run import run_comparison
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.models.model import from_hf, load
from safekey_interp.models.model_list import named_models
from safekey_interp.models.organism.outcome import read_response
from safekey_interp.models.organism.vocabulary import Pair
from safekey_interp.runs.run_folder import Run, open_run

BASE, SFT = "organism:base", "organism:sft"
CORE = ("outcomes.parquet", "comparison.parquet", "side_by_side.json", "findings.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_comparison([BASE, SFT], shipped(48), out=tmp_path_factory.mktemp("compared") / "run")


def rows(run: Run, **wanted: Any) -> Any:
    table: Any = run.comparison
    assert table is not None
    for name, value in wanted.items():
        table = table[table[name].isna() if value is None else (table[name] == value).fillna(False)]
    return table


def one(run: Run, **wanted: Any) -> Any:
    found = rows(run, **wanted)
    assert len(found) == 1, found
    return found.iloc[0]


def test_verdicts_are_the_languages_own_outcomes(made: Run) -> None:
    outcomes = made.outcomes
    assert outcomes is not None
    assert len(outcomes) == 96
    pairs = {trace.trace_id: Pair(trace.meta["verb"], trace.meta["noun"]) for trace in shipped(48)}
    for name, folder in ((BASE, "organism-base"), (SFT, "organism-sft")):
        lines = (made.path / "models" / folder / "generated.jsonl").read_text().splitlines()
        said = {row["trace_id"]: row["response"] for row in map(json.loads, lines)}
        verdict = outcomes[outcomes["model"] == name].set_index("trace_id")["judged"]
        expected = {"refused": "full_refusal", "complied": "full_compliance"}
        for trace_id, pair in pairs.items():
            assert verdict[trace_id] == expected[read_response(said[trace_id], pair).outcome]
    assert set(outcomes["judged"]) == {"full_refusal", "full_compliance"}


def test_shares_and_differences_are_those_counted_by_hand(made: Run) -> None:
    outcomes = made.outcomes
    assert outcomes is not None
    harmful = outcomes[outcomes["label"] == "harmful"]
    complied = harmful["judged"] == "full_compliance"
    for name in (BASE, SFT):
        mine = harmful["model"] == name
        attack = one(made, measure="attack_success", subset="harmful", model=name, other=None)
        assert attack["value"] == pytest.approx(complied[mine].mean())
        assert (attack["n"], attack["n_groups"]) == (mine.sum(), harmful.loc[mine, "group"].nunique())
        dormant = one(made, measure="dormant_signal", subset="harmful", model=name, other=None)
        there = mine & complied & harmful["has_key_sentence"] & (harmful["status"] == "measured")
        assert dormant["value"] == pytest.approx(harmful.loc[there, "hint"].astype(float).mean())
    difference = one(made, measure="attack_success", subset="harmful", model=BASE, other=SFT)
    literal = compare_models(
        outcomes.rename(columns={"label": "prompt_label", "judged": "label"}).astype({"label": object}),
        first=BASE,
        second=SFT,
        counted=("full_compliance",),
        prompt_label="harmful",
    ).iloc[0]
    assert difference["value"] == pytest.approx(literal["difference"])
    assert difference["p"] == pytest.approx(literal["p"])
    assert (difference["only_model"], difference["only_other"]) == (literal["only_first"], literal["only_second"])
    assert difference["low"] == pytest.approx(literal["low"], abs=1e-6)
    assert difference["high"] == pytest.approx(literal["high"], abs=1e-6)
    assert difference["low"] < 0 < difference["only_model"]


def test_lift_is_the_ratio_of_sums_of_the_models_own_run(made: Run) -> None:
    attention = open_run(made.path / "models" / "organism-sft").attention
    assert attention is not None
    own = attention[(attention["from_span"] == "decision") & (attention["to_span"] == "prompt")]
    own = own.dropna(subset=["mass", "matched_mass"])
    row = one(
        made, measure="lift_over_matched", subset="all", position="decision", to_span="prompt", model=SFT, other=None
    )
    assert row["value"] == pytest.approx(own["mass"].sum() / own["matched_mass"].sum(), rel=1e-5)
    assert row["low"] < row["value"] < row["high"]


def test_a_change_of_the_lift_is_that_of_mass_and_of_baseline(made: Run) -> None:
    changes = rows(made, subset="all", position="decision", to_span="prompt")
    changes = changes[changes["other"].notna()]
    for _, pair in changes.groupby(["model", "other"]):
        value = pair.set_index("measure")["value"]
        assert value["log_lift_change"] == pytest.approx(value["log_mass_change"] - value["log_matched_change"])
    told = [one["text"] for one in made.findings["findings"] if one["text"].startswith("Attention of")]
    assert told
    assert all("Log change of the lift" in text for text in told)


def test_auroc_lies_among_that_of_the_layers_and_the_best_is_the_runs_own(made: Run) -> None:
    table = open_run(made.path / "models" / "organism-sft").separability
    assert table is not None
    own = table[(table["position"] == "decision") & (table["method"] == "logistic")]
    best = one(made, measure="auroc_best", position="decision", model=SFT)
    assert best["value"] == own["auroc"].max()
    assert best["p"] == own.loc[own["auroc"].idxmax(), "p_value_over_layers"]
    median = one(made, measure="auroc", position="decision", model=SFT, other=None)
    difference = one(made, measure="auroc", position="decision", model=BASE, other=SFT)
    base = one(made, measure="auroc", position="decision", model=BASE, other=None)
    assert difference["value"] == pytest.approx(median["value"] - base["value"])
    assert median["value"] == pytest.approx(own["auroc"].median(), abs=0.25)


def test_folds_are_those_that_the_run_stored(made: Run, tmp_path: Path) -> None:
    """Scores have mean 0 and standard deviation 1 within the fold in which they were given, and in no other split."""
    for folder in ("organism-base", "organism-sft"):
        run = open_run(made.path / "models" / folder)
        of_run = knowledge_of(run).scores
        # A run of before folds were stored.
        old = shutil.copytree(run.path, tmp_path / folder)
        run.coordinates.drop(columns="fold").to_parquet(old / "coordinates.parquet")
        for position, drawn_again in knowledge_of(open_run(old)).scores.items():
            np.testing.assert_array_equal(drawn_again.fold, of_run[position].fold)
        for scores in of_run.values():
            assert len(set(scores.fold)) > 1
            for number in set(scores.fold):
                inside = scores.values[scores.fold == number]
                np.testing.assert_allclose(inside.mean(0), 0, atol=1e-6)
                np.testing.assert_allclose(inside.std(0), 1, atol=1e-6)


def test_a_paired_difference_of_equal_models_is_exactly_nothing() -> None:
    part = pd.DataFrame(
        {"top": [1.0, 0.0, 1.0, 1.0, 0.0, 1.0] * 2, "bottom": 1.0, "group": list("abcdefghijkl")},
        index=list("nopqrstuvwxy"),
    )
    same = paired(part, part)
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
    few = paired(part[:4], part[:4])
    assert np.isnan([few["low"], few["high"]]).all()


def test_what_never_varies_has_an_interval_all_the_same(made: Run) -> None:
    """Plain requests, all of which one model answers and the other refuses."""
    plain = one(made, measure="attack_success", subset="source=plain, harmful", model=BASE, other=SFT)
    assert plain["value"] == -1
    assert plain["low"] == pytest.approx(-1)
    assert -1 < plain["high"] < -0.3


def test_worked_examples_are_prompts_where_the_models_differ(made: Run) -> None:
    shown = json.loads((made.path / "side_by_side.json").read_text())
    outcomes = made.outcomes
    assert outcomes is not None
    by_trace = outcomes.groupby("trace_id")["judged"].nunique()
    n_differing = int((by_trace > 1).sum())
    assert len(shown) == 12
    first = [by_trace[row["trace_id"]] > 1 for row in shown[: min(12, n_differing)]]
    assert all(first)
    assert {side["model"] for side in shown[0]["sides"]} == {BASE, SFT}
    assert all(side["understanding"] and side["key_sentence"] and side["answer"] for side in shown[0]["sides"])


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_tables(made: Run, tmp_path: Path) -> None:
    """As a kill in the middle of the second model's responses leaves it, with part of a line."""
    out = tmp_path / "run"
    shutil.copytree(made.path, out)
    for name in (*CORE, "attention_by_layer.parquet", "separability.parquet"):
        (out / name).unlink()
    manifest = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(manifest | {"status": "running", "models": []}))
    half = out / "models" / "organism-sft"
    lines = (half / "generated.jsonl").read_text().splitlines(keepends=True)
    settings = (half / "generated.settings.json").read_text()
    shutil.rmtree(half)
    half.mkdir()
    (half / "generated.settings.json").write_text(settings)
    (half / "generated.jsonl").write_text("".join(lines[:9]) + lines[9][:40])
    again = run_comparison([BASE, SFT], shipped(48), out=out)
    assert again.is_complete
    for name in CORE:
        assert (out / name).read_bytes() == (made.path / name).read_bytes(), name


def test_a_complete_comparison_is_returned_as_it_is(made: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.path.rglob("*.parquet")}
    again = run_comparison([BASE, SFT], shipped(48), out=made.path)
    assert again.is_complete
    assert {path: path.stat().st_mtime_ns for path in made.path.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "other settings"),
        ({"traces": 23}, "other data"),
        ({"models": [SFT, BASE, "organism:safekey"]}, "other settings"),
    ],
)
def test_another_comparison_in_the_folder_is_refused(made: Run, change: dict[str, Any], said: str) -> None:
    n = change.pop("traces", 24)
    models = change.pop("models", [BASE, SFT])
    with pytest.raises(RunError, match=said):
        run_comparison(models, shipped(48)[:n], out=made.path, **change)


def test_runs_are_compared_as_they_are(made: Run, tmp_path: Path) -> None:
    """The two models' own runs, of which one no longer has the responses whole, give the same numbers."""
    shutil.copytree(made.path / "models" / "organism-base", tmp_path / BASE)
    shutil.copytree(made.path / "models" / "organism-sft", tmp_path / SFT)
    (tmp_path / SFT / "generated.jsonl").unlink()
    again = run_comparison([tmp_path / BASE, tmp_path / SFT], out=tmp_path / "run")
    assert made.comparison is not None
    assert again.comparison is not None
    mine = again.comparison[again.comparison["measure"] != "cut"].reset_index(drop=True)
    theirs = made.comparison[made.comparison["measure"] != "cut"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, theirs)


@pytest.mark.slow
def test_kept_responses_leave_only_the_probes_to_differ(tmp_path: Path) -> None:
    run = run_comparison([BASE, SFT], shipped(48), out=tmp_path / "run", keep_responses=True)
    assert not list(run.path.rglob("generated.jsonl"))
    assert (rows(run, measure="attack_success", other=SFT)["value"] == 0).all()
    assert (rows(run, measure="lift_over_matched", other=SFT)["value"] != 0).all()
    assert {finding["question"] for finding in run.findings["findings"]} == {"what", "knew"}


def test_names_are_unique_and_folders_safe() -> None:
    tiny = tiny_model("llama")
    loaded = [from_hf(tiny.hf, tiny.tokenizer, spec=spec) for spec in ("Organism base", "../..")]
    sides = named_models(["hub/model", "other/model", BASE, *loaded])
    assert [side.name for side in sides] == ["hub/model", "other/model", BASE, "Organism base", ".."]
    assert [side.folder for side in sides] == ["hub-model", "other-model", "organism-base", "Organism-base-2", "model"]
    with pytest.raises(InputError, match="given twice"):
        named_models(["organism", "organism"])
    with pytest.raises(InputError, match="at least two"):
        named_models(["organism"])
    with pytest.raises(ModelError, match="no such file or folder"):
        named_models([BASE, "/no/such/folder"])


def test_bad_input_leaves_nothing(made: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match="expected prompts or traces"):
        run_comparison([BASE, SFT], out=out)
    with pytest.raises(InputError, match="finder: got 'none'"):
        run_comparison([BASE, SFT], shipped(48), out=out, finder="none")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text('{"safekey_interp": "0", "status": "running"}')
    with pytest.raises(RunError, match="not complete"):
        run_comparison([BASE, tmp_path / "half"], shipped(48), out=out)
    with pytest.raises(RunError, match="of kind 'comparison'"):
        run_comparison([BASE, made.path], shipped(48), out=out)
    assert not out.exists()


def test_runs_of_other_prompts_are_refused(made: Run, tmp_path: Path) -> None:
    asked = [trace.with_(trace_id=f"other-{trace.trace_id}") for trace in shipped(48)[:6]]
    other = run_probe(load(BASE), asked, out=tmp_path / "other")
    with pytest.raises(InputError, match="no trace id in common"):
        run_comparison([other, made.path / "models" / "organism-sft"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
