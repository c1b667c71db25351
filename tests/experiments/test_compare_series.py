"""Checkpoints of one training by step: numbers are those of the comparison, and only new checkpoints are measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_models import shipped

from safekey_interp.errors import RunError
from safekey_interp.experiments.compare_run import run_comparison
from safekey_interp.experiments.compare_series import BENIGN, MATCHED, SHUFFLED, WORDS, pairs_of
from safekey_interp.models import organism
from safekey_interp.runs.run_folder import Run, open_run

pytestmark = pytest.mark.slow
MODELS = {3: "organism:base", 20: "organism:sft"}


def save(folder: Path, step: int, spec: str) -> None:
    """A checkpoint as transformers' Trainer leaves it."""
    shutil.copytree(organism.weights_folder(spec), folder / f"checkpoint-{step}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("training")
    for step, spec in MODELS.items():
        save(made, step, spec)
    return made


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_comparison(
        traces=shipped(32), out=tmp_path_factory.mktemp("compared") / "run", series=str(folder / "checkpoint-*")
    )


def test_numbers_and_changes_are_those_of_the_comparison(made: Run) -> None:
    series, comparison = made.series, made.comparison
    assert series is not None
    assert comparison is not None
    assert sorted(set(series["step"])) == [3, 20]
    own = series[series["control"].isna()]
    for measure, subset in (("attack_success", "harmful"), ("aha", "harmful"), ("over_refusal", "benign")):
        rows = comparison[(comparison["measure"] == measure) & (comparison["subset"] == subset)]
        single = rows[rows["other"].isna()].set_index("model")["value"]
        [change] = rows.loc[rows["other"].notna(), "value"]
        told = own[(own["measure"] == measure) & (own["subset"] == subset)].set_index("step")
        assert told["estimate"].tolist() == [single["checkpoint-3"], single["checkpoint-20"]]
        assert np.isnan(told.loc[3, "change"])
        assert told.loc[20, "change"] == change == pytest.approx(single["checkpoint-20"] - single["checkpoint-3"])
    assert set(comparison.loc[comparison["other"].notna(), "model"]) == {"checkpoint-3"}


def test_each_measure_has_its_controls(made: Run) -> None:
    series = made.series
    assert series is not None
    controls = series.dropna(subset=["control"]).groupby("measure")["control"].unique()
    assert set(controls["aha"]) == {BENIGN}
    assert set(controls["lift_over_matched"]) == {MATCHED}
    assert set(controls["auroc"]) == {WORDS, SHUFFLED}
    aha = series[(series["measure"] == "aha") & (series["step"] == 20)].set_index(["subset", "control"])["estimate"]
    assert aha["harmful", BENIGN] == aha["benign"].iloc[0]
    run = open_run(made.path / "models" / "checkpoint-20")
    assert run.separability is not None
    null = run.separability[(run.separability["position"] == "decision") & (run.separability["method"] == "logistic")]
    auroc = series[(series["step"] == 20) & (series["measure"] == "auroc")].set_index(["position", "control"])
    told = auroc.loc[("decision", SHUFFLED)]
    assert told["estimate"] == pytest.approx(null["null_auroc_mean"].median())
    assert told["low"] < 0.5 < told["high"]


def test_findings_are_a_sentence_a_measure_from_the_first_step_to_the_last(made: Run) -> None:
    findings = made.findings["findings"]
    aha = next(one for one in findings if one["text"].startswith("K turns safe (harmful prompts)"))
    assert " at step 3, " in aha["text"]
    assert " at step 20; change " in aha["text"]
    assert aha["control"].startswith(BENIGN)
    series = made.series
    assert series is not None
    row = series[(series["measure"] == "aha") & (series["subset"] == "harmful") & (series["step"] == 20)]
    assert aha["value"] == row.loc[row["control"].isna(), "change"].iloc[0]


def test_a_checkpoint_saved_later_alone_is_measured_and_a_deleted_one_stays(
    made: Run, folder: Path, tmp_path: Path
) -> None:
    """Training goes on while it keeps its newest checkpoints alone."""
    out, series = tmp_path / "run", str(folder / "checkpoint-*")
    shutil.copytree(made.path, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*.parquet")}
    save(folder, 27, "organism:sft")
    shutil.rmtree(folder / "checkpoint-3")
    grown = run_comparison(traces=shipped(32), out=out, series=series).series
    assert grown is not None
    assert made.series is not None
    assert sorted(set(grown["step"])) == [3, 20, 27]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is measured twice"
    pd.testing.assert_frame_equal(grown[grown["step"] != 27].reset_index(drop=True), made.series)
    assert (out / "models" / "checkpoint-27" / "run.json").is_file()
    for change in ({"models": ["organism:base"]}, {"seed": 1}):
        with pytest.raises(RunError, match="other settings"):
            run_comparison(traces=shipped(32), out=out, series=series, **change)


def test_pairs_of_a_series_are_with_its_first_alone() -> None:
    assert pairs_of(["a", "b", "c"], from_first=True) == [("a", "b"), ("a", "c")]
    assert pairs_of(["a", "b", "c"], from_first=False) == [("a", "b"), ("a", "c"), ("b", "c")]
