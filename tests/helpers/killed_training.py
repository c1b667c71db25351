"""Training runs of a tiny model with dropout in processes that are killed at a chosen change of the run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import killed_processes
import pandas as pd
import reference_forward
import torch
from killed_processes import kill_at_change, start_fork_server
from safetensors.torch import load_file
from tiny_models import BASE, byte_level_tokenizer, traces
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.data.trace import Trace
from safekey_interp.models.model import Model, from_hf
from safekey_interp.runs.run_folder import Run, open_run
from safekey_interp.training.config import TrainingConfig

N_TRACES = 20


def rows(n: int = N_TRACES) -> list[Trace]:
    """Harmful and benign traces of different lengths, each of a group of its own; two without a label."""
    short = traces(5)
    return [
        reference_forward.with_given(
            short[i % 5],
            trace_id=f"row {i}",
            prompt=f"{short[i % 5].prompt} Explain it {i} times.",
            label=None if i in (3, 8) else ("harmful", "benign")[i % 2],
            group=f"group {i}",
        )
        for i in range(n)
    ]


def fresh_model(architecture: str = "llama", *, dropout: float = 0.1) -> Model:
    """A tiny model whose training draws random numbers."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[architecture](**BASE | {"attention_dropout": dropout})
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return from_hf(hf, byte_level_tokenizer(), spec="tiny")


def settings(out: Path, **changes: Any) -> TrainingConfig:
    """A run of eight steps with both losses in the second half."""
    quick: dict[str, Any] = {
        **{"out": str(out), "finder": "given", "held_out": 0.2, "batch_size": 4, "micro_batch_size": 2},
        **{
            "epochs": 2,
            "auxiliary_epochs": 1,
            "learning_rate": 1e-3,
            "head_learning_rate": 1e-3,
            "save_every": 2,
            "log_every": 3,
        },
    }
    return TrainingConfig(**quick | changes)


def trained(out: Path, model: Model | None = None, data: list[Trace] | None = None, **changes: Any) -> Run:
    """A run in this process."""
    from safekey_interp.training import train

    return train(model or fresh_model(), data or rows(), settings(out, **changes))


def train_in_child(out: Path, *, kill_at: int | None = None, **changes: Any) -> int:
    """Exit status of a run; -9 when it was killed before it came to its end.

    Args:
        out: the run folder.
        kill_at: the change of the folder (rename, new folder, deletion, file opened to write) before which it is
            killed, from 1.
        **changes: of :func:`settings`.
    """
    start_fork_server()
    process = killed_processes.context.Process(target=_child, args=(out, kill_at, changes))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _child(out: Path, kill_at: int | None, changes: dict[str, Any]) -> None:
    from safekey_interp.errors import SafekeyError

    torch.set_num_threads(1)
    n_changes = kill_at_change(out, kill_at, files=True)
    try:
        trained(out, **changes)
    except SafekeyError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if kill_at is None:
        out.with_name(f"{out.name}.changes").write_text(str(n_changes()))


def weights(out: Path) -> dict[str, Tensor]:
    """What a run trained: the model's weights and the safety head's."""
    contents = {}
    for name in ("model", "safety_head"):
        file = out / "model" / f"{name}.safetensors"
        if file.is_file():
            contents |= {f"{name}.{key}": tensor for key, tensor in load_file(file).items()}
    return contents


def assert_same_run(one: Path, other: Path) -> None:
    """Weights to the bit, and every table, but for what a clock said."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    tables = [{file.name: pd.read_parquet(file) for file in sorted(out.glob("*.parquet"))} for out in (one, other)]
    assert tables[0].keys() == tables[1].keys()
    for name, table in tables[0].items():
        pd.testing.assert_frame_equal(
            table.drop(columns="seconds", errors="ignore"), tables[1][name].drop(columns="seconds", errors="ignore")
        )
    assert open_run(one).is_complete
    assert open_run(other).is_complete
    assert set(files_in(one)) ^ set(files_in(other)) == set()


def files_in(out: Path) -> list[str]:
    """Every file of a run folder."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
