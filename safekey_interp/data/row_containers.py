"""Documents that hold rows: a list of rows under any name, lists by key, tables by column.

Whole JSON documents of result files: ``{"jailbreaks": […]}``, ``{"results": {"results": […]}}`` (promptfoo),
``{"behavior": [{…}]}`` (HarmBench), ``{"0": {…}, "1": {…}}`` (OpenCompass), ``{"columns": […], "data": [[…]]}``
(pandas, W&B tables) and ``{"prompt": […], "response": […]}``. A document that has a prompt of its own is a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from safekey_interp.data.column_names import MESSAGES_FIELDS, OTHER_PROMPT_FIELDS, PROMPT_FIELDS, plain_name

ROW_LISTS = frozenset(
    ("data", "results", "jailbreaks", "request_states", "rows", "records", "items", "examples", "traces", "instances")
)
"""Names of lists of rows that are read one by one, without holding the document."""
_ASKS = frozenset((*PROMPT_FIELDS, *MESSAGES_FIELDS, *OTHER_PROMPT_FIELDS))
_BESIDE = ("start_run setup", "init", "plugin_cache", "eval", "completion", "digest", "setup")
"""Kinds of lines of garak's report."""
_HOLDERS = frozenset(("instance", "doc"))
_DEPTH = 3


def is_row(value: Any) -> bool:
    """Whether an object may be a row: one of its names is that of a prompt, a conversation, or what holds them."""
    return isinstance(value, Mapping) and any(plain_name(name) in _ASKS or name in _HOLDERS for name in value)


def is_beside_rows(line: Any) -> bool:
    """Whether a line of garak's report is none of its finished attempts: settings, evaluations, attempts as begun."""
    kind = line.get("entry_type") if isinstance(line, Mapping) else None
    return kind in _BESIDE or (kind == "attempt" and "probe_classname" in line and line.get("status") == 1)


def unpacked_row(element: Any, columns: Any) -> Any:
    """An element of a list of rows: by the names of a table's columns, or out of ``{"row_idx": …, "row": {…}}``."""
    if isinstance(columns, list) and isinstance(element, list) and len(columns) == len(element):
        return dict(zip(map(str, columns), element, strict=True))
    if isinstance(element, Mapping) and "row_idx" in element and isinstance(element.get("row"), Mapping):
        return element["row"]
    return element


def rows_of_document(document: Mapping[str, Any]) -> Iterator[Any]:
    """The rows that a document holds, or the document as the one row that it is."""
    if is_row(document):
        yield from _by_column(document) or [document]
        return
    lists = [value for value in document.values() if _is_rows(value)]
    if len(document) > 1 and len(lists) == len(document):
        for key, value in document.items():
            for row in value:
                yield {"key": key, **row}
        return
    if document and all(map(is_row, document.values())):
        for key, row in document.items():
            yield {"key": key, **row}
        return
    yield from max(_lists_in(document, _DEPTH), key=len, default=[document])


def _lists_in(value: Any, depth: int) -> Iterator[list[Any]]:
    if _is_rows(value):
        yield value
    elif isinstance(value, Mapping) and depth:
        for inner in value.values():
            yield from _lists_in(inner, depth - 1)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_row, value))


def _by_column(document: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a table that is written column by column; None where it is none."""
    keys = [list(value) for value in document.values() if isinstance(value, Mapping)]
    if keys and (len(keys) < len(document) or any(one != keys[0] for one in keys)):
        return None  # objects of one row, or a table with gaps
    columns = {name: list(value.values()) if keys else value for name, value in document.items()}
    asked = next((value for name, value in columns.items() if plain_name(name) in PROMPT_FIELDS), None)
    if not isinstance(asked, list) or not asked or not all(isinstance(one, str) for one in asked):
        return None
    if any(not isinstance(value, list) or len(value) != len(asked) for value in columns.values()):
        return None
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
