"""Reader of traces: one by one, counted and hashed on the way, read once, never all in memory.

A source is files, folders, globs or data sets of the hub, ``-`` for JSON Lines on standard input, or what Python holds.
How a row becomes a trace: :mod:`safekey_interp.data.row_schema`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, overload

from safekey_interp.data.input_paths import row_sources
from safekey_interp.data.reading_account import ReadingAccount
from safekey_interp.data.record_spool import RecordSpool
from safekey_interp.data.row_readers import RowFile, RowSource
from safekey_interp.data.row_schema import NamedFields
from safekey_interp.data.source_walk import SourceWalk, Wanted
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_draw import Drawn, drawn_places, membership, membership_array
from safekey_interp.data.trace_record import record_of, trace_of
from safekey_interp.errors import InputError


def read_traces(
    source: Any,
    *,
    prompt_field: str | None = None,
    response_field: str | None = None,
    label_field: str | None = None,
    group_field: str | None = None,
    id_field: str | None = None,
    label_map: Mapping[str, str] | None = None,
    limit: int | None = None,
    first: int | None = None,
    seed: int = 0,
    stream: bool = False,
) -> TraceSource:
    """The traces of a source, read when they are asked for.

    Args:
        source: a path, a folder, a glob, ``-`` for JSON Lines on standard input, ``hf:owner/name[:config][:split]
            [@revision]``, a list of these and of suites' files (:func:`~safekey_interp.data.suites.suite_files`); or
            mappings, traces (a list or any iterable) or a pandas data frame.
        prompt_field: column of the prompt; by default ``prompt``, ``question``, ``instruction``, … or the last user
            turn of ``messages`` (:mod:`~safekey_interp.data.column_names`).
        response_field: column of the response; by default ``response``, ``completion``, ``output``, ``answer``, … or
            the assistant's turns. Without any, responses are empty.
        label_field: column of the label; by default ``label``, or one whose name says what it means (``is_safe``).
        group_field: column of the group; by default ``group``, else the prompt itself.
        id_field: column of the id; by default ``trace_id`` or ``id``, else the row's number, from 0.
        label_map: class of each value of the label that does not say it, such as ``{"2": "harmful"}``; in any case, and
            an empty class is no label.
        limit: draw so many traces by ``seed``, whole groups, stratified by label and source, in the file's order
            (:mod:`~safekey_interp.data.trace_draw`). The source is read twice.
        first: stop after so many traces.
        seed: of the draw.
        stream: read in memory that does not grow: ids that stand twice are not looked for, standard input is not kept.

    Returns:
        The traces, one at a time; each walk reads the source anew until :meth:`TraceSource.check` has kept them.

    Raises:
        InputError: for what can be told before reading: no such file, an empty one, an unknown suffix, a glob that
            matches nothing. What the rows hold is told by :meth:`TraceSource.check` or on the way.
    """
    for name, number in (("limit", limit), ("first", first)):
        if number is not None and number < 1:
            raise InputError(f"{name}: got {number}, expected at least 1")
    for name, there in (("first", first is not None), ("stream", stream)):
        if limit is not None and there:
            raise InputError(f"limit, {name}: got both, expected one: limit draws from all, first takes the first")
    named = NamedFields(prompt_field, response_field, label_field, group_field, id_field)
    if isinstance(source, TraceSource):
        if any(named) or limit or first or label_map:
            raise InputError("these traces are read already; give field names and a limit when the file is read")
        return source
    labels = {str(value).strip().casefold(): word.strip() for value, word in label_map.items()} if label_map else None
    wanted = Wanted(named, labels, limit, first, seed, unique_ids=not stream)
    return TraceSource(row_sources(source, stream=stream), wanted)


class TraceSource:
    """Traces of one source, one at a time; each walk reads the source anew until :meth:`check` has kept them."""

    def __init__(self, sources: Sequence[RowSource], wanted: Wanted) -> None:
        self._sources, self._wanted = sources, wanted
        self._content: Content | None = None
        self._sha256: str | None = None
        self._n: int | None = None
        self._kept: Callable[[], Iterator[Trace]] | None = None
        self._drawn: Drawn | None = None
        self._account = ReadingAccount()
        self.n_read = 0
        """Traces that the latest reading of the source has given so far."""
        self.n_surrogates = 0
        """Lone surrogates that the latest reading has met so far; each became U+FFFD."""

    @property
    def notes(self) -> list[str]:
        """What the latest whole reading read as what, and what it left, in sentences."""
        notes = self._account.lines()
        if self._drawn is not None and len(self._drawn.places) < self._drawn.of:
            how = f"by seed {self._wanted.seed}, whole groups, stratified by label and source"
            notes.append(f"{len(self._drawn.places):,} of these {self._drawn.of:,} traces drawn {how}")
        return notes

    @property
    def files(self) -> tuple[RowFile, ...]:
        """The files among its sources."""
        return tuple(source for source in self._sources if isinstance(source, RowFile))

    @property
    def names(self) -> tuple[str, ...]:
        """The files as the user named them; what stands for rows in memory."""
        return tuple(source.name for source in self._sources)

    @property
    def _are_files(self) -> bool:
        return len(self.files) == len(self._sources)

    @property
    def sha256(self) -> str:
        """Hash of the data: the files' bytes in order, whatever the limit; rows in memory as canonical JSON."""
        if self._sha256 is None and not self._are_files:
            self.check()
        elif self._sha256 is None:
            digest = hashlib.sha256()
            for file in self.files:
                file.hash_into(digest)
            self._sha256 = digest.hexdigest()
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
        about = {"n_read": content.n, "n_surrogates": self.n_surrogates, "read_as": self.notes}
        drawn = self._drawn and {"limit": self._wanted.limit, "seed": self._wanted.seed, "of": self._drawn.of}
        about |= {"drawn": drawn} if drawn else {"first": self._wanted.first} if self._wanted.first else {}
        return {"sources": list(self.names)} | hashes | about

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
            is_held = all(source.is_held for source in self._sources)
            for trace in self._read():
                n += 1
                names |= dict.fromkeys(trace.span_names)
                record, is_exact = record_of(trace)
                digest.update(record + b"\n")
                if is_held:
                    in_memory.append(trace)
                elif is_kept:
                    is_kept = is_exact and spool.append(record)
            if is_kept:
                self._kept = partial(iter, in_memory) if is_held else partial(map, trace_of, spool)
            self._content = Content(n, digest.hexdigest(), tuple(names))
        return self

    def __iter__(self) -> Iterator[Trace]:
        # Decided when the first is asked for: list() asks for the length in between, which may keep the traces.
        yield from self._read() if self._kept is None else self._kept()

    def __len__(self) -> int:
        """How many traces. Files are read for it when they were not yet, and not kept; rows in memory are kept."""
        if self._content is not None or not self._are_files:
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
        """The traces from the source itself, or those of them that are drawn."""
        if self._wanted.limit is None:
            return self._walked()
        return self._drawn_of(self._wanted.limit)

    def _walked(self) -> Iterator[Trace]:
        walk = SourceWalk(self._sources, self._wanted)
        self.n_read = self.n_surrogates = 0
        for trace in walk:
            self.n_read, self.n_surrogates = walk.n_read, walk.n_surrogates
            yield trace
        if walk.sha256 and self._sha256 and walk.sha256 != self._sha256:
            raise InputError(f"{', '.join(self.names)}: changed since it was read before; start again")
        self._sha256 = walk.sha256 or self._sha256
        self._account = walk.account

    def _drawn_of(self, limit: int) -> Iterator[Trace]:
        held = list(self._walked()) if any(getattr(each, "is_read_once", False) for each in self._sources) else None
        if self._drawn is None:
            members = map(membership, self._walked() if held is None else held)
            pairs = membership_array(members)
            self._drawn = Drawn(drawn_places(pairs, limit, self._wanted.seed), len(pairs))
        wanted, n = set(self._drawn.places.tolist()), 0
        for at, trace in enumerate(self._walked() if held is None else held):
            if at in wanted:
                n += 1
                yield trace
        self.n_read = n


class _ChangedSource(TraceSource):
    """Traces of another source after a change."""

    def __init__(
        self,
        source: TraceSource,
        change: Callable[[Iterator[Trace]], Iterator[Trace]],
        record: Mapping[str, Any],
    ) -> None:
        super().__init__(source._sources, source._wanted)
        self._source, self._change, self._record = source, change, dict(record)

    @property
    def sha256(self) -> str:
        return self._source.sha256

    @property
    def notes(self) -> list[str]:
        return self._source.notes

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


class Content(NamedTuple):
    """Traces as they were read."""

    n: int
    """How many."""
    sha256: str
    """Hash of everything that they say, in their order."""
    span_names: tuple[str, ...]
    """Names of their own spans."""
