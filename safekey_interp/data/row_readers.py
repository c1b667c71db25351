"""Readers of files of rows: JSONL, JSON, CSV, TSV, Parquet, Arrow and Inspect logs.

Each source gives its rows one by one, knows how to name one in a message, and feeds a hash of the data on the way.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from safekey_interp.data.file_packing import unpacked
from safekey_interp.data.inif_document import InifRows, is_inif
from safekey_interp.data.inspect_sample import inspect_row, is_inspect_log
from safekey_interp.data.json_stream import RowOfSample, json_rows, not_utf8
from safekey_interp.data.log_archive import archive_rows, is_archive
from safekey_interp.data.row_containers import is_beside_rows
from safekey_interp.errors import InputError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".eval", ".inif")
_ROWS_AT_ONCE = 256
_LONGEST_CELL = 1 << 28


class Hash(Protocol):
    """What :mod:`hashlib` gives."""

    def update(self, data: bytes, /) -> None:
        """Take in more of the data."""
        ...


class RowSource(Protocol):
    """Anything that holds rows."""

    @property
    def name(self) -> str:
        """How the user knows it."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether its rows are in memory already."""
        ...

    def rows(self, digest: Hash) -> Iterator[tuple[int, Any]]:
        """Each row with its number, in order; ``digest`` has taken in the whole source at the end."""
        ...

    def where(self, number: int) -> str:
        """The row with this number, as a message names it."""
        ...


class Layout(Protocol):
    """What makes rows of a layout of their own rows of ours."""

    def adapt(self, row: Any, where: str, file: str) -> dict[str, Any]:
        """A row, ``where`` as messages name it and from the ``file`` of that name, in columns that are recognised."""
        ...


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A file of rows; it is opened anew by each pass."""

    path: Path
    """Where it lies."""
    name: str
    """As the user named it."""
    suffix: str
    """One of :data:`SUFFIXES`."""
    packing: str = ""
    """How it is packed, one of :data:`~safekey_interp.data.file_packing.UNPACKERS`; empty for not."""
    spool: Any = None
    """The temporary file that standard input was copied to; it goes when this record does."""
    layout: Layout | None = None
    """How its rows become ours, where it is written in a layout of its own."""

    @property
    def is_held(self) -> bool:
        """It is read from the disk."""
        return False

    def where(self, number: int) -> str:
        """Rows of text files go by their line; rows of others are counted from 1."""
        counted = self.suffix in (".json", ".parquet", ".arrow", ".eval", ".inif") or self._is_archive
        return f"{self.name}, {'row' if counted else 'line'} {number}"

    def hash_into(self, digest: Hash) -> None:
        """Take in the file's bytes without reading rows."""
        with self._opened() as stream:
            while block := stream.read(1 << 20):
                digest.update(block)

    def rows(self, digest: Hash) -> Iterator[tuple[int, Any]]:
        """Each row with its line (or its number, from 1).

        Raises:
            InputError: where the file cannot be read or does not hold what its suffix says.
        """
        try:
            if self.suffix in (".parquet", ".arrow"):
                self.hash_into(digest)
                yield from _table_rows(self.path, self.name, _parquet if self.suffix == ".parquet" else _arrow)
                return
            if self._is_archive:
                self.hash_into(digest)
                yield from enumerate(archive_rows(self.path, self.name), 1)
                return
            with self._opened() as raw:
                stream: BinaryIO = io.BufferedReader(_HashedReader(raw, digest), 1 << 20)
                yield from self._text_rows(unpacked(stream, self.packing))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise InputError(f"{self.name}: cannot be read: {reason}") from None

    @cached_property
    def _is_archive(self) -> bool:
        return is_archive(self.path)

    def _opened(self) -> BinaryIO:
        return open(self.path, "rb", buffering=0)

    def _text_rows(self, stream: BinaryIO) -> Iterator[tuple[int, Any]]:
        if self.suffix in (".json", ".eval", ".inif"):
            return enumerate(json_rows(stream, self.name, _document_kind), 1)
        if self.suffix in (".csv", ".tsv"):
            return _csv_rows(stream, self.name, "\t" if self.suffix == ".tsv" else ",")
        return jsonl_rows(stream, self.name)


