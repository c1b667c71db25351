"""One walk through sources of rows: their traces in order, counted, hashed, with ids of their own, and an account."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from safekey_interp.data.input_paths import prefixes_of
from safekey_interp.data.label_polarity import UnknownLabel
from safekey_interp.data.reading_account import ReadingAccount
from safekey_interp.data.row_readers import RowFile, RowSource
from safekey_interp.data.row_schema import NamedFields, read_row
from safekey_interp.data.trace import Trace, count_surrogates
from safekey_interp.data.unique_ids import UniqueIds
from safekey_interp.errors import InputError

_LOOKED_AT = 10_000
"""Rows in which the values of a column are looked for when one of them cannot be read."""


class SourceWalk:
    """One walk; what it found out stands in its attributes when it is over."""

    def __init__(
        self, sources: Sequence[RowSource], named: NamedFields, labels: Mapping[str, str] | None, first: int | None
    ) -> None:
        """Nothing is read yet.

        Args:
            sources: of rows.
            named: columns that the user named.
            labels: classes by the label's value, as the user gave them.
            first: stop after so many traces.
        """
        self._sources, self._named, self._labels, self._first = sources, named, labels, first
        self.n_read = 0
        """Traces that it has given so far."""
        self.n_surrogates = 0
        """Lone surrogates that it has met so far."""
        self.sha256: str | None = None
        """Hash of the sources; None before the end, and where it stopped inside a file."""
        self.account = ReadingAccount()
        """What the rows were read as."""

    def __iter__(self) -> Iterator[Trace]:
        digest, ids = hashlib.sha256(), UniqueIds()
        absent = {option: field for option, field in self._named._asdict().items() if field}
        fields: tuple[str, ...] = ()
        for prefix, source in zip(prefixes_of(self._sources), self._sources, strict=True):
            n_rows = 0
            layout = source.layout if isinstance(source, RowFile) else None
            named = NamedFields() if layout else self._named
            note = partial(self.account.add, source.name)
            rows = source.rows(digest)
            for number, given in rows:
                where = source.where(number)
                row = layout.adapt(given, where, source.name) if layout else given
                try:
                    row_id = f"{prefix}{n_rows}"
                    traces = (
                        [row]
                        if isinstance(row, Trace)
                        else read_row(row, where, row_id, named, labels=self._labels, note=note)
                    )
                except UnknownLabel as error:
                    raise error.with_values(source.name, _values(error.column, row, rows)) from None
                if isinstance(row, dict):
                    self.n_surrogates += _n_surrogates(row)
                    if layout is None:
                        fields = fields or tuple(row)
                        absent = absent and {option: field for option, field in absent.items() if field not in row}
                n_rows += 1
                for trace in traces:
                    ids.add(trace.trace_id, where)
                    self.n_read += 1
                    yield trace
                    if self.n_read == self._first:
                        self.sha256 = None if not source.is_held else digest.hexdigest()
                        return self._end(absent, fields, ids)
            if n_rows == 0:
                raise InputError(f"{source.name}: no rows; expected at least one")
        self.sha256 = digest.hexdigest()
        self._end(absent, fields, ids)

    def _end(self, absent: Mapping[str, str], fields: Sequence[str], ids: UniqueIds) -> None:
        if fields and absent:
            option, field = next(iter(absent.items()))
            raise InputError(
                f"{', '.join(source.name for source in self._sources)}: no row has the field {field!r}, named by "
                f"--{option}-field; the fields are {', '.join(fields)}"
            )
        ids.check()


def _values(column: str, row: Any, rows: Iterator[tuple[int, Any]]) -> list[str]:
    """The values of a column in a row and those after it, each once."""
    given = chain([row], (row for _, row in islice(rows, _LOOKED_AT)))
    values = (row.get(column) for row in given if isinstance(row, Mapping))
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
