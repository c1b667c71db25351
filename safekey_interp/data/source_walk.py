"""One walk through sources of rows: their traces in order, counted, hashed, with ids of their own, and an account."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

from safekey_interp.data.batch_requests import BatchRequests, GivenRow
from safekey_interp.data.input_paths import prefixes_of
from safekey_interp.data.label_polarity import UnknownLabel
from safekey_interp.data.reading_account import ReadingAccount, RowReading
from safekey_interp.data.row_readers import Hash, RowFile, RowSource
from safekey_interp.data.row_schema import NamedFields, read_row
from safekey_interp.data.trace import Trace, count_surrogates
from safekey_interp.data.unique_ids import UniqueIds
from safekey_interp.errors import InputError

_LOOKED_AT = 10_000
"""Rows in which the values of a column are looked for when one of them cannot be read."""


class Wanted(NamedTuple):
    """Which of a source's traces are wanted, and how its columns are read."""

    named: NamedFields = NamedFields()
    """Columns that the user named."""
    labels: Mapping[str, str] | None = None
    """Classes by the label's value in small letters, as the user gave them."""
    limit: int | None = None
    """Draw so many."""
    first: int | None = None
    """Stop after so many."""
    seed: int = 0
    """Of the draw."""
    unique_ids: bool = True
    """Refuse an id that stands a second time, for eight bytes of memory an id."""


class SourceWalk:
    """One walk; what it found out stands in its attributes when it is over."""

    def __init__(self, sources: Sequence[RowSource], wanted: Wanted) -> None:
        """Nothing is read yet.

        Args:
            sources: of rows.
            wanted: how they are read, and after how many traces to stop.
        """
        self._sources = sources
        self._named, self._labels, self._first = wanted.named, wanted.labels, wanted.first
        self._ids = UniqueIds() if wanted.unique_ids else None
        self.n_read = 0
        """Traces that it has given so far."""
        self.n_surrogates = 0
        """Lone surrogates that it has met so far."""
        self.sha256: str | None = None
        """Hash of the sources; None before the end, and where it stopped inside a file."""
        self.account = ReadingAccount()
        """What the rows were read as."""

    def __iter__(self) -> Iterator[Trace]:
        digest = hashlib.sha256()
        absent = {option: field for option, field in self._named._asdict().items() if field}
        fields: tuple[str, ...] = ()
        rows = self._rows(digest)
        latest: RowSource | None = None
        has_layout, named = False, self._named
        note: Callable[[RowReading], None] = partial(self.account.add, "")
        for source, where, row_id, row in rows:
            if source is not latest:
                latest = source
                has_layout = isinstance(source, RowFile) and source.layout is not None
                named = NamedFields() if has_layout else self._named
                note = partial(self.account.add, source.name)
            if isinstance(row, Trace):
                traces = [row]
            else:
                try:
                    traces = read_row(row, where, row_id, named, labels=self._labels, note=note)
                except UnknownLabel as error:
                    raise error.with_values(source.name, _values(error.column, row, rows)) from None
                self.n_surrogates += _n_surrogates(row)
                if not has_layout:
                    fields = fields or tuple(row)
                    absent = absent and {option: field for option, field in absent.items() if field not in row}
            for trace in traces:
                if self._ids is not None:
                    self._ids.add(trace.trace_id, where)
                self.n_read += 1
                yield trace
                if self.n_read == self._first:
                    self.sha256 = digest.hexdigest() if source.is_held else None
                    return self._end(absent, fields)
        self.sha256 = digest.hexdigest()
        self._end(absent, fields)

    def _rows(self, digest: Hash) -> Iterator[GivenRow]:
        """The rows of all sources, requests of a batch with their replies."""
        requests = BatchRequests()
        for prefix, source in zip(prefixes_of(self._sources), self._sources, strict=True):
            n_rows = 0
            layout = source.layout if isinstance(source, RowFile) else None
            for number, given in source.rows(digest):
                where = source.where(number)
                row = GivenRow(
                    source,
                    where,
                    f"{prefix}{n_rows}",
                    layout.adapt(given, where, source.name) if layout else given,
                )
                n_rows += 1
                if len(self._sources) == 1:
                    yield row
                elif (joined := requests.joined(row)) is not None:
                    yield joined
            if n_rows == 0:
                raise InputError(f"{source.name}: no rows; expected at least one")
        yield from requests.unanswered()

    def _end(self, absent: Mapping[str, str], fields: Sequence[str]) -> None:
        if fields and absent:
            option, field = next(iter(absent.items()))
            raise InputError(
                f"{', '.join(source.name for source in self._sources)}: no row has the field {field!r}, named by "
                f"--{option}-field; the fields are {', '.join(fields)}"
            )
        if self._ids is not None:
            self._ids.check()


def _values(column: str, row: Any, rows: Iterator[GivenRow]) -> list[str]:
    """The values of a column in a row and those after it, each once."""
    several = chain([row], (given.row for given in islice(rows, _LOOKED_AT)))
    values = (row.get(column) for row in several if isinstance(row, Mapping))
    return list(dict.fromkeys(repr(value) for value in values if value is not None))


def _n_surrogates(value: Any) -> int:
    if isinstance(value, str):
        return 0 if value.isascii() else count_surrogates(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    total = 0
    for each in inner:
        if type(each) is not str or not each.isascii():
            total += _n_surrogates(each)
    return total
