"""Standard input as a stream of JSON Lines, read once and never kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from safekey_interp.data.row_readers import Hash, jsonl_rows
from safekey_interp.errors import InputError


class StandardInput:
    """Rows as they arrive."""

    name = "standard input"
    is_held = False
    is_read_once = True

    def __init__(self) -> None:
        self._spent = False

    def where(self, number: int) -> str:
        """Rows go by their line."""
        return f"{self.name}, line {number}"

    def rows(self, digest: Hash) -> Iterator[tuple[int, Any]]:
        """Each row with its line.

        Raises:
            InputError: a line that is no JSON object, or a second pass.
        """
        if self._spent:
            raise InputError(f"{self.name}: can be read only once, and was; write it to a file, and name that")
        self._spent = True
        return jsonl_rows(sys.stdin.buffer, self.name)
