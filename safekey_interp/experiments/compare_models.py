"""Responses of one model of a comparison, and its run of ``probe`` on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_interp.data.trace_reader import TraceSource, read_traces
from safekey_interp.errors import InputError
from safekey_interp.experiments.compare_outcomes import traces_of
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.requests import Request
from safekey_interp.generation.response_run import write_responses
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models.model_list import NamedModel
from safekey_interp.runs.processes import Team
from safekey_interp.runs.run_folder import Run, manifest_in
from safekey_interp.runs.run_writer import GENERATED

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model
    from safekey_interp.progress import Progress


class ProbedModel(NamedTuple):
    """One model of a comparison, with its responses and its run of ``probe``."""

    name: str
    """What tables and page call it."""
    traces: dict[str, Trace]
    """Its traces, with its responses."""
    run: Run | None
    """Its run of ``probe``; None when nothing could be probed."""
    step: int | None
    """The step of training after which it was saved; None outside a series."""
    record: dict[str, Any]
    """What ``run.json`` says of it."""


def answered(
    model: Model,
    prompts: TraceSource,
    folder: Path,
    *,
    sampling: Sampling,
    by: str | None,
    allow_unknown: bool = False,
    processes: Team,
    progress: Progress,
) -> list[Trace]:
    """The traces that a model makes of prompts, in the prompts' order whatever a kill did to that of the file.

    Args:
        model: the model that answers.
        prompts: what it is asked.
        folder: where its responses are kept; those that are there are not asked for again.
        sampling: how they are drawn.
        by: the column of ``meta`` that travels along.
        allow_unknown: accept prompts that the model's tokenizer does not know.
        processes: those of the run; the first one asks.
        progress: shows how far this is.
    """
    asked = list(prompts)
    if processes.is_first:
        write_responses(
            LocalEngine(model),
            (Request(trace=trace) for trace in _bare(asked, by)),
            out=folder / GENERATED,
            sampling=replace(sampling, n=1),
            about={"prompts": list(prompts.names), "prompts_sha256": prompts.sha256},
            allow_unknown=allow_unknown,
            progress=progress,
        )
    processes.gather()
    answers = {trace.trace_id: trace for trace in prompts.changes_of(read_traces(folder / GENERATED))}
    return [answers[trace.trace_id] for trace in asked]


def probed(
    one: NamedModel, model: Model, traces: Sequence[Trace], out: Path, *, options: Mapping[str, Any], progress: Progress
) -> ProbedModel:
    """A model's own run of ``probe``; none when nothing in its responses can be measured, and then why."""
    run, why = None, ""
    try:
        run = run_probe(model, list(traces), out=out, progress=progress, **options)
    except InputError as error:
        why = str(error)
    record = {
        "name": one.name,
        **_at(one),
        "folder": f"models/{one.folder}",
        "of": "model",
        "model": dict(model.record()),
        "probes": _probes(run),
        "not_probed": why,
        "finder_trust": None if run is None else run.manifest.get("finder_trust"),
    }
    return ProbedModel(one.name, {trace.trace_id: trace for trace in traces}, run, one.step, record)


def of_run(one: NamedModel, run: Run) -> ProbedModel:
    """A finished run of ``probe`` that is taken as it is."""
    record = {"name": one.name, **_at(one), "folder": str(run.path), "of": "run", "model": run.manifest.get("model")}
    traces = {trace.trace_id: trace for trace in traces_of(run)}
    record |= {"probes": _probes(run), "not_probed": "", "finder_trust": run.manifest.get("finder_trust")}
    return ProbedModel(one.name, traces, run, one.step, record)


def measured_before(path: Path, sides: Sequence[NamedModel]) -> list[NamedModel]:
    """A series with the checkpoints that it had in an earlier comparison and that training has deleted since.

    Args:
        path: the folder of the comparison.
        sides: the checkpoints that are there.
    """
    there = {side.name for side in sides}
    gone = []
    for record in (manifest_in(path) or {}).get("models") or []:
        model = record.get("model") or {}
        weights = Path(str(model.get("adapter") or model.get("spec")))
        folder = path / "models" / Path(record["folder"]).name
        manifest = manifest_in(folder) or {}
        is_gone = record["name"] not in there and not model.get("revision") and not weights.exists()
        if is_gone and record.get("step") is not None and manifest.get("status") == "complete":
            run = Run(folder, manifest)
            gone.append(NamedModel(name=record["name"], folder=folder.name, given=run, step=record["step"]))
    return sorted([*sides, *gone], key=lambda side: side.step or 0)


def _at(one: NamedModel) -> dict[str, Any]:
    return {} if one.step is None else {"step": one.step}


def short_hash(value: Any) -> str:
    """Hash of a JSON value, in 16 characters."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _bare(traces: Iterable[Trace], by: str | None) -> list[Trace]:
    """Prompts alone: a response of the file, and what describes it, would be mistaken for the model's own."""
    kept = (by,) if by is not None else ()
    return [
        trace.with_(
            response="", given={}, spans={}, meta={name: trace.meta[name] for name in kept if name in trace.meta}
        )
        for trace in traces
    ]


def _probes(run: Run | None) -> str | None:
    """Hash of a finished run: the comparison is made again when it changes."""
    return None if run is None else short_hash([run.manifest.get("identity"), run.manifest.get("created")])
