"""Run of training: from a model, traces and settings to a trained model in a run folder.

    read and check -> examples -> steps, with checkpoints and snapshots -> tables -> model -> page

Nothing is written before the data, the settings and the folder are known to be usable. A killed run resumes from its
last checkpoint and ends with the weights that it would have ended with. The folder holds ``run.json`` (the manifest),
``config.yaml`` (the settings), ``model`` (the trained model, the safety head and a card), ``checkpoints``,
``steps.parquet`` and ``held_out.parquet`` (every term by step), and the tables of the snapshots.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_interp.capture.streaming import on_threads, threads_for
from safekey_interp.data.trace_reader import TraceSource
from safekey_interp.errors import InputError
from safekey_interp.models.chat_template import tokenizer_hash
from safekey_interp.progress import Progress
from safekey_interp.runs.manifest import manifest_of
from safekey_interp.runs.processes import place
from safekey_interp.runs.run_folder import Run
from safekey_interp.runs.run_session import RunSession, run_session
from safekey_interp.runs.run_writer import RunWriter
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.clear_errors import clear_errors
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.distributed import check_installed, check_sharded, meet, n_shards
from safekey_interp.training.examples import (
    Examples,
    check_known_examples,
    longest_row,
    prepare_examples,
    traces_with_spans,
)
from safekey_interp.training.head_learning_rate import head_rate
from safekey_interp.training.memory import MemoryEstimate, available, check_memory, estimate, shape_of
from safekey_interp.training.model_preparation import check_dtype, check_head_layer, prepared_loss
from safekey_interp.training.other_prompts import SecondPass, second_pass
from safekey_interp.training.query_mask import Way, check_packing, exact_way
from safekey_interp.training.schedule import Schedule, schedule_of
from safekey_interp.training.training_checkpoints import load_model
from safekey_interp.training.training_cost import training_cost

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model
    from safekey_interp.training.trainer import SafeKeyTrainer

_FREE = ("model", "traces", "out", "save_total_limit", "report_to")
"""Settings that may differ when a run resumes: names, and what changes no number."""


class _Task(NamedTuple):
    """A model, its data and the way in which it is trained."""

    model: Model
    source: Iterable[Any]
    examples: Examples
    config: TrainingConfig
    schedule: Schedule
    way: Way | None


def train(
    model: Model,
    traces: Any = None,
    config: TrainingConfig | None = None,
    *,
    allow_unknown: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Fine-tune a model with language modelling, the safety head and query-mask modelling; write a run folder.

    Args:
        model: from ``load`` or ``from_hf``, in float32 (only below adapters may weights be in half precision); it is
            trained in place, and is the trained model afterwards.
        traces: what ``read_traces`` reads, or what it returned; ``config.traces`` when None.
        config: all settings.
        allow_unknown: accept traces of which more than 5 % of the tokens are unknown to the model's tokenizer.
        overwrite: delete a run that is in the folder.
        command: what the user typed, for the record.
        progress: shows how far the run is; bars in a notebook, and nothing elsewhere, when None.

    Returns:
        The run: ``run.steps`` and ``run.held_out`` are its losses, ``run.path / "model"`` is what ``load`` reads.

    Raises:
        InputError: settings, model or data that cannot be trained on, or more memory needed than there is.
        RunError: the folder cannot be used, or holds a run of other settings or other data.
    """
    config = config or TrainingConfig()
    check_installed()
    check_sharded(config)
    check_dtype(model, config)
    check_head_layer(model, config)
    meet(model)
    opened = run_session(config.out, overwrite=overwrite, progress=progress)
    with opened as session, on_threads(threads_for(model)):
        session.progress.stage("reading", None)
        source = traces_with_spans(traces if traces is not None else _named(config), config)
        examples = prepare_examples(model, source, config, session.progress.advance)
        check_known_examples(model, examples, allowed=allow_unknown)
        rate = head_rate(model, examples.train, config)
        if rate is not None:
            config = replace(config, head_learning_rate=rate.learning_rate)
        manifest = _manifest(model, source, examples, config, command)
        manifest["head_rate"] = rate._asdict() if rate else None
        if (run := session.finished(manifest)) is not None:
            load_model(run.path / "model", model.hf)
            return run
        schedule, way = plan(model, examples, config)
        again = second_pass(config, examples.train, longest_row(model, config), way.layout if way else None)
        needed = needed_memory(model, examples, config, again)
        check_memory(needed, available(model.device))
        manifest["way"] = way._asdict() if way else None
        manifest["second_pass"] = again._asdict() if again else None
        session.lap("reading")
        with prepared_loss(model, config) as (loss, adapted):
            # The trainer is there before the folder is, so that what it refuses leaves nothing.
            trainer = _trainer(_Task(model, source, examples, config, schedule, way), loss, adapted, session.progress)
            about: Any = {"way": way, "memory": needed.total, "done": session.done_steps(manifest)}
            session.progress.starts(partial(training_cost, model, loss, examples, config, schedule, **about))
            session.lap("estimating")
            with session.writing(manifest) as writer, clear_errors(session.team, session.path):
                _run(trainer, writer, session)
        return session.result()


