"""Reader of traces: one by one, counted and hashed on the way, read once, never all in memory.

A source is one or several files (JSONL, JSON, CSV, TSV, Parquet, Inspect logs, INIF; ``.gz`` of the text ones), a glob,
``-`` for JSON Lines on standard input, or what Python already holds: mappings, traces, a data frame. How a row becomes
a trace: :mod:`safekey_interp.data.row_schema`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, overload

from safekey_interp.data.input_paths import prefixes_of, row_sources
from safekey_interp.data.record_spool import RecordSpool
from safekey_interp.data.row_readers import RowFile, RowSource
from safekey_interp.data.row_schema import NamedFields, read_row
from safekey_interp.data.trace import Trace, count_surrogates
from safekey_interp.data.trace_record import record_of, trace_of
from safekey_interp.data.unique_ids import UniqueIds
from safekey_interp.errors import InputError


def read_traces(
    source: Any,
    *,
    prompt_field: str | None = None,
    response_field: str | None = None,
    label_field: str | None = None,
    group_field: str | None = None,
    id_field: str | None = None,
    limit: int | None = None,
) -> TraceSource:
    """The traces of a source, read when they are asked for.

    Args:
        source: a path, a glob, ``-`` for JSON Lines on standard input, a list of these and of suites' files
            (:func:`~safekey_interp.data.suites.suite_files`); or mappings, traces (a list or any iterable) or a pandas
            data frame.
        prompt_field: column of the prompt; by default ``prompt``, ``question``, ``instruction`` or the last user turn
            of ``messages``.
        response_field: column of the response; by default ``response``, ``completion``, ``output``, ``answer`` or the
            assistant's turn after the last user turn. Without any, responses are empty.
        label_field: column of the label; by default ``label``.
        group_field: column of the group; by default ``group``, else the prompt itself.
        id_field: column of the id; by default ``trace_id`` or ``id``, else the row's number, from 0.
        limit: stop after so many traces.

    Returns:
        The traces, one at a time; each walk reads the source anew until :meth:`TraceSource.check` has kept them.

    Raises:
        InputError: for what can be told before reading: no such file, a folder, an empty file, an unknown suffix, a
            glob that matches nothing. What the rows hold is told by :meth:`TraceSource.check` or on the way.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit: got {limit}, expected at least 1")
    named = NamedFields(prompt_field, response_field, label_field, group_field, id_field)
    if isinstance(source, TraceSource):
        if any(named) or limit:
            raise InputError("these traces are read already; give field names and a limit when the file is read")
        return source
    return TraceSource(row_sources(source), named, limit)


