"""Response file: JSON lines that grow by one response at a time and survive a kill.

One JSON object a line, as :func:`safekey_interp.read_traces` reads it: trace_id, prompt, response, label, source,
group, and the spans of the prompt and of earlier turns; the other fields of the prompt's own row, if it had no
response (else they may be about that one); and of the response

    prompt_id, condition, depth, share, sample, prefill, cut, n_tokens, engine, seed, asked (a hash of what was asked)

Each line is written whole and reaches the disk before the next response is waited for; what a kill leaves of a last
line is removed at the next opening. ``NAME.settings.json`` next to it states how the responses were made: a file of
other settings is refused, and so is one that another process writes to. Prompts and samples may be added at any time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safekey_interp.data.column_names import is_read
from safekey_interp.data.row_spans import GIVEN_SPANS, SPANS_COLUMNS
from safekey_interp.data.trace import Spans
from safekey_interp.data.trace_record import intervals_of
from safekey_interp.errors import RunError, SafekeyError
from safekey_interp.generation.requests import Generated, Key, Request
from safekey_interp.runs.manifest import describe_changes, differences, versions_of
from safekey_interp.runs.processes import RESUMES
from safekey_interp.runs.storage import read_json, remove_leftovers, try_lock, write_json
from safekey_interp.version import __version__

_VERSIONS = ("torch", "transformers", "tokenizers", "vllm", "openai")
_READ_OTHERWISE = {*SPANS_COLUMNS, *GIVEN_SPANS}
"""Columns that a reader would interpret otherwise."""


class ResponseFile:
    """A file of responses while it is written; a context manager that lets go of it at its end.

    A file that was begun here and ends without any response in an error that the user can mend leaves nothing.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], handle: int, *, is_new: bool, made: Sequence[Path] = ()
    ) -> None:
        self.path = path
        """The file."""
        self.settings = settings
        """What made its responses."""
        self._handle, self._is_new, self._made = handle, is_new, made
        self._known: dict[Key, str] = {}
        self._trace_ids: set[str] = set()

    @classmethod
    def open(
        cls, path: Path, settings: Mapping[str, Any], *, about: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> ResponseFile:
        """Begin a file, or resume one of the same settings.

        Args:
            path: a name that ends in .jsonl; folders are made.
            settings: everything that responses depend on.
            about: what else is written down of this file, such as where its prompts come from.
            overwrite: delete responses of other settings.

        Raises:
            RunError: another kind of file, other settings, a line that cannot be read, a file that cannot be written,
                or one that another process is writing.
        """
        if path.suffix != ".jsonl":
            raise RunError(f"out {path}: expected a name that ends in .jsonl")
        handle = None
        made = [folder for folder in path.parents if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                try_lock(handle)
            except BlockingIOError:
                raise RunError(
                    f"out {path}: another process is writing this file; wait for it or choose another file"
                ) from None
            remove_leftovers(path.parent)
            is_new = _agree(path, settings, os.fstat(handle).st_size, overwrite=overwrite)
            if is_new:
                os.ftruncate(handle, 0)
                record = {"safekey_interp": __version__, "created": datetime.now(UTC).isoformat(timespec="seconds")}
                record |= {"settings": settings, "versions": versions_of(_VERSIONS)}
                write_json(settings_file(path), record | dict(about or {}))
            file = cls(path, settings, handle, is_new=is_new, made=made)
            file._read()
        except BaseException as error:
            if handle is not None:
                os.close(handle)
            if isinstance(error, OSError):
                raise RunError(f"out {path}: cannot be written: {error.strerror or error}") from error
            raise
        return file

    def __enter__(self) -> ResponseFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SafekeyError) and self._is_new and not self._known:
            settings_file(self.path).unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            for folder in self._made:
                if any(folder.iterdir()):
                    break
                folder.rmdir()
        os.close(self._handle)

    def __len__(self) -> int:
        """Responses in the file."""
        return len(self._known)

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """The requests that have no response yet.

        Raises:
            RunError: one of the same name was answered before, and asked something else.
        """
        unanswered, names = [], set(self._trace_ids)
        for request in requests:
            content, name = self._known.get(request.key), row_id(request)
            if content is None and name in names:
                raise RunError(f"out {self.path}: two responses would have the id {name!r}; give the prompts other ids")
            if content is None:
                names.add(name)
                unanswered.append(request)
            elif content != request.content:
                raise RunError(
                    f"out {self.path}: holds a response to another prompt or prefill under the id "
                    f"{request.trace.trace_id!r}; choose another file, or give the prompts ids of their own"
                )
        return unanswered

    def add(self, generated: Generated) -> None:
        """Write one response; it is on the disk when this returns.

        Raises:
            RunError: the disk refuses.
        """
        row = to_row(generated)
        line = json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n"
        end = os.fstat(self._handle).st_size
        try:
            while line:
                line = line[os.write(self._handle, line) :]
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, end)
            why = f"{error.strerror or error}; once that is mended, {RESUMES}"
            raise RunError(f"out {self.path}: cannot be written: {why}") from error
        self._note(row)

    def _read(self) -> None:
        """Learn which responses are there, and drop what a kill left of a line."""
        whole = 0
        with open(os.dup(self._handle), "rb") as lines:
            lines.seek(0)
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._note(json.loads(line))
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise RunError(
                        f"out {self.path}: line {number} is no response of this package; delete the line, and it is "
                        "asked for again"
                    ) from None
                whole += len(line)
        if whole < os.fstat(self._handle).st_size:
            os.ftruncate(self._handle, whole)

    def _note(self, row: Mapping[str, Any]) -> None:
        self._known[_key_of(row)] = row["asked"]
        self._trace_ids.add(row["trace_id"])


