"""What is left of a training run: tables of every term by step, the trained model with its card, and the record."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from safekey_interp.run_writer import RunWriter
from safekey_interp.storage import write_aside, write_folder_aside, write_table
from safekey_interp.training.card import card
from safekey_interp.training.checkpoints import best_step
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.schedule import Schedule
from safekey_interp.training.settings import write_yaml
from safekey_interp.training.terms import BatchLoss
from safekey_interp.training.trainer import COUNTS, TERMS
from safekey_interp.training.watching import joined
from safekey_interp.training.weights import save_weights

_TABLES = {"steps": "lm", "held_out": "eval_lm", "gradient_norms": "gradient_norm_lm"}
"""Tables of the log, and what tells their lines."""


def finish(
    writer: RunWriter,
    loss: BatchLoss,
    tokenizer: Any,
    history: Sequence[Mapping[str, Any]],
    *,
    config: TrainingConfig,
    schedule: Schedule,
    seconds: float,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write what is left of a run, the record last.

    Args:
        writer: of the run folder; its manifest has everything that was known when the run began.
        loss: the trained model and head.
        tokenizer: of the model.
        history: every line of the log.
        config: the settings.
        schedule: of the run.
        seconds: that the run took, since it last began.
        state: the whole state by name of ``loss``, where its parameters are sharded.
    """
    path, manifest = writer.path, writer.manifest
    manifest["schedule"] = schedule._asdict()
    manifest["result"] = _result(history, config, schedule) | {"seconds": round(seconds, 1)}
    for name, tells in _TABLES.items():
        lines = [_row(line, schedule) for line in history if tells in line]
        if lines:
            write_table(path / f"{name}.parquet", pd.DataFrame(lines).drop_duplicates("step", ignore_index=True))
    for name, table in joined(path / "looks").items():
        write_table(path / f"{name}.parquet", table)
    text = write_yaml(config.to_dict())
    write_aside(path / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))

    def fill(folder: Path) -> None:
        dtype = None if config.save_dtype is None else getattr(torch, config.save_dtype)
        save_weights(folder, loss, tokenizer, state=state, dtype=dtype)
        (folder / "README.md").write_text(card(manifest), encoding="utf-8")

    shutil.rmtree(path / "model", ignore_errors=True)
    write_folder_aside(path / "model", fill)
    writer.finish()


def _result(history: Sequence[Mapping[str, Any]], config: TrainingConfig, schedule: Schedule) -> dict[str, Any]:
    """The first and the last numbers; with patience those of the model that is kept."""
    train, held_out = (
        [_row(line, schedule) for line in history if _TABLES[name] in line] for name in ("steps", "held_out")
    )
    kept = best_step(history) if config.patience else None
    after = next((row for row in held_out if row["step"] == kept), held_out[-1] if held_out else None)
    return {
        "train": train[-1] if train else None,
        "held_out": {"before": held_out[0], "after": after} if held_out else None,
        "kept_step": kept or schedule.steps,
    }


def _row(line: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    """A line of the log as a row: what was measured on held-out rows, or in the steps since the last line."""
    row = {name.removeprefix("eval_"): value for name, value in line.items()}
    row |= {"epoch": row["step"] / schedule.steps_per_epoch}
    if "loss" in row:
        row["total"] = row.pop("loss")
    # A log that was read from a checkpoint has its names in another order.
    first = [name for name in ("step", "epoch", "total", *TERMS, *COUNTS) if name in row]
    return {name: row[name] for name in [*first, *sorted(row.keys() - set(first))]}
