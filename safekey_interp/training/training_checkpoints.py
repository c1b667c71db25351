"""Checkpoints of a training run: their logs, the best of them, and what is saved in them.

A folder ``checkpoint-N`` is written aside and renamed, with the sizes of its files: one of which a file is missing or
cut short is none. Its ``trainer_state.json`` holds every line that was logged up to step N.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from safekey_interp.errors import RunError
from safekey_interp.models.safety_head import HEAD_FILE
from safekey_interp.runs.processes import Team
from safekey_interp.runs.storage import read_json
from safekey_interp.runs.whole_files import has_its_sizes
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.config import TrainingConfig

STATE = "trainer_state.json"


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, the oldest first."""
    return [path for path in _named(folder) if has_its_sizes(path)]


def checkpoint_to_resume(folder: Path, config: TrainingConfig, team: Team) -> Path | None:
    """The newest checkpoint that is whole and, with patience, has the best up to it beside it; None for none.

    The first process deletes those behind it, and what is no whole checkpoint: they are made anew.
    """
    whole = checkpoints(folder)
    there = {None, *map(step_of, whole)}
    usable = [path for path in whole if not config.patience or best_step(log_of(path)) in there]
    newest = usable[-1] if usable else None
    team.gather()  # all have looked
    if team.is_first:
        for path in _named(folder):
            if newest is None or path not in whole or step_of(path) > step_of(newest):
                _delete(path)
    team.gather()
    return newest


def forget_old(folder: Path, history: Sequence[Mapping[str, Any]], config: TrainingConfig) -> None:
    """Delete all checkpoints but the newest, and with patience the best."""
    best = best_step(history) if config.patience else None
    for checkpoint in checkpoints(folder)[: -config.save_total_limit]:
        if step_of(checkpoint) != best:
            _delete(checkpoint)


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
    losses = {line["step"]: line["eval_loss"] for line in history if "eval_loss" in line}
    return sorted(losses.items())


def best_step(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The step with the lowest held-out loss."""
    losses = [(loss, step) for step, loss in held_out_losses(history) if step]
    return min(losses)[1] if losses else None


def save_weights(
    folder: Path,
    loss: BatchLoss,
    tokenizer: Any,
    *,
    adapted: Any = None,
    state: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write model, tokenizer and safety head into a folder.

    Args:
        folder: an existing folder.
        loss: model and head.
        tokenizer: of the model.
        adapted: the PeftModel around the model, whose adapters alone are then written.
        state: the whole state by name of ``loss``, where its parameters are sharded.
        dtype: floating-point type of the model's file; as it is when None.
    """
    of_model, of_head = (_below(state, prefix) for prefix in ("hf.", "head."))
    if adapted is not None:
        adapted.save_pretrained(folder, state_dict=of_model, safe_serialization=True)
    else:
        if dtype is not None:
            whole = loss.hf.state_dict() if of_model is None else of_model
            of_model = {name: _as(tensor, dtype) for name, tensor in whole.items()}
        loss.hf.save_pretrained(folder, state_dict=of_model)
        if dtype is not None:
            # What is written says the type in memory.
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config["dtype"] = str(dtype).removeprefix("torch.")
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    if loss.head is not None:
        tensors = loss.head.state_dict() if of_head is None else of_head
        about = {"theta": loss.head.theta, "layer": loss.head_layer}
        metadata = {name: json.dumps(value) for name, value in about.items()}
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, folder / HEAD_FILE, metadata)


def load_weights(folder: Path, loss: BatchLoss, *, adapted: Any = None) -> None:
    """Read what :func:`save_weights` wrote into model and head.

    Raises:
        RunError: a weight, or an adapter's, is missing.
    """
    if adapted is not None:
        from peft import load_peft_weights, set_peft_model_state_dict

        loaded = set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))
        missing = [name for name in loaded.missing_keys if "lora_" in name]
        if missing:
            raise RunError(f"checkpoint {folder}: holds no {missing[0]}; delete it, and the one before is taken")
    else:
        load_model(folder, loss.hf)
    if loss.head is not None:
        loss.head.load_state_dict(load_file(folder / HEAD_FILE))


def load_model(folder: Path, hf: Any) -> None:
    """Read a plain model's weights into a model.

    Raises:
        RunError: a weight is missing.
    """
    missing = {name for name, _ in hf.named_parameters()}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors = load_file(file)
        hf.load_state_dict(tensors, strict=False)
        missing -= set(tensors)
    if not missing:
        return
    # Some models are written under other names than they have in memory (experts one by one).
    try:
        again = type(hf).from_pretrained(folder, dtype=hf.dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        first = sorted(missing)[0]
        why = f"holds no weights {first}; delete the folder, and the run resumes without it"
        raise RunError(f"{folder}: {why}") from error
    hf.load_state_dict(again.state_dict())


def _named(folder: Path) -> list[Path]:
    """Folders with the name of a checkpoint, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=step_of)


def _delete(checkpoint: Path) -> None:
    # Renamed first, so that no half of a checkpoint looks like a whole one.
    gone = checkpoint.with_name(f".{checkpoint.name}.00000000.aside")
    shutil.rmtree(gone, ignore_errors=True)
    checkpoint.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _below(state: Mapping[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    if state is None:
        return None
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
