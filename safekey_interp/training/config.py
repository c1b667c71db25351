"""What is a training run to be? One field is one setting: its type, its default, and what the paper took.

Settings come from a YAML file, then from ``key=value`` pairs, and are checked at once, before anything is loaded. The
defaults are the paper's schedule (SafeKey, Zhou et al. 2025, arXiv 2505.16186), except where a field says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_type_hints

from safekey_interp.errors import InputError
from safekey_interp.training.settings import read_yaml, typed


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All settings of a training run."""

    model: str = "organism:base"
    """What ``load`` reads: a name, a folder, a hub id."""
    traces: tuple[str, ...] = ()
    """Files that ``read_traces`` reads."""
    out: str = "runs/training"
    """Folder of the run: checkpoints, tables, the trained model."""
    finder: Literal["rules", "given", "llm"] = "rules"
    """How U and K are found; ``given`` takes the spans that came with the data."""
    delimiters: tuple[str, str] | None = None
    """Marks of the reasoning; the known families' when null."""
    held_out: float = 0.1
    """Share of groups (prompts) that no step sees, in [0, 0.9]."""
    max_length: int = 8192
    """Most tokens of a trace; longer ones are left out and counted, never cut. Paper: 8,192."""

    head_weight: float = 0.2
    """w_head, the weight of the safety head's loss; 0 turns it off. Paper: 0.2."""
    query_mask_weight: float = 0.2
    """w_qmm, the weight of query-mask modelling; 0 turns it off. Paper: 0.2."""
    theta: float = 0.5
    """Share of U's path in the head's loss; 1 and 0 are the single paths. Paper: 0.5."""
    query_mask: Literal["short", "packed", "masked"] = "short"
    """How K is predicted with the prompt masked; the numbers are the same."""
    query_prompt: Literal["masked", "other"] = "masked"
    """What query-mask modelling has in the prompt's place: nothing, or another request's prompt, drawn from all labels
    anew in every step: a control of the mask. Paper: masked."""
    key_weight: float = 0.0
    """Weights K up with the prompt visible: the control of query-mask modelling. Paper: none."""
    shuffled_labels: bool = False
    """Shuffles the head's labels over groups: its control. Paper: none."""
    auxiliary_epochs: float | None = 2.0
    """Epochs at the end in which the extra losses count; null for all. Paper: the last 2 of 5."""
    head_layer: int | None = None
    """The layer whose output the safety head reads; the states after the final norm when null. Paper: these."""

    epochs: float = 5.0
    """Passes over the data. Paper: 5."""
    max_steps: int | None = None
    """Optimizer steps in place of ``epochs``; ``auxiliary_epochs`` out of ``epochs`` then is a share of these."""
    batch_size: int = 128
    """Traces of an optimizer step, over all processes. Paper: 128."""
    micro_batch_size: int = 1
    """Traces of one forward pass of one process; the rest is accumulated."""
    packing: bool = False
    """Lays the traces of a forward pass behind one another in one row, in place of padding them to the longest. It pays
    with an attention function that skips what other documents hold (flash attention)."""
    learning_rate: float = 1e-5
    """Peak of the schedule. Paper: 1e-5."""
    head_learning_rate: float | None = None
    """Peak of the schedule for the safety head; when null, such that one step moves the head's logit by at most 2
    (``training/head_rate.py``). Paper: the model's."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's. Paper: 0.9, 0.95."""
    weight_decay: float = 1e-4
    """AdamW's, on matrices alone: neither biases nor norms. Paper: 1e-4."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises. Paper: 5 %."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls. Paper: cosine."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 for never."""
    seed: int = 2002
    """Of data order, dropout and the head's first weights. Paper: 2002."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic; weights stay as they were loaded. Paper: bf16."""
    gradient_checkpointing: bool = False
    """Computes activations again in the backward pass: slower, leaner."""
    compile: bool = False
    """torch.compile."""
    lora_rank: int | None = None
    """Trains low-rank adapters of this rank (peft) in place of all weights; the safety head is always trained."""
    lora_alpha: float = 16.0
    """Scale of the adapters."""
    lora_targets: str | tuple[str, ...] = "all-linear"
    """Which modules get adapters: their names' ends in a list, a regular expression of whole names, or all-linear."""

    save_every: int | None = None
    """Steps between checkpoints; at the end of each epoch when null."""
    save_total_limit: int = 2
    """Checkpoints that are kept."""
    probe_every: int | None = None
    """Steps between two looks with the probes at the held-out traces; never when null."""
    probe_traces: int = 64
    """Held-out traces that the probes look at."""
    key_sentences: str | None = None
    """File of safe and go-ahead key sentences whose probability the probes ask for; the package's own when null."""
    evaluate_every: int | None = None
    """Steps between two measurements of the held-out loss; at the end of each epoch when null."""
    log_every: int = 10
    """Steps between two rows of the table of losses, each a mean over the steps since the last."""
    log_gradient_norms_every: int | None = None
    """Steps between two measurements of the norm of each term's gradient, in a table of its own; never when null. A
    step that is measured costs one more forward and backward pass for each term."""
    patience: int | None = None
    """Measurements of the held-out loss without a gain after which training stops; never when null. The model with the
    lowest held-out loss is then the one that is kept."""
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Floating-point type of the trained model's file; as it was trained when null."""
    report_to: tuple[str, ...] = ()
    """Trackers, as transformers names them."""

    def __post_init__(self) -> None:
        """Refuse what no run can have."""
        bounds: dict[str, tuple[float, float]] = {
            "held_out": (0, 0.9),
            "theta": (0, 1),
            "warmup": (0, 1),
            "head_weight": (0, float("inf")),
            "query_mask_weight": (0, float("inf")),
            "key_weight": (0, float("inf")),
            "batch_size": (1, float("inf")),
            "micro_batch_size": (1, float("inf")),
            "max_length": (2, float("inf")),
            "seed": (0, 2**32 - 1),
            "save_total_limit": (1, float("inf")),
            "log_every": (1, float("inf")),
            "probe_traces": (1, float("inf")),
            "weight_decay": (0, float("inf")),
            "max_grad_norm": (0, float("inf")),
            "lora_alpha": (0, float("inf")),
        }
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{one.name}: got {value}, expected a finite number")
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name}: got {value}, expected from {low} to {high}")
        for name in (
            *("epochs", "learning_rate", "head_learning_rate", "max_steps", "lora_rank", "save_every", "probe_every"),
            *("evaluate_every", "log_gradient_norms_every", "patience"),
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name}: got {value}, expected more than 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas: got {list(self.betas)}, expected both from 0 to below 1")
        if self.batch_size % self.micro_batch_size:
            raise InputError(
                f"batch_size: got {self.batch_size}, expected a multiple of micro_batch_size, {self.micro_batch_size}"
            )
        if self.query_prompt == "other" and self.query_mask == "masked":
            raise InputError(
                "query_mask: got masked, which hides a prompt that query_prompt=other shows; expected short"
            )
        if self.auxiliary_epochs is not None and self.auxiliary_epochs < 0:
            raise InputError(f"auxiliary_epochs: got {self.auxiliary_epochs}, expected at least 0, or null")
        if self.patience is not None and not self.held_out:
            raise InputError("patience: needs held-out traces, expected held_out above 0")

    def to_dict(self) -> dict[str, Any]:
        """Settings by name, as YAML writes them."""
        return {
            one.name: list(value) if isinstance(value := getattr(self, one.name), tuple) else value
            for one in fields(self)
        }


