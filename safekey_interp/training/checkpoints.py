"""Which checkpoints does a run have, what do their logs say, and which one is kept?

A folder ``checkpoint-N`` is whole: it was written aside and renamed. Its ``trainer_state.json`` holds every line that
was logged up to step N.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safekey_interp.storage import read_json
from safekey_interp.training.config import TrainingConfig

STATE = "trainer_state.json"


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=step_of)


def forget_old(folder: Path, history: Sequence[Mapping[str, Any]], config: TrainingConfig) -> None:
    """Delete all checkpoints but the newest, and with patience the best."""
    found = checkpoints(folder)
    best = best_step(history) if config.patience else None
    for checkpoint in found[: -config.save_total_limit]:
        if step_of(checkpoint) != best:
            # Renamed first, so that no half of a checkpoint looks like a whole one.
            gone = checkpoint.with_name(f".{checkpoint.name}.00000000.aside")
            shutil.rmtree(gone, ignore_errors=True)
            checkpoint.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def log_of(checkpoint: Path) -> list[dict[str, Any]]:
    """The lines that were logged up to a checkpoint."""
    return (read_json(checkpoint / STATE) or {}).get("log_history", [])


def has_no_gain(history: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Whether the last ``patience`` measurements of the held-out loss brought none lower than before."""
    losses = [loss for step, loss in held_out_losses(history) if step]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def held_out_losses(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Step and held-out loss of each measurement in a log, each step once."""
    found = {line["step"]: line["eval_loss"] for line in history if "eval_loss" in line}
    return sorted(found.items())


def best_step(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The step with the lowest held-out loss."""
    losses = [(loss, step) for step, loss in held_out_losses(history) if step]
    return min(losses)[1] if losses else None