class TraceSource:
    """Traces of one source, one at a time; each walk reads the source anew until :meth:`check` has kept them."""

    def __init__(self, sources: Sequence[RowSource], named: NamedFields, limit: int | None) -> None:
        self._sources, self._named, self._limit = sources, named, limit
        self._sha256: str | None = None
        self._content: Content | None = None
        self._n: int | None = None
        self._kept: Callable[[], Iterator[Trace]] | None = None
        self.n_read = 0
        """Traces that the latest reading of the source has given so far."""
        self.n_surrogates = 0
        """Lone surrogates that the latest reading has met so far; each became U+FFFD."""

    @property
    def files(self) -> tuple[RowFile, ...]:
        """The files among its sources."""
        return tuple(source for source in self._sources if isinstance(source, RowFile))

    @property
    def names(self) -> tuple[str, ...]:
        """The files as the user named them; what stands for rows in memory."""
        return tuple(source.name for source in self._sources)

    @property
    def sha256(self) -> str:
        """Hash of the data: the files' bytes in order, whatever the limit; rows in memory as canonical JSON."""
        if self._sha256 is None and len(self.files) < len(self._sources):
            self.check()
        elif self._sha256 is None:
            self._sha256 = _sha256_of(self.files)
        assert self._sha256 is not None
        return self._sha256

    @property
    def content(self) -> Content:
        """Number and hash of the traces; they are read when they were not yet."""
        content = self.check()._content
        assert content is not None
        return content

    def record(self) -> dict[str, Any]:
        """What a manifest says of the data."""
        content = self.content
        hashes = {"sha256": self.sha256, "traces_sha256": content.sha256}
        return {"sources": list(self.names)} | hashes | {"n_read": content.n, "n_surrogates": self.n_surrogates}

    def check(self) -> TraceSource:
        """Read everything once, if it was not yet, and keep it, so that no later walk reads the source again.

        Traces of files are kept in a temporary file; where there is no room, or a value is not JSON's (a date in
        Parquet), later walks read the files anew.

        Raises:
            InputError: the first row that cannot be used, with where, got, expected.
        """
        if self._content is None:
            digest, n, is_kept, names = hashlib.sha256(), 0, True, {}
            spool, in_memory = RecordSpool(), []
            for trace in self._read():
                n += 1
                names |= dict.fromkeys(trace.span_names)
                record, is_exact = record_of(trace)
                digest.update(record + b"\n")
                if not self.files:
                    in_memory.append(trace)
                elif is_kept:
                    is_kept = is_exact and spool.append(record)
            if is_kept:
                self._kept = partial(map, trace_of, spool) if self.files else partial(iter, in_memory)
            self._content = Content(n, digest.hexdigest(), tuple(names))
        return self

    def __iter__(self) -> Iterator[Trace]:
        # Decided when the first is asked for: list() asks for the length in between, which may keep the traces.
        yield from self._read() if self._kept is None else self._kept()

    def __len__(self) -> int:
        """How many traces. Files are read for it when they were not yet, and not kept; rows in memory are kept."""
        if self._content is not None or len(self.files) < len(self._sources):
            return self.content.n
        if self._n is None:
            self._n = sum(1 for _ in self._read())
        return self._n

    def __bool__(self) -> bool:
        return True  # without reading: a source has one trace at least, or an error says why not

    @overload
    def __getitem__(self, at: int) -> Trace: ...

    @overload
    def __getitem__(self, at: slice) -> list[Trace]: ...

    def __getitem__(self, at: int | slice) -> Trace | list[Trace]:
        """A trace by its place, or the traces of a slice, as of a list; a walk up to there each time."""
        places = range(len(self))[at]
        if isinstance(places, int):
            return next(islice(self, places, None))
        if not places:
            return []
        wanted = places if places.step > 0 else places[::-1]
        found = list(islice(self, wanted.start, wanted.stop, wanted.step))
        return found if places.step > 0 else found[::-1]

    def changed(self, change: Callable[[Iterator[Trace]], Iterator[Trace]], record: Mapping[str, Any]) -> TraceSource:
        """The same traces after a change of each, made whenever they are walked through.

        Args:
            change: from the traces to as many, in their order.
            record: what a manifest says of it.
        """
        return _ChangedSource(self, change, record)

    def changes_of(self, source: TraceSource) -> TraceSource:
        """Another source's traces, such as answers to these prompts, after the changes that these went through."""
        return source

    def _read(self) -> Iterator[Trace]:
        """The traces from the source itself."""
        digest, ids = hashlib.sha256(), UniqueIds()
        absent = {option: field for option, field in self._named._asdict().items() if field}
        n_read = n_surrogates = self.n_read = self.n_surrogates = 0
        fields: tuple[str, ...] = ()
        for prefix, source in zip(prefixes_of(self._sources), self._sources, strict=True):
            n_rows = 0
            layout = source.layout if isinstance(source, RowFile) else None
            named = NamedFields() if layout else self._named
            for number, given in source.rows(digest):
                where = source.where(number)
                row = layout.adapt(given, where, source.name) if layout else given
                traces = [row] if isinstance(row, Trace) else read_row(row, where, f"{prefix}{n_rows}", named)
                if isinstance(row, dict):
                    n_surrogates += _n_surrogates(row)
                    if layout is None:
                        fields = fields or tuple(row)
                        absent = {option: field for option, field in absent.items() if field not in row}
                n_rows += 1
                for trace in traces:
                    ids.add(trace.trace_id, where)
                    n_read += 1
                    self.n_read, self.n_surrogates = n_read, n_surrogates
                    yield trace
                    if n_read == self._limit:
                        self._end_of_walk(None if isinstance(source, RowFile) else digest.hexdigest(), absent, fields)
                        return ids.check()
            if n_rows == 0:
                raise InputError(f"{source.name}: no rows; expected at least one")
        self._end_of_walk(digest.hexdigest(), absent, fields)
        ids.check()

    def _end_of_walk(self, sha256: str | None, absent: Mapping[str, str], fields: Iterable[str]) -> None:
        if fields and absent:
            option, field = next(iter(absent.items()))
            raise InputError(
                f"{', '.join(self.names)}: no row has the field {field!r}, named by --{option}-field;"
                f" the fields are {', '.join(fields)}"
            )
        if sha256 and self._sha256 and sha256 != self._sha256:
            raise InputError(f"{', '.join(self.names)}: changed since it was read before; start again")
        self._sha256 = sha256 or self._sha256


class _ChangedSource(TraceSource):
    """Traces of another source after a change."""

    def __init__(
        self,
        source: TraceSource,
        change: Callable[[Iterator[Trace]], Iterator[Trace]],
        record: Mapping[str, Any],
    ) -> None:
        super().__init__(source._sources, source._named, source._limit)
        self._source, self._change, self._record = source, change, dict(record)

    @property
    def sha256(self) -> str:
        return self._source.sha256

    def changes_of(self, source: TraceSource) -> TraceSource:
        return self._source.changes_of(source).changed(self._change, self._record)

    def __len__(self) -> int:
        return self.content.n  # a change may be dear, so its traces are kept

    def record(self) -> dict[str, Any]:
        return super().record() | self._record

    def _read(self) -> Iterator[Trace]:
        for trace in self._change(iter(self._source)):
            self.n_read, self.n_surrogates = self._source.n_read, self._source.n_surrogates
            yield trace


def _sha256_of(files: Iterable[RowFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        file.hash_into(digest)
    return digest.hexdigest()


def _n_surrogates(value: Any) -> int:
    if isinstance(value, str):
        return count_surrogates(value)
    if isinstance(value, dict):
        return sum(map(_n_surrogates, value.values()))
    if isinstance(value, list):
        return sum(map(_n_surrogates, value))
    return 0


class Content(NamedTuple):
    """Traces as they were read."""

    n: int
    """How many."""
    sha256: str
    """Hash of everything that they say, in their order."""
    span_names: tuple[str, ...]
    """Names of their own spans."""
