"""Requests of a batch (OpenAI, vLLM, Anthropic), joined to the replies of a later file by their ``custom_id``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from safekey_interp.data.row_readers import RowSource

_ASKED, _REPLIED = {"body", "params"}, {"response", "result"}


class GivenRow(NamedTuple):
    """A row as its source gives it."""

    source: RowSource
    where: str
    """How messages name it."""
    row_id: str
    """The id of a trace that has none."""
    row: Any


class BatchRequests:
    """Requests that wait for their replies; those that get none are prompts."""

    def __init__(self) -> None:
        self._waiting: dict[str, GivenRow] = {}

    def joined(self, given: GivenRow) -> GivenRow | None:
        """A reply with its request; None for a request, which waits; any other row as it is."""
        row = given.row
        name = row.get("custom_id") if isinstance(row, dict) else None
        if not isinstance(name, str):
            return given
        if not _ASKED.isdisjoint(row) and _REPLIED.isdisjoint(row) and name not in self._waiting:
            self._waiting[name] = given
            return None
        if name in self._waiting and not _REPLIED.isdisjoint(row):
            return given._replace(row=self._waiting.pop(name).row | row)
        return given

    def unanswered(self) -> Iterator[GivenRow]:
        """The requests that wait."""
        yield from self._waiting.values()
