"""Files that a session reads and writes beside its log: presets, a new run folder, branches as traces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError, ModelError, RunError
from safekey_interp.exploration.branch_state import BranchState
from safekey_interp.exploration.session_log import KIND, SessionLog
from safekey_interp.exploration.session_readers import SessionReader, reader_of
from safekey_interp.generation.monitor import Threshold
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.models.model import Model, load
from safekey_interp.runs.storage import write_aside
from safekey_interp.version import __version__


def presets_of(traces: str | Path | Iterable[Trace]) -> tuple[Trace, ...]:
    """The traces of a file, or those given. Raises InputError for a file that cannot be read."""
    return tuple(read_traces(str(traces)) if isinstance(traces, str | Path) else traces)


def new_log(path: Path, models: Sequence[Model], settings: Mapping[str, Any], presets: Sequence[Trace]) -> SessionLog:
    """A new run folder. Raises RunError where it cannot be made."""
    manifest = {
        "safekey_interp": __version__,
        "kind": KIND,
        "status": "running",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": [dict(model.record()) for model in models],
        "settings": dict(settings),
        "readers": [],
    }
    log = SessionLog(path, manifest)
    log.write_presets(presets)
    return log


def models_of(manifest: Mapping[str, Any], given: Sequence[Model] | None, **loading: Any) -> tuple[Model, ...]:
    """The models of a session that was saved.

    Args:
        manifest: of the session.
        given: the models; loaded in the type that the session names when None.
        loading: further options of ``load``.

    Raises:
        ModelError: one cannot be loaded, or is not the one that wrote it.
    """
    records = manifest["models"]
    if given is None:
        given = [
            load(each["spec"], revision=each["revision"], adapter=each["adapter"], dtype=each["dtype"], **loading)
            for each in records
        ]
    if len(given) != len(records):
        raise ModelError(f"models: got {len(given)}, expected the {len(records)} that wrote the session")
    for model, record in zip(given, records, strict=True):
        if model.fingerprint() != record["weights_sha256"]:
            raise ModelError(f"model {model.spec}: its weights are not those that wrote the session ({record['spec']})")
    return tuple(given)


def readers_of(log: SessionLog, models: Sequence[Model], seed: int) -> list[SessionReader]:
    """The readers of a session that was saved. Raises InputError where a file cannot be read."""
    kinds = {"Probe": Probe, "Direction": Direction}
    readers = []
    for each in log.manifest["readers"]:
        reader = kinds[each["kind"]].load(log.path / "readers" / each["file"])
        threshold = None if each["threshold"] is None else Threshold(**each["threshold"])
        about = {"name": each["name"], "threshold": threshold, "why": each["no_threshold"]}
        readers.append(reader_of(reader, models, **about, seed=seed))
    return readers


def write_reader(log: SessionLog, reader: SessionReader) -> None:
    """Keep a reader with its threshold."""
    threshold = None if reader.threshold is None else asdict(reader.threshold)
    log.write_reader(reader, threshold=threshold, no_threshold=reader.no_threshold)


def write_branches(path: Path, states: Sequence[BranchState]) -> int:
    """Responses as traces, a line of JSON each; how many.

    Raises:
        InputError: the name is not one of JSON Lines.
        RunError: the file cannot be written.
    """
    if path.suffix.lower() != ".jsonl":
        raise InputError(f"traces {path}: expected a name that ends in .jsonl")
    rows = [_row(state) for state in states]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    try:
        write_aside(path, lambda file: file.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise RunError(f"traces {path}: cannot be written: {error.strerror or error}") from error
    return len(rows)


def _row(state: BranchState) -> dict[str, Any]:
    """A branch as a row that traces are read from."""
    branch, trace = state.branch, state.branch.trace
    label = {} if trace.label is None else {"label": trace.label}
    about = {"group": trace.group, "branch": branch.name, "change": branch.change, "model": state.model.name}
    turns = [{"role": turn.role, "content": turn.content} for turn in trace.turns]
    if len(turns) == 1:
        said: dict[str, Any] = {"prompt": trace.prompt, "response": state.response}
    else:
        said = {"messages": [*turns, {"role": "assistant", "content": state.response}]}
    return {"id": branch.branch_id, **said, **label, **about}
