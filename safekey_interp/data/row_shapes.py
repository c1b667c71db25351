"""Shapes of rows: what tells each, and how its conversation and its answers are read.

:data:`SHAPES` has one line a shape; the first whose columns and values fit reads the row. To add one, write a function
from a :class:`Row` to :class:`RowText` and add its line before those that are more general.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from safekey_interp.data import row_texts as texts
from safekey_interp.data.cell_values import json_value
from safekey_interp.data.column_names import MESSAGES_FIELDS, PROMPT_FIELDS, REASONING_FIELDS, RESPONSE_FIELDS
from safekey_interp.data.reply_forms import FORMS, ReplyForm
from safekey_interp.data.row_cells import Row, RowText


class RowShape(NamedTuple):
    """One shape of rows."""

    name: str
    """As a note calls it."""
    needs: Callable[[Mapping[str, str]], bool]
    """Whether a row with these columns, by plain names, may have it; asked once for a set of columns."""
    fits: Callable[[Row], bool]
    """Whether the row's values have it."""
    read: Callable[[Row], RowText]
    """What it says."""


def _has(*names: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda columns: columns.keys() >= set(names)


def _has_one(names: Sequence[str]) -> Callable[[Mapping[str, str]], bool]:
    return lambda columns: not columns.keys().isdisjoint(names)


def _always(_: Any) -> bool:
    return True


def _may_be_json(value: Any) -> bool:
    return not isinstance(value, str) or value[:1] in ("[", "{")


def _is_reply(form: ReplyForm, row: Row) -> bool:
    return _may_be_json(row.cells.get(form.field)) and form.fits(row.cells)


def _first_turn(row: Row, names: tuple[str, ...]) -> Mapping[str, Any]:
    turns = row.get(names)
    if not _may_be_json(turns):
        return {}
    turns = json_value(turns)
    first = turns[0] if isinstance(turns, list | tuple) and len(turns) else None
    return first if isinstance(first, Mapping) else {}


def _has_reasoning_column(columns: Mapping[str, str]) -> bool:
    return _has_one(REASONING_FIELDS)(columns) and _has_one(RESPONSE_FIELDS)(columns)


SHAPES = (
    RowShape(
        "SafeKey results",
        _has("instruction", "prompt", "response"),
        lambda row: isinstance(row.get(("response",)), list | tuple),
        partial(texts.read_columns, prompt=("instruction",)),
    ),
    *(
        RowShape(form.name, _has(form.field), partial(_is_reply, form), partial(texts.read_reply, form))
        for form in FORMS
    ),
    RowShape(
        "lm-eval samples", _has("doc", "resps"), lambda row: isinstance(row.get(("doc",)), Mapping), texts.read_lm_eval
    ),
    RowShape("garak attempts", _has("entry_type", "probe_classname", "prompt", "outputs"), _always, texts.read_attempt),
    RowShape(
        "ChatGPT export",
        _has("mapping", "current_node"),
        lambda row: isinstance(row.get(("mapping",)), Mapping),
        texts.read_chatgpt_export,
    ),
    RowShape("batch requests", _has("custom_id", "body"), _always, texts.read_request),
    RowShape(
        "ShareGPT conversations",
        _has_one(MESSAGES_FIELDS),
        lambda row: "from" in _first_turn(row, MESSAGES_FIELDS),
        texts.read_columns,
    ),
    RowShape(
        "Gemini contents", _has("contents"), lambda row: "parts" in _first_turn(row, ("contents",)), texts.read_columns
    ),
    RowShape("messages", _has_one(MESSAGES_FIELDS), _always, texts.read_columns),
    RowShape(
        "prompts of messages",
        _has_one(PROMPT_FIELDS),
        lambda row: bool(_first_turn(row, PROMPT_FIELDS)),
        texts.read_columns,
    ),
    RowShape(
        "Alpaca rows",
        _has("instruction", "input"),
        lambda row: isinstance(row.get(("input",)), str) and row.column(PROMPT_FIELDS) == row.columns["instruction"],
        texts.read_alpaca,
    ),
    RowShape("columns with reasoning apart", _has_reasoning_column, _always, texts.read_columns),
    RowShape("columns", _always, _always, texts.read_columns),
)
"""Shapes in the order in which they are tried."""
