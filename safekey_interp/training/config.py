"""Settings of a training run, from a YAML recipe and ``key=value`` pairs.

They are checked at once, before anything is loaded. The defaults are the paper's schedule (SafeKey, Zhou et al. 2025,
arXiv 2505.16186), except where a field says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from safekey_interp.data.span_expressions import check_span_name, parse_span
from safekey_interp.errors import InputError
from safekey_interp.runs.settings import LARGEST_SEED, SettingError, Settings, settings_model

_WITH_EXPONENT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$")


@settings_model
class TrainingConfig(Settings):
    """All settings of a training run."""

    model: str = "organism:base"
    """What ``load`` reads: a name, a folder, a hub id."""
    traces: tuple[str, ...] = ()
    """Files that ``read_traces`` reads."""
    out: str = "runs/training"
    """Folder of the run: checkpoints, tables, the trained model."""
    spans: dict[str, str] | None = None
    """Spans of the responses by name, for the probes: each a regular expression, or @FINDER.key_sentence; null for none
    but those of the files."""
    prompt_spans: dict[str, str] | None = None
    """The same of the prompts; regular expressions alone."""
    finder: Literal["rules", "given", "llm"] = "rules"
    """How U and K are found; ``given`` takes the spans that came with the data."""
    delimiters: tuple[str, str] | None = None
    """Marks of the reasoning; the known families' when null."""
    held_out: float = Field(default=0.1, ge=0, le=0.9)
    """Share of groups (prompts) that no step sees."""
    max_length: int = Field(default=8192, ge=2)
    """Most tokens of a trace; longer ones are left out and counted, never cut. Paper: 8,192."""

    head_weight: float = Field(default=0.2, ge=0)
    """w_head, the weight of the safety head's loss; 0 turns it off. Paper: 0.2."""
    query_mask_weight: float = Field(default=0.2, ge=0)
    """w_qmm, the weight of query-mask modelling; 0 turns it off. Paper: 0.2."""
    theta: float = Field(default=0.5, ge=0, le=1)
    """Share of U's path in the head's loss; 1 and 0 are the single paths. Paper: 0.5."""
    query_mask: Literal["short", "packed", "masked"] = "short"
    """How K is predicted with the prompt masked; the numbers are the same."""
    query_prompt: Literal["masked", "other"] = "masked"
    """What query-mask modelling has in the prompt's place: nothing, or another request's prompt, drawn from all labels
    anew in every step: a control of the mask. Paper: masked."""
    key_weight: float = Field(default=0.0, ge=0)
    """Weights K up with the prompt visible: the control of query-mask modelling. Paper: none."""
    shuffled_labels: bool = False
    """Shuffles the head's labels over groups: its control. Paper: none."""
    auxiliary_epochs: float | None = Field(default=2.0, ge=0)
    """Epochs at the end in which the extra losses count; null for all. Paper: the last 2 of 5."""
    head_layer: int | None = None
    """The layer whose output the safety head reads; the states after the final norm when null. Paper: these."""

    epochs: float = Field(default=5.0, gt=0)
    """Passes over the data. Paper: 5."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps in place of ``epochs``; ``auxiliary_epochs`` out of ``epochs`` then is a share of these."""
    batch_size: int = Field(default=128, ge=1)
    """Traces of an optimizer step, over all processes. Paper: 128."""
    micro_batch_size: int = Field(default=1, ge=1)
    """Traces of one forward pass of one process; the rest is accumulated."""
    packing: bool = False
    """Lays the traces of a forward pass behind one another in one row, in place of padding them to the longest. It pays
    with an attention function that skips what other documents hold (flash attention)."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak of the schedule. Paper: 1e-5."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Peak of the schedule for the safety head; when null, such that one step moves the head's logit by at most 2
    (``training/head_learning_rate.py``). Paper: the model's."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's. Paper: 0.9, 0.95."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """AdamW's, on matrices alone: neither biases nor norms. Paper: 1e-4."""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises. Paper: 5 %."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls. Paper: cosine."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 for never."""
    seed: int = Field(default=2002, ge=0, le=LARGEST_SEED)
    """Of data order, dropout and the head's first weights. Paper: 2002."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic; weights stay as they were loaded. Paper: bf16."""
    gradient_checkpointing: bool = False
    """Computes activations again in the backward pass: slower, leaner."""
    compile: bool = False
    """torch.compile."""
    lora_rank: int | None = Field(default=None, ge=1)
    """Trains low-rank adapters of this rank (peft) in place of all weights; the safety head is always trained."""
    lora_alpha: float = Field(default=16.0, ge=0)
    """Scale of the adapters."""
    lora_targets: str | tuple[str, ...] = "all-linear"
    """Which modules get adapters: their names' ends in a list, a regular expression of whole names, or all-linear."""

    save_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; at the end of each epoch when null."""
    save_total_limit: int = Field(default=2, ge=1)
    """Checkpoints that are kept."""
    probe_every: int | None = Field(default=None, ge=1)
    """Steps between two snapshots of the held-out traces by the probes; never when null."""
    probe_traces: int = Field(default=64, ge=1)
    """Held-out traces of a snapshot."""
    probe_queries: tuple[str, ...] | None = None
    """Span expressions of the tokens whose rows of the attention pattern a snapshot reads; key sentence, deciding token
    and understanding when null."""
    probe_keys: tuple[str, ...] | None = None
    """Span expressions of the tokens whose attention a snapshot sums; those of probe when null."""
    probe_positions: tuple[str, ...] | None = None
    """Span expressions of the tokens at which a snapshot reads states; those of probe when null."""
    key_sentences: str | None = None
    """File of safe and compliant key sentences whose probability a snapshot measures; the package's own when null."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between two measurements of the held-out loss; at the end of each epoch when null."""
    log_every: int = Field(default=10, ge=1)
    """Steps between two rows of the table of losses, each a mean over the steps since the last."""
    log_gradient_norms_every: int | None = Field(default=None, ge=1)
    """Steps between two measurements of the norm of each term's gradient, in a table of its own; never when null. A
    step that is measured costs one more forward and backward pass for each term."""
    patience: int | None = Field(default=None, ge=1)
    """Measurements of the held-out loss without a gain after which training stops; never when null. The model with the
    lowest held-out loss is then the one that is kept."""
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Floating-point type of the trained model's file; as it was trained when null."""
    report_to: tuple[str, ...] = ()
    """Trackers, as transformers names them."""

    @field_validator("traces", "report_to", "probe_queries", "probe_keys", "probe_positions", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def __post_init__(self) -> None:
        """Refuse settings that do not fit one another."""
        if not all(0 <= beta < 1 for beta in self.betas):
            raise SettingError("betas", f"got {list(self.betas)}, expected both from 0 to below 1")
        if self.batch_size % self.micro_batch_size:
            expected = f"a multiple of micro_batch_size, {self.micro_batch_size}"
            raise SettingError("batch_size", f"got {self.batch_size}, expected {expected}")
        if self.query_prompt == "other" and self.query_mask == "masked":
            shown = "which hides a prompt that query_prompt=other shows"
            raise SettingError("query_mask", f"got masked, {shown}; expected short")
        for name in ("probe_queries", "probe_keys", "probe_positions"):
            for expression in getattr(self, name) or ():
                try:
                    parse_span(expression)
                except InputError as error:
                    raise SettingError(name, str(error)) from None
        for name in ("spans", "prompt_spans"):
            for span in getattr(self, name) or {}:
                try:
                    check_span_name(span)
                except InputError as error:
                    raise SettingError(name, str(error)) from None
        if self.patience is not None and not self.held_out:
            raise SettingError("patience", "needs held-out traces, expected held_out above 0")


def read_config(file: str | Path | None = None, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Settings from a YAML file and ``key=value`` pairs, which win.

    Args:
        file: YAML with settings by name; defaults alone when None.
        overrides: ``key=value``, the value as YAML writes it; ``traces=[a.jsonl, b.jsonl]``.

    Raises:
        InputError: no such file, not YAML, an unknown key (the nearest is named), a value of another type or out of
            range.
    """
    settings = {} if file is None else _from_file(Path(file))
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{pair!r}: expected key=value")
        settings[key.strip()] = read_yaml(text, f"{key.strip()}={text}")
    return TrainingConfig(**{str(name): value for name, value in settings.items()})


def read_yaml(text: str, where: str) -> Any:
    """What a YAML text says; ``1e-5`` is a number, as in YAML 1.2.

    Raises:
        InputError: it is not YAML; ``where`` says which text.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _WITH_EXPONENT, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none; brackets without end
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where}: not YAML ({first})") from error


def write_yaml(settings: Mapping[str, Any]) -> str:
    """Settings of plain types as YAML that :func:`read_yaml` reads back."""
    import yaml

    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def _from_file(file: Path) -> dict[Any, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"recipe {file}: {why}; expected a YAML file of settings") from error
    settings = read_yaml(text, f"recipe {file}")
    if not isinstance(settings, dict | None):
        raise InputError(f"recipe {file}: got {type(settings).__name__}, expected settings by name")
    return settings or {}
