"""Branches, edits and events as JSON records, and back.

Directions are files of their own, named by the hash of what they do; all else is in the record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safekey_interp.data.trace import TokenSpan, Trace
from safekey_interp.data.trace_record import record_of, trace_of
from safekey_interp.exploration.branch_record import Branch, StatePatch
from safekey_interp.exploration.session_events import BranchEnded, Event, SpansFound, TokenScore, TokenWritten
from safekey_interp.generation.generation_edits import Ablate, GenerationEdit, HideSpan, Steer
from safekey_interp.generation.sampling import Sampling
from safekey_interp.measures.direction_record import Direction
from safekey_interp.runs.storage import write_aside

_PLAIN = ("branch_id", "name", "change", "model", "prefill", "first_draw", "parent", "at")
_PLAIN_TOO = ("control", "control_of", "no_control")


def branch_record(branch: Branch, folder: Path) -> dict[str, Any]:
    """A branch for a line of a file; directions of its edits go to ``folder``."""
    plain = {name: getattr(branch, name) for name in (*_PLAIN, *_PLAIN_TOO)}
    return plain | {
        "trace": _trace_record(branch.trace),
        "prefill_ids": _list(branch.prefill_ids),
        "edits": [_edit_record(edit, folder) for edit in branch.edits],
        "patch": None if branch.patch is None else _patch_record(branch.patch),
        "sampling": branch.sampling.to_dict(),
    }


def branch_of(record: Mapping[str, Any], folder: Path) -> Branch:
    """The branch of a record."""
    return Branch(
        **{name: record[name] for name in (*_PLAIN, *_PLAIN_TOO)},
        trace=trace_of(list(record["trace"])),
        prefill_ids=None if (ids := record.get("prefill_ids")) is None else tuple(ids),
        edits=tuple(_edit_of(each, folder) for each in record["edits"]),
        patch=None if record["patch"] is None else _patch_of(**record["patch"]),
        sampling=Sampling(**record["sampling"]),
    )


def event_record(event: Event) -> dict[str, Any]:
    """An event for a line of a file: its only name says which kind it is."""
    if isinstance(event, TokenWritten):
        return {"token": token_record(event)}
    if isinstance(event, SpansFound):
        return {"spans": spans_record(event)}
    return {"ended" if isinstance(event, BranchEnded) else "failed": asdict(event)}


def token_record(token: TokenWritten) -> dict[str, Any]:
    """A token for a line of a file, without its masses."""
    scores = {name: [s.value, s.control_mean, s.control_sd, s.alarm] for name, s in token.scores.items()}
    names = ("branch", "position", "index", "text", "token_id", "logprob", "is_given")
    return {name: getattr(token, name) for name in names} | {"scores": scores}


def token_of(record: Mapping[str, Any]) -> TokenWritten:
    """The token of a record."""
    scores = {
        name: TokenScore(value=_number(value), control_mean=_number(mean), control_sd=_number(sd), alarm=alarm)
        for name, (value, mean, sd, alarm) in record["scores"].items()
    }
    return TokenWritten(**{**record, "logprob": _number(record["logprob"]), "scores": scores})


def spans_record(spans: SpansFound) -> dict[str, Any]:
    """Spans for a line of a file."""
    ends = {
        name: None if span is None else [span.start, span.end]
        for name in ("understanding", "key_sentence")
        for span in [getattr(spans, name)]
    }
    read_at = {name: list(positions) for name, positions in spans.read_at.items()}
    about = {"branch": spans.branch, "is_provisional": spans.is_provisional, "reason": spans.reason}
    return about | ends | {"read_at": read_at}


def spans_of(record: Mapping[str, Any]) -> SpansFound:
    """The spans of a record."""
    found = {name: TokenSpan(*record[name]) if record[name] else None for name in ("understanding", "key_sentence")}
    read_at = {name: tuple(positions) for name, positions in record.get("read_at", {}).items()}
    return SpansFound(**{**record, **found, "read_at": read_at})


def ended_of(record: Mapping[str, Any]) -> BranchEnded:
    """The end of a branch of a record."""
    return BranchEnded(**record)


def _edit_record(edit: GenerationEdit, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"edit": type(edit).__name__, "layers": _list(edit.layers)}
    if isinstance(edit, HideSpan):
        return record | {"span": edit.span, "from_": edit.from_, "heads": _list(edit.heads)}
    record |= {"positions": _list(edit.positions), "direction": _saved(edit.direction, folder)}
    return record | {"scale": edit.scale} if isinstance(edit, Steer) else record


def _edit_of(record: Mapping[str, Any], folder: Path) -> GenerationEdit:
    options = {name: value for name, value in record.items() if name not in ("edit", "span", "direction")}
    if record["edit"] == "HideSpan":
        return HideSpan(record["span"], **options)
    direction = Direction.load(folder / f"{record['direction']}.safetensors")
    return Steer(direction, **options) if record["edit"] == "Steer" else Ablate(direction, **options)


def direction_file(direction: Direction, folder: Path) -> Path:
    """The file of a direction, named by the hash of what it says."""
    content = [str(getattr(direction, field.name)) for field in fields(direction) if field.name != "controls"]
    name = hashlib.sha256(direction.vector.tobytes() + "\n".join(content).encode()).hexdigest()[:16]
    return folder / f"{name}.safetensors"


def _saved(direction: Direction, folder: Path) -> str:
    """Name of a direction's file, which is written where it is not there."""
    file = direction_file(direction, folder)
    if not file.exists():
        folder.mkdir(exist_ok=True)
        write_aside(file, direction.save)
    return file.stem


def _patch_record(patch: StatePatch) -> dict[str, Any]:
    source = patch.source if isinstance(patch.source, str) else _trace_record(patch.source)
    return {"source": source, "positions": patch.positions, "layers": _list(patch.layers)}


def _patch_of(source: str | list[Any], **options: Any) -> StatePatch:
    return StatePatch(source if isinstance(source, str) else trace_of(source), **options)


def _trace_record(trace: Trace) -> list[Any]:
    return json.loads(record_of(trace)[0])


def _list(values: Any) -> list[Any] | None:
    return None if values is None else list(values)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