def read_config(file: str | Path | None = None, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Settings from a YAML file and ``key=value`` pairs, which win.

    Args:
        file: YAML with settings by name; defaults alone when None.
        overrides: ``key=value``, the value as YAML writes it; ``traces=[a.jsonl, b.jsonl]``.

    Raises:
        InputError: no such file, not YAML, an unknown key (the nearest is named), a value of another type or out of
            range.
    """
    found: dict[str, Any] = {}
    if file is not None:
        found |= _from_file(Path(file))
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{pair!r}: expected key=value")
        found[key.strip()] = read_yaml(text, f"{key.strip()}={text}")
    return make_config(found)


def make_config(settings: Mapping[str, Any]) -> TrainingConfig:
    """Settings by name, checked. Raises InputError as :func:`read_config` does."""
    hints = get_type_hints(TrainingConfig)
    known = [one.name for one in fields(TrainingConfig)]
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            meant = f"; did you mean {near[0]}?" if near else f"; expected some of {', '.join(known)}"
            raise InputError(f"{name}: no such setting{meant}")
        checked[name] = typed(name, value, hints[name])
    return TrainingConfig(**checked)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"recipe {file}: {why}; expected a YAML file of settings") from error
    found = read_yaml(text, f"recipe {file}")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"recipe {file}: got {type(found).__name__}, expected settings by name")
    return found
