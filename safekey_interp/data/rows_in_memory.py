"""Rows in memory: mappings, traces or a pandas data frame, as a source that feeds a hash of canonical JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from safekey_interp.data.row_readers import Hash
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_record import spans_record
from safekey_interp.errors import InputError

_ROWS_AT_ONCE = 256


class RowsInMemory:
    """Mappings or traces that are already here: a list, or anything else that can be walked through."""

    name = "rows in memory"
    is_held = True

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._spent = False

    @property
    def is_read_once(self) -> bool:
        """Whether it can be walked through only once."""
        return iter(self._items) is self._items

    def where(self, number: int) -> str:
        """Counted from 0, as Python does."""
        return f"row [{number}]"

    def rows(self, digest: Hash) -> Iterator[tuple[int, Any]]:
        """Each mapping or trace with its index.

        Raises:
            InputError: on a second pass through what can be walked through only once.
        """
        if self._spent:
            raise InputError("these traces can be read only once, and were; pass a list, or call check() first")
        self._spent = self.is_read_once
        for number, item in enumerate(self._items):
            row = _plain(item) if isinstance(item, Mapping) else item
            content = _content_of(item) if isinstance(item, Trace) else row
            digest.update(json.dumps(content, sort_keys=True, default=str).encode() + b"\n")
            yield number, row


class RowsOfFrame(RowsInMemory):
    """A pandas data frame; empty cells (NaN, NaT, NA, None) are missing."""

    name = "data frame"

    def __init__(self, frame: Any) -> None:
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise InputError(f"data frame: column {twice[0]!r} stands twice; rename one")
        super().__init__(_FrameRows(frame))


class _FrameRows:
    """The rows of a data frame as dictionaries, made a few hundred at a time."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self._frame), _ROWS_AT_ONCE):
            some = self._frame.iloc[start : start + _ROWS_AT_ONCE]
            yield from some.astype(object).where(some.notna(), None).to_dict("records")


def _plain(value: Any) -> Any:
    """``value`` with numpy's types, which pandas and datasets hand out, as Python's own, and keys as text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if not isinstance(value, str | int) and hasattr(value, "tolist"):
        return _plain(value.tolist()) if getattr(value, "ndim", 0) else value.item()
    return value


def _content_of(trace: Trace) -> dict[str, Any]:
    fields = {name: getattr(trace, name) for name in ("trace_id", "prompt", "response", "label", "source", "group")}
    messages = [[turn.role, turn.content] for turn in trace.messages]
    given = {name: [span.start, span.end] for name, span in trace.given.items()}
    content = fields | {"messages": messages, "given": given, "meta": dict(trace.meta)}
    content |= {"steps": [[step.role, step.content] for step in trace.steps]} if trace.steps else {}
    spans = spans_record(trace)
    return content | {"spans": spans} if spans else content
