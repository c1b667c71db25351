"""How do a model, traces and settings become a trained model in a run folder?

    read and check -> examples -> steps, with checkpoints and looks -> tables -> model -> page

Nothing is written before the data, the settings and the folder are known to be usable. A killed run goes on from its
last checkpoint and ends with the weights that it would have ended with. The folder holds ``run.json`` (what the run
was), ``config.yaml`` (its settings), ``model`` (the trained model, the safety head and a card), ``checkpoints``,
``steps.parquet`` and ``held_out.parquet`` (every term by step), and the tables of the looks with the probes.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch

from safekey_interp.assembly import Progress
from safekey_interp.capture.stream import on_threads, threads_for
from safekey_interp.datasets import read_traces
from safekey_interp.errors import InputError, RunError
from safekey_interp.losses import SafetyHead
from safekey_interp.manifest import content_of, manifest_of
from safekey_interp.measuring import check_same_task, wait_until
from safekey_interp.processes import GOES_ON, Team, place, team
from safekey_interp.run_writer import RunWriter, check_out, known_run
from safekey_interp.runs import Run, manifest_in, open_run
from safekey_interp.storage import write_aside, write_folder_aside, write_table
from safekey_interp.training.card import card
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import Examples, prepare_examples
from safekey_interp.training.memory import available, check_memory, estimate, shape_of
from safekey_interp.training.query_mask import Way, exact_way
from safekey_interp.training.schedule import Schedule, schedule_of
from safekey_interp.training.settings import write_yaml
from safekey_interp.training.terms import BatchLoss
from safekey_interp.training.weights import load_model

if TYPE_CHECKING:
    from safekey_interp.models import Model
    from safekey_interp.training.trainer import SafeKeyTrainer

_FREE = ("model", "traces", "out", "save_total_limit", "report_to")
"""Settings that may differ when a run goes on: names, and what changes no number."""
_EXCHANGES = ("gloo", "nccl", "connection", "process group")
"""Words of errors that tell of other processes."""
_TABLES = {"steps": "lm", "held_out": "eval_lm"}
"""Tables of the log, and what tells their lines."""


class _Task(NamedTuple):
    """What is to be trained on what, and how."""

    model: Model
    source: Iterable[Any]
    examples: Examples
    config: TrainingConfig
    schedule: Schedule
    way: Way | None


class _Silent:
    def stage(self, name: str, total: int | None) -> None: ...

    def advance(self, n: int) -> None: ...


def train(
    model: Model,
    traces: Any = None,
    config: TrainingConfig | None = None,
    *,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Fine-tune a model with language modelling, the safety head and query-mask modelling; write a run folder.

    Args:
        model: from ``load`` or ``from_hf``, in float32; it is trained in place, and is the trained model afterwards.
        traces: what ``read_traces`` reads, or what it returned; ``config.traces`` when None.
        config: all settings.
        overwrite: delete a run that is in the folder.
        command: what the user typed, for the record.
        progress: is told how far the run is.

    Returns:
        The run: ``run.steps`` and ``run.held_out`` are its losses, ``run.path / "model"`` is what ``load`` reads.

    Raises:
        InputError: settings or data that cannot be trained on, or more memory needed than there is.
        RunError: the folder cannot be used, or holds a run of other settings or other data.
    """
    config = config or TrainingConfig()
    check_installed()
    if config.patience and n_shards() > 1:
        raise InputError("patience: the best weights are read back whole, expected null under FSDP and DeepSpeed")
    tell = progress or _Silent()
    path = Path(config.out)
    _meet(model)
    with team() as together, on_threads(threads_for(model)):
        if together.is_first:
            check_out(path)
        tell.stage("reading", None)
        source = read_traces(traces if traces is not None else _named(config))
        examples = prepare_examples(model, source, config, tell.advance)
        manifest = _manifest(model, source, examples, config, command)
        check_same_task(together, manifest["identity"])
        if _is_complete(path, manifest, together, overwrite=overwrite):
            load_model(path / "model", model.hf)
            return open_run(path)
        longest = examples.report["train"]["longest"]
        needed = estimate(shape_of(model, config), config, longest=longest, sharded_over=n_shards())
        check_memory(needed, available(model.device))
        with _writer(path, manifest, together, overwrite=overwrite) as writer:
            try:
                _run(_Task(model, source, examples, config, *plan(model, examples, config)), writer, together, tell)
            except OSError as error:
                why = f"{error.strerror or error}; once that is mended, {GOES_ON}"
                raise RunError(f"out {path}: cannot be written: {why}") from error
            except RuntimeError as error:
                # Whoever loses another process in the middle of an exchange hears of a closed connection.
                if together.is_alone or not any(word in str(error).lower() for word in _EXCHANGES):
                    raise
                raise RunError(f"another process is gone ({str(error).splitlines()[0][:80]}); {GOES_ON}") from error
        together.gather()
        return open_run(path)