def check(model: Model, examples: Examples, config: TrainingConfig) -> None:
    """Refuse what a run would refuse once its model is prepared, and leave the model as it was.

    Raises:
        InputError: as :func:`train` does.
    """
    from safekey_interp.training.snapshot_callback import bank_of

    check_sharded(config)
    check_dtype(model, config)
    if config.probe_every:
        _check_watched(examples)
        bank_of(model, config)
    with prepared_loss(model, config) as (_, adapted):
        if adapted is not None:
            adapted.unload()


def plan(model: Model, examples: Examples, config: TrainingConfig) -> tuple[Schedule, Way | None]:
    """The schedule of a run and the way in which K is predicted with the prompt masked; None without that loss.

    Raises:
        InputError: the model does not keep traces in one row apart, and ``packing`` asks for it.
    """
    if config.packing:
        check_packing(model.hf)
    schedule = schedule_of(config, -(-len(examples.train) // config.batch_size))
    if not config.query_mask_weight:
        return schedule, None
    return schedule, exact_way(model.hf, config.query_mask, shows_other=config.query_prompt == "other")


def needed_memory(model: Model, examples: Examples, config: TrainingConfig, again: SecondPass | None) -> MemoryEstimate:
    """Bytes that a run needs at its most, the second pass included."""
    longest = examples.report["train"]["longest"]
    options = {"longest": longest, "longest_again": again.longest if again else 0, "sharded_over": n_shards()}
    return estimate(shape_of(model, config), config, **options)


def _run(trainer: SafeKeyTrainer, writer: RunWriter, session: RunSession) -> None:
    """From the newest checkpoint, or from the start, to the end."""
    from safekey_interp.training.callbacks import clear_logger_errors
    from safekey_interp.training.probe_snapshots import forget_after
    from safekey_interp.training.results import write_results
    from safekey_interp.training.training_checkpoints import (
        best_step,
        checkpoint_to_resume,
        forget_old,
        has_no_gain,
        load_weights,
        log_of,
        step_of,
    )

    config, schedule, loss, adapted = trainer.config, trainer.schedule, trainer.loss, trainer.adapted
    folder = writer.path / "checkpoints"
    trainer.args.output_dir = str(folder)
    newest = checkpoint_to_resume(folder, config, session.team)
    done = step_of(newest) if newest else 0
    forget_after(writer.path / "looks", done)
    session.progress.stage("training", schedule.steps)
    session.progress.advance(done)
    history = log_of(newest) if newest else []
    is_sharded = False
    if newest is not None and (done >= schedule.steps or (config.patience and has_no_gain(history, config.patience))):
        load_weights(newest, loss, adapted=adapted)
    else:
        # A run that resumes has the measurement before the first step in its log.
        trainer.args.eval_on_start = trainer.args.eval_on_start and newest is None
        with clear_logger_errors(config.report_to):
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        history = trainer.state.log_history
        is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if config.patience and (best := best_step(history)) is not None:
        load_weights(folder / f"checkpoint-{best}", loss, adapted=adapted)
    trainer.accelerator.wait_for_everyone()
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_sharded else None
    if adapted is not None:
        adapted.merge_and_unload()
    session.lap("training")
    if session.team.is_first:
        forget_old(folder, history, config)
        seconds = session.timings["training"]
        options: Any = {"config": config, "schedule": schedule, "seconds": seconds, "state": state}
        write_results(writer, loss, trainer.processing_class, history, **options)


def _trainer(task: _Task, loss: BatchLoss, adapted: Any, progress: Progress) -> SafeKeyTrainer:
    from transformers import TrainerCallback

    from safekey_interp.training.callbacks import StopsEarly, clear_logger_errors
    from safekey_interp.training.snapshot_callback import callback_of
    from safekey_interp.training.trainer import SafeKeyTrainer
    from safekey_interp.training.trainer_arguments import arguments_of

    class ShowsSteps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress.advance(1)

    model, config, examples = task.model, task.config, task.examples
    path = Path(config.out)
    callbacks: list[TrainerCallback] = [ShowsSteps()]
    if config.patience:
        callbacks.append(StopsEarly(config.patience))
    if config.probe_every:
        callbacks.append(callback_of(model, watched(task.source, examples, config), path / "looks", config))
    has_held_out = bool(examples.held_out)
    # The Trainer makes its folder at once; it gets the run's once that is there.
    arguments = arguments_of(config, task.schedule, Path(gettempdir()), model, has_held_out=has_held_out)
    with clear_logger_errors(config.report_to):
        return SafeKeyTrainer(
            loss,
            config=config,
            arguments=arguments,
            schedule=task.schedule,
            layout=task.way.layout if task.way else None,
            train=examples.train,
            limit=longest_row(model, config),
            held_out=examples.held_out,
            tokenizer=model.tokenizer,
            adapted=adapted,
            callbacks=callbacks,
        )


def _check_watched(examples: Examples) -> None:
    if not examples.held_out:
        raise InputError("probe_every: the probes read held-out traces, expected held_out above 0")


def watched(source: Iterable[Trace], examples: Examples, config: TrainingConfig) -> list[Trace]:
    """Held-out traces for the probes: a draw by the seed, harmful and benign in turn as far as there are."""
    _check_watched(examples)
    drawn = random.Random(config.seed).sample(examples.held_out, len(examples.held_out))
    turn: dict[str | None, int] = {}
    order = []
    for example in drawn:
        turn[example.label] = turn.get(example.label, 0) + 1
        order.append((turn[example.label], example.trace_id))
    wanted = {trace_id: place for place, (_, trace_id) in enumerate(sorted(order)[: config.probe_traces])}
    return sorted((t for t in source if t.trace_id in wanted), key=lambda trace: wanted[trace.trace_id])


def _manifest(
    model: Model, source: TraceSource, examples: Examples, config: TrainingConfig, command: Sequence[str]
) -> dict[str, Any]:
    settings = config.to_dict()
    manifest = manifest_of(
        model.record(),
        tokenizer_hash(model.tokenizer),
        source.record(),
        {name: value for name, value in settings.items() if name not in _FREE},
        plan={"threads": threads_for(model), "processes": place().world_size},
        seed=config.seed,
        command=command,
    )
    return manifest | {"kind": "training", "settings": settings, "data_report": examples.report}


def _named(config: TrainingConfig) -> list[str]:
    if not config.traces:
        raise InputError("traces: got none, expected files of traces, such as traces=[data.jsonl]")
    return list(config.traces)
