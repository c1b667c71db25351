"""Temporary file of JSON records, for what is walked through several times and does not fit in memory."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, Any

_BLOCK = 1 << 20
"""Bytes that one walk reads at a time."""


class RecordSpool:
    """Records on disk, in the order in which they were added; the file has no name and goes when this object does."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def append(self, record: bytes) -> bool:
        """Add a record, as JSON without a line feed, before the first walk; False when there is no room for it."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as this object
                weakref.finalize(self, self._file.close)
            self._file.write(record + b"\n")
        except OSError:
            return False
        return True

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while self._file is not None:
            # Several walks may share the file: each goes back to where it was.
            self._file.seek(position)
            lines = self._file.readlines(_BLOCK)
            position = self._file.tell()
            if not lines:
                return
            yield from map(json.loads, lines)