def plan(model: Model, examples: Examples, config: TrainingConfig) -> tuple[Schedule, Way | None]:
    """The schedule of a run and the way in which K is predicted with the prompt masked; None without that loss."""
    schedule = schedule_of(config, -(-len(examples.train) // config.batch_size))
    return schedule, exact_way(model.hf, config.query_mask) if config.query_mask_weight else None


def _run(task: _Task, writer: RunWriter, together: Team, tell: Progress) -> None:
    from safekey_interp.training.trainer import best_step, checkpoints, forget_old, log_of, step_of
    from safekey_interp.training.watching import forget_after
    from safekey_interp.training.weights import load_weights

    began = time.perf_counter()
    model, config, schedule = task.model, task.config, task.schedule
    loss, adapted = _loss(model, config)
    folder = writer.path / "checkpoints"
    found = checkpoints(folder)
    newest = found[-1] if found else None
    done = step_of(newest) if newest else 0
    forget_after(writer.path / "looks", done)
    trainer = _trainer(task, loss, adapted, writer.path, tell)
    tell.stage("training", schedule.steps)
    tell.advance(done)
    if newest is not None and (done >= schedule.steps or _has_stopped(log_of(newest), config)):
        load_weights(newest, loss, adapted=adapted)
        history = log_of(newest)
    else:
        # A run that goes on has this measurement in its log.
        trainer.args.eval_on_start = trainer.args.eval_on_start and newest is None
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        history = trainer.state.log_history
    if config.patience and (best := best_step(history)) is not None:
        load_weights(folder / f"checkpoint-{best}", loss, adapted=adapted)
    trainer.accelerator.wait_for_everyone()
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_sharded else None
    if adapted is not None:
        adapted.merge_and_unload()
    if config.gradient_checkpointing:
        model.hf.gradient_checkpointing_disable()
    model.hf.eval()
    if together.is_first:
        forget_old(folder, history, config)
        writer.manifest["result"] = _result(history, schedule) | {"seconds": round(time.perf_counter() - began, 1)}
        _finish(task, loss, history, state, writer)


def _loss(model: Model, config: TrainingConfig) -> tuple[BatchLoss, Any]:
    """Model and head as they are trained, and the PeftModel around the model where adapters are."""
    hf = model.hf
    if config.head_layer is not None:
        model.layer_numbers([config.head_layer])
    head = None
    if config.head_weight:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            head = SafetyHead(model.d_model, theta=config.theta).to(model.device)
    layer = None if config.head_layer is None else config.head_layer % model.n_layers
    loss = BatchLoss(hf, head, head_layer=layer, weighs_key=config.key_weight > 0)
    adapted = None
    if config.lora_rank is not None:
        from peft import LoraConfig, get_peft_model

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            options: Any = {"r": config.lora_rank, "lora_alpha": config.lora_alpha, "task_type": "CAUSAL_LM"}
            try:
                adapted = get_peft_model(hf, LoraConfig(target_modules=config.lora_targets, **options))
            except ValueError as error:
                raise InputError(f"lora_targets {config.lora_targets!r}: {str(error).splitlines()[0]}") from error
    else:
        hf.requires_grad_(True)
    if config.gradient_checkpointing:
        hf.gradient_checkpointing_enable({"use_reentrant": False})
    if config.compile:
        hf.get_decoder().compile()
    return loss, adapted


def _trainer(task: _Task, loss: BatchLoss, adapted: Any, path: Path, tell: Progress) -> SafeKeyTrainer:
    from transformers import TrainerCallback

    from safekey_interp.training.arguments import arguments_of
    from safekey_interp.training.looks import Watches
    from safekey_interp.training.trainer import SafeKeyTrainer, StopsEarly

    class Tells(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            tell.advance(1)

    model, config, examples = task.model, task.config, task.examples
    callbacks: list[TrainerCallback] = [Tells()]
    if config.patience:
        callbacks.append(StopsEarly(config.patience))
    if config.probe_every:
        callbacks.append(Watches(model, _watched(task), path / "looks", config))
    return SafeKeyTrainer(
        loss,
        config=config,
        arguments=arguments_of(
            config, task.schedule, path / "checkpoints", model, has_held_out=bool(examples.held_out)
        ),
        schedule=task.schedule,
        layout=task.way.layout if task.way else None,
        train=examples.train,
        held_out=examples.held_out,
        tokenizer=model.tokenizer,
        adapted=adapted,
        callbacks=callbacks,
    )


def _watched(task: _Task) -> list[Any]:
    """Held-out traces that the probes look at: a draw by the seed, harmful and benign in turn as far as there are."""
    examples, config = task.examples, task.config
    if not examples.held_out:
        raise InputError("probe_every: the probes look at held-out traces, expected held_out above 0")
    drawn = random.Random(config.seed).sample(examples.held_out, len(examples.held_out))
    turn: dict[str | None, int] = {}
    order = []
    for example in drawn:
        turn[example.label] = turn.get(example.label, 0) + 1
        order.append((turn[example.label], example.trace_id))
    wanted = {trace_id: place for place, (_, trace_id) in enumerate(sorted(order)[: config.probe_traces])}
    return sorted((t for t in task.source if t.trace_id in wanted), key=lambda trace: wanted[trace.trace_id])


def _finish(task: _Task, loss: BatchLoss, history: list[dict[str, Any]], state: Any, writer: RunWriter) -> None:
    from safekey_interp.training.watching import joined
    from safekey_interp.training.weights import save_weights

    path, manifest, config = writer.path, writer.manifest, task.config
    manifest["schedule"] = task.schedule._asdict()
    manifest["way"] = task.way._asdict() if task.way else None
    for name, tells in _TABLES.items():
        lines = [_row(line, task.schedule) for line in history if tells in line]
        if lines:
            write_table(path / f"{name}.parquet", pd.DataFrame(lines).drop_duplicates("step", ignore_index=True))
    for name, table in joined(path / "looks").items():
        write_table(path / f"{name}.parquet", table)
    write_aside(path / "config.yaml", lambda file: file.write_text(write_yaml(asdict(config)), encoding="utf-8"))

    def fill(folder: Path) -> None:
        dtype = None if config.save_dtype is None else getattr(torch, config.save_dtype)
        save_weights(folder, loss, task.model.tokenizer, state=state, dtype=dtype)
        (folder / "README.md").write_text(card(manifest), encoding="utf-8")

    shutil.rmtree(path / "model", ignore_errors=True)
    write_folder_aside(path / "model", fill)
    writer.finish()


def _row(line: dict[str, Any], schedule: Schedule) -> dict[str, Any]:
    """A line of the log as a row: what was measured on held-out rows, or in the steps since the last line."""
    from safekey_interp.training.trainer import COUNTS, TERMS

    row = {name.removeprefix("eval_"): value for name, value in line.items()}
    row |= {"total": row.pop("loss"), "epoch": row["step"] / schedule.steps_per_epoch}
    # A log that was read from a checkpoint has its names in another order.
    first = [name for name in ("step", "epoch", "total", *TERMS, *COUNTS) if name in row]
    return {name: row[name] for name in [*first, *sorted(row.keys() - set(first))]}


def _result(history: list[dict[str, Any]], schedule: Schedule) -> dict[str, Any]:
    train = [_row(line, schedule) for line in history if _TABLES["steps"] in line]
    held_out = [_row(line, schedule) for line in history if _TABLES["held_out"] in line]
    return {
        "train": train[-1] if train else None,
        "held_out": {"before": held_out[0], "after": held_out[-1]} if held_out else None,
    }


def _has_stopped(history: list[dict[str, Any]], config: TrainingConfig) -> bool:
    from safekey_interp.training.trainer import has_no_gain

    return config.patience is not None and has_no_gain(history, config.patience)


def _manifest(
    model: Model, source: Any, examples: Examples, config: TrainingConfig, command: Sequence[str]
) -> dict[str, Any]:
    settings = asdict(config)
    manifest = manifest_of(
        model,
        source,
        content_of(source),
        {name: value for name, value in settings.items() if name not in _FREE},
        plan={"threads": threads_for(model), "processes": place().world_size},
        seed=config.seed,
        command=command,
    )
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return manifest | {"kind": "training", "settings": listed, "data_report": examples.report}


def n_shards() -> int:
    """How many devices a launcher spreads weights, gradients and optimizer over."""
    shards = any(os.environ.get(f"ACCELERATE_USE_{way}", "").lower() == "true" for way in ("FSDP", "DEEPSPEED"))
    return place().world_size if shards else 1


def _named(config: TrainingConfig) -> list[str]:
    if not config.traces:
        raise InputError("traces: got none, expected files of traces, such as traces=[data.jsonl]")
    return list(config.traces)


def check_installed() -> None:
    """Raise InputError where the packages of ``safekey-interp[train]`` are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("accelerate", "peft") if find_spec(name) is None]
    if missing:
        raise InputError(f"training needs {' and '.join(missing)}: pip install 'safekey-interp[train]'")


def _meet(model: Model) -> None:
    """Open the process group that the Trainer will use, before the processes speak to one another."""
    if place().world_size > 1:
        from accelerate import PartialState

        PartialState(cpu=model.device.type == "cpu")


def _is_complete(path: Path, manifest: dict[str, Any], together: Team, *, overwrite: bool) -> bool:
    known = known_run(path, manifest) if together.is_first and not overwrite else None
    is_complete = known is not None and known.is_complete
    if is_complete:
        shutil.rmtree(path / "looks", ignore_errors=True)  # a kill after the last word left them
    return together.gather(is_complete)[0]


@contextmanager
def _writer(path: Path, manifest: dict[str, Any], together: Team, *, overwrite: bool) -> Iterator[RunWriter]:
    """The first process holds the folder."""
    if together.is_first:
        with RunWriter.begin(path, manifest, overwrite=overwrite) as writer:
            together.gather(writer.manifest.get("created"))
            yield writer
    else:
        began = together.gather()[0]
        wait_until(
            lambda: (manifest_in(path) or {}).get("created") == began,
            f"out {path}: the run that process 0 began is not there; expected a folder that all machines share",
        )
        with RunWriter.join(path) as writer:
            yield writer