def settings_file(path: Path) -> Path:
    """Where the settings of a file of responses are written."""
    return path.with_suffix(".settings.json")


def known_settings(path: Path) -> dict[str, Any] | None:
    """What made the responses of a file; None when there is none."""
    record = read_json(settings_file(path))
    settings = record.get("settings") if isinstance(record, dict) else None
    return settings if isinstance(settings, dict) else None


def keys_in(path: Path, settings: Mapping[str, Any]) -> set[Key]:
    """Keys of the responses that a file of the same settings holds; nothing is opened for writing, or refused."""
    if not path.is_file() or known_settings(path) != json.loads(json.dumps(settings)):
        return set()
    keys: set[Key] = set()
    with path.open("rb") as lines:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                keys.add(_key_of(json.loads(line)))
    return keys


def _key_of(row: Mapping[str, Any]) -> Key:
    depth = -1 if row["depth"] is None else int(row["depth"])
    return str(row["prompt_id"]), str(row["condition"]), depth, int(row["sample"])


def to_row(generated: Generated) -> dict[str, Any]:
    """A response as a line holds it."""
    request = generated.request
    trace = request.trace
    row: dict[str, Any] = {"trace_id": row_id(request), "prompt": trace.prompt}
    if trace.messages or trace.steps:
        # With the prompt among them: so no earlier turn can be taken for it.
        row["messages"] = [
            {"role": turn.role, "content": turn.content}
            | _column("spans", turn.spans if n != len(trace.messages) else {})
            for n, turn in enumerate(trace.turns)
        ]
    row |= {"response": generated.response} | _column("prompt_spans", trace.prompt_spans)
    row |= {"label": trace.label, "source": trace.source, "group": trace.group}
    if not trace.response:
        taken = {name for name in trace.meta if is_read(name) or name in row or name in _READ_OTHERWISE}
        row |= {name: value for name, value in trace.meta.items() if name not in taken}
    return row | {
        "prompt_id": trace.trace_id,
        **{name: getattr(request, name) for name in ("condition", "depth", "share", "sample", "prefill")},
        **{name: getattr(generated, name) for name in ("cut", "n_tokens", "engine", "seed")},
        "asked": request.content,
    }


def _column(name: str, spans: Spans) -> dict[str, Any]:
    return {name: intervals_of(spans)} if spans else {}


def _agree(path: Path, settings: Mapping[str, Any], size: int, *, overwrite: bool) -> bool:
    """Whether the file begins anew; raises RunError when it holds something else."""
    known = known_settings(path)
    if size == 0:
        return True
    if known is None:
        raise RunError(f"out {path}: not empty, and no {settings_file(path).name} beside it; choose another file")
    changed = differences(known, json.loads(json.dumps(settings)))
    if changed and not overwrite:
        why = describe_changes(changed)
        raise RunError(
            f"out {path}: holds responses of other settings ({why}); choose another file or pass --overwrite"
        )
    return bool(changed)


def row_id(request: Request) -> str:
    """The id of a row: the trace's own for a first sample outside of experiments."""
    parts = [request.trace.trace_id, request.condition, "" if request.depth is None else str(request.depth)]
    name = "-".join(part for part in parts if part)
    return f"{name}.{request.sample}" if request.sample else name
