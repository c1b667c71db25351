"""Results of a training run: tables of every term by step, the trained model with its card, and the record."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from safekey_interp.display import one_line
from safekey_interp.runs.run_writer import RunWriter
from safekey_interp.runs.storage import write_aside, write_folder_aside, write_table
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.config import TrainingConfig, write_yaml
from safekey_interp.training.probe_snapshots import read_snapshots
from safekey_interp.training.schedule import Schedule
from safekey_interp.training.trainer import COUNTS, TERMS
from safekey_interp.training.training_checkpoints import best_step, save_weights

_TABLES = {"steps": "lm", "held_out": "eval_lm", "gradient_norms": "gradient_norm_lm"}
"""Tables of the log, and the name that their lines hold."""


def write_results(
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
    """Write the results of a run; the record is written when the run is complete.

    Args:
        writer: of the run folder; its manifest holds what was known when the run began.
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
    for name, key in _TABLES.items():
        lines = [_row(line, schedule) for line in history if key in line]
        if lines:
            write_table(path / f"{name}.parquet", pd.DataFrame(lines).drop_duplicates("step", ignore_index=True))
    for name, table in read_snapshots(path / "looks").items():
        write_table(path / f"{name}.parquet", table)
    text = write_yaml(config.to_dict())
    write_aside(path / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))

    def fill(folder: Path) -> None:
        dtype = None if config.save_dtype is None else getattr(torch, config.save_dtype)
        save_weights(folder, loss, tokenizer, state=state, dtype=dtype)
        (folder / "README.md").write_text(card(manifest), encoding="utf-8")

    shutil.rmtree(path / "model", ignore_errors=True)
    write_folder_aside(path / "model", fill)


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


_SHOWN = (
    *("head_weight", "query_mask_weight", "query_prompt", "theta", "key_weight", "shuffled_labels"),
    *("auxiliary_epochs", "head_layer", "epochs", "max_steps", "batch_size", "learning_rate"),
    *("head_learning_rate", "weight_decay", "max_length", "seed", "precision", "lora_rank"),
)
"""Settings that the card shows."""
TERMS_IN_WORDS = {
    "total": "total",
    "lm": "language modelling (nats per token)",
    "head": "safety head (nats per row)",
    "query_mask": "query-mask modelling (nats per token of K)",
    "key": "K with the prompt in sight (nats per token)",
}
"""Each term of the loss, and the unit of its mean."""


def card(manifest: Mapping[str, Any]) -> str:
    """The model card of a finished training run.

    Args:
        manifest: ``run.json``'s content.
    """
    model, settings, data = manifest["model"], manifest["settings"], manifest["data_report"]
    trained = data["train"]
    lines = [
        "---",
        "library_name: transformers",
        "tags: [safety, reasoning, safekey]",
        "---",
        "",
        f"# {_plain(model['name'])}, fine-tuned",
        "",
        f"Fine-tuned with safekey_interp {manifest['safekey_interp']} from {_plain(model['name'])} "
        f"(revision {_plain(model['revision'] or 'none')}, weights sha256 {model['weights_sha256'][:12]}): language "
        "modelling and the auxiliary losses of SafeKey (Zhou et al. 2025, arXiv 2505.16186) with the weights below.",
        "",
        "## Data",
        "",
        f"{trained['traces']:,} traces of {trained['groups']:,} groups ({trained['harmful']:,} harmful, "
        f"{trained['benign']:,} benign, {trained['unlabelled']:,} without a label), sha256 "
        f"{manifest['data']['traces_sha256'][:12]}; {data['held_out']['traces']:,} traces of other groups held out.",
        "",
        "## Settings",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {_plain(str(settings[name]))} |" for name in _SHOWN),
        "",
        "## Measured",
        "",
        *_measured(manifest["result"]),
        "",
        "These are losses on traces like those of training. What the model does when asked, and what it refuses, was "
        "not measured here.",
        "",
    ]
    return "\n".join(lines)


def _measured(result: Mapping[str, Any]) -> list[str]:
    held_out = result.get("held_out")
    if not held_out:
        return ["Nothing was held out, so nothing was measured."]
    before, after = held_out["before"], held_out["after"]
    rows = [
        f"| {what} | {before[name]:.3f} | {after[name]:.3f} | {_count(after, name)} |"
        for name, what in TERMS_IN_WORDS.items()
        if isinstance(before.get(name), float) and before[name] == before[name]
    ]
    return ["| held-out loss | before | after | n |", "|---|---|---|---|", *rows]


def _count(row: Mapping[str, Any], name: str) -> str:
    if name not in TERMS:
        return ""
    column = COUNTS[TERMS.index(name)]
    return f"{row[column]:,} {column.replace('_', ' ')}"


def _plain(text: str) -> str:
    """One line in which nothing is Markdown or HTML."""
    return "".join(f"&#{ord(c)};" if c in "<>&|`*[]" else c for c in one_line(text))
