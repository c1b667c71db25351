"""Streaming reader of JSON files that are larger than memory.

Five shapes, told apart on the way: one array of rows; one object that holds such an array (SafeKey's result files:
``{"meta_info": …, "data": […]}``; :mod:`~safekey_interp.data.row_containers`); a document whose ``samples`` are rows in
a form of their own, which the fields before them tell; objects one after the other (JSON Lines that is named
``.json``); one single row. One row is decoded at a time, by the standard decoder over a buffer that grows only as far
as the row is long; documents whose rows stand deeper, or by column, are held whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, BinaryIO

from safekey_interp.data.row_containers import ROW_LISTS, is_row, rows_of_document, unpacked_row
from safekey_interp.errors import InputError

_CHUNK = 1 << 16
_SPACE = re.compile(r"[ \t\n\r]*")
# How far before the end of the buffer the decoder can stumble over a value that is merely cut there: -Infinity, \uXXXX.
_CUT = 16

RowOfSample = Callable[[Any, str], dict[str, Any]]
"""Makes a row of a sample, given how messages name it."""
DocumentKind = Callable[[Mapping[str, Any]], RowOfSample | None]
"""What makes rows of a document's samples, by the fields that stand before them; None for no such document."""


def json_rows(stream: BinaryIO, name: str, document_kind: DocumentKind = lambda head: None) -> Iterator[Any]:
    """The rows of one JSON text, in order, one at a time.

    Args:
        stream: the bytes of the file; UTF-8, with or without a byte order mark.
        name: the file as the user named it, for messages.
        document_kind: recognises documents of samples.

    Raises:
        InputError: where the text is no JSON or no UTF-8, with the line.
    """
    text = _JsonText(stream, name, document_kind)
    while opening := text.peek():
        if opening == "[":
            yield from text.elements()
        elif opening == "{":
            yield from text.row_or_container()
        else:
            yield text.value()


class _JsonText:
    """A text that is decoded from the left; ``_at`` is how far."""

    def __init__(self, stream: BinaryIO, name: str, document_kind: DocumentKind) -> None:
        self._stream, self._name, self._document_kind = stream, name, document_kind
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogatepass")
        self._json = json.JSONDecoder()
        self._buffer, self._at = "", 0
        self._line, self._byte, self._ended = 1, 0, False

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._ended:
                return ""
            self._read_on()

    def take(self, expected: str) -> str:
        """The next character, which must be one of ``expected``."""
        character = self.peek()
        if not character or character not in expected:
            raise self._broken(self._at, f"expected {' or '.join(expected)}, got {character or 'the end of the file'}")
        self._at += 1
        return character

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                may_be_cut = error.msg.startswith("Unterminated string") or error.pos > len(self._buffer) - _CUT
                if self._ended or not may_be_cut:
                    raise self._broken(error.pos, error.msg) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
                raise self._broken(self._at, str(error)) from None
            else:
                if end < len(self._buffer) or self._ended:  # at the buffer's edge a number may go on
                    self._at = end
                    return value
            self._read_on()

    def elements(self) -> Iterator[Any]:
        """The elements of the array that begins here."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return

    def row_or_container(self) -> Iterator[Any]:
        """The object that begins here, or the rows that it holds."""
        self.take("{")
        row: dict[str, Any] = {}
        contains_rows = False
        more = self.peek() != "}"
        if not more:
            self.take("}")
        while more:
            if self.peek() != '"':
                self.take('"')
            field = self.value()
            self.take(":")
            if field in ROW_LISTS and self.peek() == "[":
                elements = self.elements()
                held = list(islice(elements, 1))
                first = unpacked_row(held[0], row.get("columns")) if held else None
                if field == "data" or is_row(first):
                    contains_rows = True
                    yield from (unpacked_row(one, row.get("columns")) for one in chain(held, elements))
                else:
                    row[field] = [*held, *elements]
            elif field == "samples" and self.peek() == "[" and (row_of := self._document_kind(row)):
                contains_rows = True
                yield from self._rows_of(self.elements(), row_of)
            else:
                row[field] = self.value()
            more = self.take(",}") == ","
        if not contains_rows:
            samples = row.get("samples")
            if isinstance(samples, list) and (row_of := self._document_kind(row)):  # they stood before what tells it
                yield from self._rows_of(samples, row_of)
            else:
                yield from rows_of_document(row)

    def _rows_of(self, samples: Iterable[Any], row_of: RowOfSample) -> Iterator[dict[str, Any]]:
        for number, sample in enumerate(samples, 1):
            yield row_of(sample, f"{self._name}, row {number}")

    def _read_on(self) -> None:
        # At least twice as far when a value did not fit, so that a long one is not decoded again for every chunk.
        chunk = self._stream.read(max(_CHUNK, len(self._buffer) - self._at))
        if self._byte == 0 and chunk.startswith(codecs.BOM_UTF8):
            chunk, self._byte = chunk[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
        waiting = len(self._utf8.getstate()[0])
        try:
            text = self._utf8.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            byte = self._byte - waiting + error.start
            line = self._line + self._buffer.count("\n") + error.object.count(b"\n", 0, error.start)
            raise not_utf8(f"{self._name}, line {line}", byte, error) from None
        self._line += self._buffer.count("\n", 0, self._at)
        self._byte += len(chunk)
        self._buffer, self._at, self._ended = self._buffer[self._at :] + text, 0, not chunk

    def _broken(self, position: int, why: str) -> InputError:
        line = self._line + self._buffer.count("\n", 0, position)
        return InputError(
            f"{self._name}, line {line}: broken JSON: {why}; expected an array of rows, or one row a line"
        )


def not_utf8(where: str, byte: int, error: UnicodeDecodeError) -> InputError:
    """The error for bytes that are not UTF-8, which names the first of them."""
    got = error.object[error.start]
    return InputError(f"{where}: not UTF-8: byte {byte} of the file is 0x{got:02x}; save the file as UTF-8")