def _document_kind(head: Mapping[str, Any]) -> RowOfSample | None:
    """What makes rows of the samples of a document, told by the fields before them; None for no such document."""
    if is_inspect_log(head):
        return inspect_row
    return InifRows(head).row if is_inif(head) else None


class _HashedReader(io.RawIOBase):
    """A file whose bytes go into a hash as they are read."""

    def __init__(self, raw: BinaryIO, digest: Hash) -> None:
        self._raw, self._digest = raw, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n_bytes = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self._digest.update(memoryview(buffer)[:n_bytes])  # type: ignore[arg-type]
        return n_bytes


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    byte = 0
    for number, line in enumerate(stream, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        try:
            # Python writes a lone surrogate as three bytes that strict UTF-8 refuses; a trace mends it.
            yield number, text.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise not_utf8(f"{name}, line {number}", byte + len(line) - len(text) + error.start, error) from None
        byte += len(line)


def jsonl_rows(stream: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Each row of JSON Lines with its line; an InputError that says where one is broken."""
    for number, text in _lines(stream, name):
        if text.isspace():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            length = len(text.rstrip())
            place = (
                f"character {error.colno} of {length}" if error.colno <= length else f"the end ({length} characters)"
            )
            why = f"broken JSON: {error.msg.removesuffix(' at')} at {place}"
            raise InputError(f"{name}, line {number}: {why}; expected one whole JSON object a line") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
            raise InputError(f"{name}, line {number}: unusable JSON: {error}") from None
        if not is_beside_rows(row):
            yield number, row


def _csv_rows(stream: BinaryIO, name: str, delimiter: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(_LONGEST_CELL)  # the module's own limit, 131,072 characters, is shorter than some traces
    texts = (text for _, text in _lines(stream, name))
    first: list[str] = []  # blank lines, which count in messages, and the header
    while not (first and first[-1].strip()) and (text := next(texts, None)) is not None:
        first.append(text)
    # Where the decimal mark is a comma, spreadsheets write semicolons; others write tabs into a file of any name.
    delimiter = next((mark for mark in (delimiter, ";", "\t", "|") if first and mark in first[-1]), delimiter)
    reader = csv.reader(chain(first, texts), delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{name}, line {number}: broken CSV: {error}") from None
        if not cells:
            continue
        if not columns:
            columns = [cell.strip() for cell in cells]
            twice = next((column for column in columns if column and columns.count(column) > 1), None)
            if twice is not None:
                raise InputError(f"{name}, line {number}: column {twice!r} stands twice; rename one")
            continue
        if len(cells) != len(columns):
            raise InputError(
                f"{name}, line {number}: got {len(cells)} cells, expected {len(columns)} as in the header;"
                " a text that holds the delimiter or a line break must be quoted"
            )
        # A column without a name is the index that pandas writes; an empty cell is a missing one.
        yield number, {column: cell for column, cell in zip(columns, cells, strict=True) if column and cell}


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
        yield from file.iter_batches(batch_size=_ROWS_AT_ONCE)


def _arrow(path: Path) -> Iterator[Any]:
    """A stream, as ``datasets`` saves it, or a file of Arrow's."""
    import pyarrow

    with pyarrow.OSFile(str(path)) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        if is_file:
            reader = pyarrow.ipc.open_file(file)
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            yield from pyarrow.ipc.open_stream(file)


def _table_rows(path: Path, name: str, batches: Callable[[Path], Iterator[Any]]) -> Iterator[tuple[int, Any]]:
    import pyarrow

    number = 1
    try:
        for batch in batches(path):
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        kind = path.suffix.removeprefix(".").capitalize()
        raise InputError(f"{name}: broken {kind}: {reason}; write the file again") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{name}, after row {number - 1}: not UTF-8: {error.reason}") from None
