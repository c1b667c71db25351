"""Run folder of a session: a log of lines, each written whole, and a table of scores for each branch that has ended.

    run.json                      manifest: models, readers, settings
    session.jsonl                 a line for each branch, token, change of spans, end, new name and deletion
    scores/<branch>.parquet       scores of a branch's tokens, once it has ended
    readers/, directions/         probes and directions, as safetensors
    presets.jsonl                 the traces that the session was given

Lines are handed to the operating system at once, so that a killed process loses none that was written; one that is
torn is the last, and is left out when the folder is opened again. Events that find a full disk are kept, and come
before the next ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_record import record_of, trace_of
from safekey_interp.errors import RunError
from safekey_interp.exploration.branch_files import branch_record, event_record
from safekey_interp.exploration.branch_record import Branch
from safekey_interp.exploration.session_events import BranchEnded, Event, TokenWritten
from safekey_interp.exploration.session_readers import SessionReader
from safekey_interp.runs.run_folder import manifest_in
from safekey_interp.runs.run_writer import check_out
from safekey_interp.runs.storage import (
    lock_folder,
    remove_leftovers,
    unlock_folder,
    without_nan,
    write_aside,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    import pandas as pd

KIND = "explore"
"""What ``run.json`` says that a session's folder is."""
_LOG, _PRESETS, _MANIFEST = "session.jsonl", "presets.jsonl", "run.json"


