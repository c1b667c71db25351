"""Processes that a launcher started train one model together; when one is killed, the same command goes on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import killed_processes
import pandas as pd
import pytest
import torch
from killed_processes import kill_at_change, n_changes, start_fork_server
from killed_training import assert_same_run, fresh_model, trained, weights
from probe_processes import environment

pytestmark = pytest.mark.slow


def train_in_team(out: Path, *, kill_at: int | None = None, dropout: float = 0.0, **changes: Any) -> list[int]:
    """Exit statuses of two processes; the first is killed before a change of the folder."""
    start_fork_server()
    processes = [
        killed_processes.context.Process(
            target=_child, args=(rank, place, out, kill_at, {"dropout": dropout} | changes)
        )
        for rank, place in enumerate(environment(2))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    assert not hung, "a process waits for ever"
    return [process.exitcode for process in processes]  # type: ignore[misc]


def _child(rank: int, place: dict[str, str], out: Path, kill_at: int | None, options: dict[str, Any]) -> None:
    from safekey_interp.errors import SafekeyError
    from safekey_interp.runs import processes

    processes.SILENCE = 4.0
    torch.set_num_threads(1)
    os.environ.update(place)
    counted = kill_at_change(out, kill_at if rank == 0 else None, files=True)
    with out.with_name(f"{out.name}.said-{rank}").open("w") as said:
        try:
            trained(out, fresh_model(dropout=options.pop("dropout")), **options)
        except SafekeyError as error:
            print(error, file=said)
            sys.exit(2)
    if rank == 0:
        out.with_name(f"{out.name}.changes").write_text(str(counted()))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch_size": 1, "query_prompt": "other", "head_learning_rate": None},
        {"micro_batch_size": 2, "log_gradient_norms_every": 3},
    ],
    ids=str,
)
def test_two_train_as_one_does(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert train_in_team(tmp_path / "two", **changes) == [0, 0]
    alone: dict[str, Any] = changes | {"micro_batch_size": 2}
    trained(tmp_path / "one", fresh_model(dropout=0.0), **alone)
    names = ("steps", "held_out", *["gradient_norms"] * ("log_gradient_norms_every" in changes))
    for name in names:
        first: Any = pd.read_parquet(tmp_path / "one" / f"{name}.parquet")
        second: Any = pd.read_parquet(tmp_path / "two" / f"{name}.parquet")
        columns = [column for column in first.columns if column not in ("seconds", "grad_norm")]
        pd.testing.assert_frame_equal(first[columns], second[columns], rtol=1e-4)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (tensor - two[name]).norm() <= 1e-4 * tensor.norm() + 1e-7, name


def test_killed_in_a_save_both_go_on(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    options: dict[str, Any] = {"dropout": 0.1, "probe_every": 3, "probe_traces": 3}
    assert train_in_team(whole, **options) == [0, 0]
    for share in (0.4, 0.3):  # the second time, of what is left
        first, second = train_in_team(out, kill_at=int(share * n_changes(whole)), **options)
        assert (first, second) == (-9, 2)
        said = out.with_name("killed.said-1").read_text()
        assert said.count("\n") == 1
        assert "the same command resumes the run" in said
    assert (out / "checkpoints").is_dir()
    assert train_in_team(out, **options) == [0, 0]
    assert_same_run(whole, out)
