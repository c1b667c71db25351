"""A training run that was killed anywhere ends with the weights of one that nobody killed, to the bit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from killed_processes import n_changes
from killed_training import assert_same_run, fresh_model, rows, settings, train_in_child, trained, weights

from safekey_interp.errors import RunError
from safekey_interp.runs.run_folder import open_run
from safekey_interp.runs.storage import write_json
from safekey_interp.training import train
from safekey_interp.training.training_checkpoints import best_step, checkpoints, log_of, step_of

pytestmark = pytest.mark.slow

WATCHED = {"probe_every": 3, "probe_traces": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train_in_child(out, **WATCHED) == 0
    return out


def test_dropout_draws_so_that_random_numbers_matter(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train_in_child(out, **WATCHED) == 0
    assert_same_run(whole, out)
    other = trained(tmp_path / "other", fresh_model(dropout=0.0), **WATCHED)
    assert any(not torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(other.path).items())


def test_killed_again_and_again_at_every_stage_of_a_save(whole: Path, tmp_path: Path) -> None:
    """One folder, killed a few changes later each time, so that every run goes on from where the last one died."""
    out, n_kills = tmp_path / "run", 0
    for kill_at in range(1, 400):
        status = train_in_child(out, kill_at=4 + 3 * kill_at, **WATCHED)
        if status == 0:
            break
        assert status == -9
        n_kills += 1
    assert n_kills > 5
    assert_same_run(whole, out)


@pytest.mark.parametrize("part", range(2))
def test_killed_once_at_every_fifth_change_of_the_folder(whole: Path, tmp_path: Path, part: int) -> None:
    for kill_at in range(1 + 5 * part, n_changes(whole) + 1, 10):
        out = tmp_path / f"{kill_at}"
        assert train_in_child(out, kill_at=kill_at, **WATCHED) == -9
        assert train_in_child(out, **WATCHED) == 0
        assert_same_run(whole, out)
        shutil.rmtree(out)


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_adapters_go_on_too(tmp_path: Path, share: float) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    options = {"lora_rank": 4, "learning_rate": 1e-2}
    assert train_in_child(whole, **options) == 0
    assert train_in_child(out, kill_at=int(share * n_changes(whole)), **options) == -9
    assert (out / "checkpoints").is_dir()
    assert train_in_child(out, **options) == 0
    assert_same_run(whole, out)


def test_a_run_that_stops_early_is_killed_after_its_last_step(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    options = {"patience": 1, "evaluate_every": 2, "learning_rate": 0.3, "epochs": 6}
    assert train_in_child(whole, **options) == 0
    assert pd.read_parquet(whole / "steps.parquet")["step"].max() < 24, "nothing stopped it"
    for kill_at in (n_changes(whole) - 3, n_changes(whole) - 30):
        shutil.rmtree(out, ignore_errors=True)
        assert train_in_child(out, kill_at=kill_at, **options) == -9
        assert train_in_child(out, **options) == 0
        assert_same_run(whole, out)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "trainer_state.json", "sizes.json"])
def test_a_run_goes_on_from_before_a_checkpoint_that_was_cut_short(whole: Path, tmp_path: Path, file: str) -> None:
    out = tmp_path / "run"
    assert train_in_child(out, kill_at=n_changes(whole) - 10, **WATCHED) == -9
    newest = checkpoints(out / "checkpoints")[-1]
    os.truncate(newest / file, (newest / file).stat().st_size // 2)
    assert newest not in checkpoints(out / "checkpoints")
    assert train_in_child(out, **WATCHED) == 0
    assert_same_run(whole, out)


def test_a_run_that_stops_early_goes_on_from_before_its_best_checkpoint_that_was_cut_short(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    options = {"patience": 1, "evaluate_every": 2, "learning_rate": 0.3, "epochs": 6}
    assert train_in_child(whole, **options) == 0
    shutil.copytree(whole, out)  # as one that was killed at its very end
    write_json(out / "run.json", open_run(whole).manifest | {"status": "running"})
    newest = checkpoints(out / "checkpoints")[-1]
    best = best_step(log_of(newest))
    assert best != step_of(newest)
    os.truncate(out / "checkpoints" / f"checkpoint-{best}" / "model.safetensors", 99)
    assert train_in_child(out, **options) == 0
    assert_same_run(whole, out)


def test_a_complete_run_is_returned_as_it_is(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    model = fresh_model()
    start = model.fingerprint()
    run = train(model, rows(), settings(out, **WATCHED))
    assert run.is_complete
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    trained_weights = weights(out)
    assert model.fingerprint() != start
    for name, tensor in model.hf.state_dict().items():
        if f"model.{name}" in trained_weights:
            assert torch.equal(tensor, trained_weights[f"model.{name}"])


@pytest.mark.parametrize(
    ("changes", "n", "says"),
    [
        ({"learning_rate": 2e-3}, 20, "a run of other settings (settings.learning_rate was 0.001, now 0.002)"),
        ({}, 19, "a run of other data"),
    ],
)
def test_a_folder_with_another_run_is_refused_untouched(
    whole: Path, tmp_path: Path, changes: dict[str, float], n: int, says: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(RunError) as caught:
        trained(out, data=rows(n), **WATCHED | changes)
    assert says in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    run = train(fresh_model(), rows(n), settings(out, **WATCHED | changes), overwrite=True)
    assert run.is_complete
    assert any(not torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(out).items())


def test_what_need_not_be_the_same_may_differ(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train_in_child(out, kill_at=60, **WATCHED) == -9
    assert train_in_child(out, **WATCHED | {"save_total_limit": 1, "traces": ("elsewhere",)}) == 0
    first, second = weights(whole), weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_in_a_checkpoint_needs_unpickling(whole: Path) -> None:
    """The Trainer's pickled arguments are not there, and what torch wrote holds tensors and plain values."""
    for checkpoint in (whole / "checkpoints").iterdir():
        assert not list(checkpoint.glob("*.bin"))
        for file in (checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"):
            assert torch.load(file, weights_only=True)