class SessionLog:
    """A session's run folder while the session has it."""

    def __init__(self, path: Path, manifest: Mapping[str, Any] | None) -> None:
        """Take hold of a folder.

        Args:
            path: the folder.
            manifest: of a new session; None to go on with the one that is there.

        Raises:
            RunError: it holds something else, cannot be written, or another process writes to it.
        """
        self.path = path
        """The folder."""
        known = manifest_in(path)
        if manifest is None and (known is None or known.get("kind") != KIND):
            raise RunError(f"run {path}: no session of this package; expected a folder that explore wrote")
        if manifest is not None and known is not None:
            raise RunError(f"out {path}: holds a run already; open it (--run), or choose another folder")
        if manifest is not None:
            check_out(path)
        self.manifest: dict[str, Any] = {**(manifest or known or {}), "status": "running"}
        """What ``run.json`` says."""
        self._lock: int | None = None
        self._unsaved = b""
        try:
            with self._writing():
                path.mkdir(parents=True, exist_ok=True)
                self._lock = lock_folder(path)
                remove_leftovers(path)
                write_json(path / _MANIFEST, self.manifest)
                _cut_torn_line(path / _LOG)
                self._file = open(path / _LOG, "ab", buffering=0)  # noqa: SIM115 (it stays open)
        except RunError:
            unlock_folder(self._lock)
            raise

    @property
    def directions(self) -> Path:
        """Where the directions of edits lie."""
        return self.path / "directions"

    def write(self, *lines: Mapping[str, Any], are_kept: bool = False) -> None:
        """Append lines, all or none, each an object whose only name says what it is.

        Args:
            lines: as :meth:`lines` gives them.
            are_kept: whether those that cannot be written are, with the next ones.

        Raises:
            RunError: the disk is full.
        """
        text = "".join(f"{json.dumps(without_nan(line), ensure_ascii=False)}\n" for line in lines)
        left = whole = self._unsaved + text.encode()
        size = os.fstat(self._file.fileno()).st_size
        with self._writing():
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                self._file.truncate(size)
                self._unsaved = whole if are_kept else self._unsaved
                raise
        self._unsaved = b""

    def write_branches(self, branches: Iterable[Branch]) -> None:
        """Append new branches; directions of their edits become files. Raises RunError as :meth:`write` does."""
        with self._writing():
            records = [branch_record(branch, self.directions) for branch in branches]
        self.write(*({"branch": record} for record in records))

    def write_events(self, events: Sequence[Event], tokens: Sequence[TokenWritten]) -> None:
        """Append events of a branch, and write the table of its ``tokens`` where it has ended.

        Raises:
            RunError: the disk is full; the events are kept.
        """
        self.write(*map(event_record, events), are_kept=True)
        for event in events:
            if isinstance(event, BranchEnded):
                self.write_scores(event.branch, tokens)

    def lines(self) -> Iterator[tuple[str, Any]]:
        """What each line is, and what it says."""
        with open(self.path / _LOG, encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                try:
                    [(name, record)] = json.loads(text).items()
                except (ValueError, AttributeError) as error:
                    raise RunError(f"{self.path / _LOG}, line {number}: cannot be read ({error})") from error
                yield name, record

    def write_presets(self, traces: Sequence[Trace]) -> None:
        """Keep the traces that the session was given."""
        text = "".join(f"{record_of(trace)[0].decode()}\n" for trace in traces)
        with self._writing():
            write_aside(self.path / _PRESETS, lambda file: file.write_text(text, encoding="utf-8"))

    def presets(self) -> list[Trace]:
        """The traces that the session was given."""
        with suppress(FileNotFoundError), open(self.path / _PRESETS, encoding="utf-8") as file:
            return [trace_of(json.loads(line)) for line in file]
        return []

    def write_reader(self, reader: SessionReader, **about: Any) -> None:
        """Keep a probe or direction, and say so in the manifest."""
        folder, known = self.path / "readers", self.manifest["readers"]
        file = f"{len(known)}.safetensors"
        entry = {"name": reader.name, "kind": type(reader.reader).__name__, "file": file, **about}
        with self._writing():
            folder.mkdir(exist_ok=True)
            write_aside(folder / file, reader.reader.save)
            write_json(self.path / _MANIFEST, self.manifest | {"readers": [*known, entry]})
        known.append(entry)

    def write_scores(self, branch_id: str, tokens: Sequence[TokenWritten]) -> None:
        """Write the table of a branch that has ended, where it is not there."""
        table = self.path / "scores" / f"{branch_id}.parquet"
        with self._writing():
            table.parent.mkdir(exist_ok=True)
            if not table.exists():
                write_table(table, scores_table(tokens))

    def close(self) -> None:
        """Write what is left, and let other processes write. Raises RunError where the disk is full."""
        if self._file.closed:
            return
        try:
            self.write()
            self.manifest["status"] = "complete"
            with self._writing():
                write_json(self.path / _MANIFEST, self.manifest)
        finally:
            self._file.close()
            unlock_folder(self._lock)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A block whose errors of the disk are one line."""
        try:
            yield
        except OSError as error:
            raise RunError(f"out {self.path}: cannot be written: {error.strerror or error}") from error


def scores_table(tokens: Sequence[TokenWritten]) -> pd.DataFrame:
    """Scores of a response's tokens.

    Returns:
        One row per token and reader, or per token where nothing reads it: branch, position, index, token, token_id,
        logprob (nats), is_given, reader, score, control_mean, control_sd, alarm (whether the score is above the
        reader's threshold, which holds for the tokens that it reads).
    """
    import pandas as pd

    rows = [
        {
            "branch": token.branch, "position": token.position, "index": token.index, "token": token.text,
            "token_id": token.token_id, "logprob": token.logprob, "is_given": token.is_given, "reader": name,
            "score": None if score is None else score.value,
            "control_mean": None if score is None else score.control_mean,
            "control_sd": None if score is None else score.control_sd,
            "alarm": None if score is None else score.alarm,
        }
        for token in tokens
        for name, score in (token.scores.items() or [(None, None)])
    ]  # fmt: skip
    types = {"score": float, "control_mean": float, "control_sd": float, "alarm": "boolean", "reader": object}
    return pd.DataFrame(rows).astype(types) if rows else pd.DataFrame()


def _cut_torn_line(file: Path) -> None:
    """Delete what stands behind the last end of a line."""
    with suppress(FileNotFoundError), open(file, "r+b") as log:
        log.seek(0, 2)
        at = size = log.tell()
        while at > 0:
            begin = max(0, at - 65_536)
            log.seek(begin)
            found = log.read(at - begin).rfind(b"\n")
            if found >= 0:
                at = begin + found + 1
                break
            at = begin
        if at < size:
            log.truncate(at)
