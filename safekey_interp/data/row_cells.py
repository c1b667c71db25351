"""Cells of a row by what their columns mean, and what a row says as turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import json_value
from safekey_interp.data.turn_text import ROLE_FIELDS, Turn


class Row(NamedTuple):
    """A row's cells, found by what their columns mean."""

    cells: Mapping[str, Any]
    """By column; nothing that is missing."""
    columns: Mapping[str, str]
    """Columns by their plain names (:func:`~safekey_interp.data.column_names.plain_name`)."""
    where: str
    """How messages name it."""
    given: Mapping[str, Any]
    """All of its cells."""
    known: dict[tuple[str, ...], str | None]
    """Columns by the names that were asked for; rows of the same columns share it."""
    guesses: bool = True
    """Whether a response may stand in a column without a usual name; not where the user named its column."""

    def column(self, names: tuple[str, ...]) -> str | None:
        """The column that has the first of some plain names; None for none."""
        if names not in self.known:
            self.known[names] = next((self.columns[name] for name in names if name in self.columns), None)
        return self.known[names]

    def get(self, names: tuple[str, ...]) -> Any:
        """The cell of that column; None for none."""
        column = self.column(names)
        return None if column is None else self.cells[column]

    def at(self, column: str | None) -> str:
        """How messages name a cell."""
        return f"{self.where}: {column}"


class RowText(NamedTuple):
    """What a row says, as turns."""

    turns: Sequence[Turn]
    """The conversation, from its first turn."""
    answers: Sequence[Turn] | None
    """Each answers the whole conversation; None: it holds its answers."""
    used: tuple[str, ...]
    """Columns that were read."""
    asked_in: str
    """Where the prompt was."""
    is_listed: bool = False
    """Whether the answers stood in a list, so that each has a number, be it alone."""


def messages_in(value: Any) -> Sequence[Any] | None:
    """A cell as a list of messages; None where it is none."""
    parsed = json_value(value) if isinstance(value, str) and value[:1] == "[" else value
    return parsed if are_messages(parsed) else None


def are_messages(value: Any) -> bool:
    """Whether a value is a list of messages, by its first."""
    first = value[0] if isinstance(value, list | tuple) and len(value) else None
    return isinstance(first, Mapping) and any(name in first for name in ROLE_FIELDS)
