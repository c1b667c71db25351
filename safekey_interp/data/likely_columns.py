"""Columns that are likely to hold a response or its reasoning, where none has a usual name.

What is looked for, in this order: a text with marks of reasoning, whatever its column is called; numbered columns
(``response_0``, ``response_1``); names that are not used for responses alone (``text``, ``chosen``); a name that ends
like a usual one (``llm_response``). A column is taken for its name only where it holds text, or what holds text, and
where no second one has as good a name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from safekey_interp.data.column_names import OTHER_RESPONSE_FIELDS, plain_name
from safekey_interp.data.reasoning_marks import is_marked, starts_marked
from safekey_interp.data.reply_forms import holds_reply

_ENDS = r"(?:response|completion|output|generation|answer|attempt|prediction|solution)"
_NUMBERED = re.compile(rf"(?:.*_)?{_ENDS}_(?:\d+|[ab])")
_ENDING = re.compile(rf".*_{_ENDS}")
_THOUGHT = re.compile(
    r"(?:.*_)?(?:reasoning|thinking|thoughts?|co_?t|thought_process|thinking_trajector(?:y|ies)|think|rationale)"
)
_REFERENCE = re.compile(
    r"(?:expected|reference|gold|golden|target|true|correct|ideal|human|ground_truth|gt|is|has|n|num|len|max|min"
    r"|best|example|previous|score|metadata|judge|grader)_.*"
)
"""Names of what a model did not write, or of what is no text."""


def likely_answers(
    cells: Mapping[str, Any], used: Collection[str], *, marked_from_start: bool = False
) -> tuple[str, ...]:
    """Columns of the answers to one prompt, in order; several are answers side by side.

    Args:
        cells: the row's values by column.
        used: columns that have been read already.
        marked_from_start: only texts that begin with a mark of reasoning, which outdo a response without any.
    """
    left = {column: value for column, value in cells.items() if column not in used and _holds_text(value)}
    is_one = starts_marked if marked_from_start else is_marked
    if found := tuple(column for column, value in left.items() if _is(value, is_one)):
        return found
    if marked_from_start:
        return ()
    if found := tuple(column for column, value in left.items() if isinstance(value, Mapping) and holds_reply(value)):
        return found
    plain = {plain_name(column): column for column in left}
    names = {name: column for name, column in plain.items() if not _REFERENCE.fullmatch(name)}
    if len(found := tuple(column for name, column in names.items() if _NUMBERED.fullmatch(name))) > 1:
        return found
    if (other := next((names[name] for name in OTHER_RESPONSE_FIELDS if name in names), None)) is not None:
        return (other,)
    found = tuple(column for name, column in names.items() if _ENDING.fullmatch(name))
    return found if len(found) == 1 else ()


def likely_reasoning(cells: Mapping[str, Any], used: Collection[str]) -> str | None:
    """The column whose name says that it holds reasoning; None for none, or for several."""
    found = [
        column
        for column, value in cells.items()
        if column not in used and _says_reasoning(column) and _holds_text(value)
    ]
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=4096)
def _says_reasoning(column: str) -> bool:
    name = plain_name(column)
    return bool(_THOUGHT.fullmatch(name)) and not _REFERENCE.fullmatch(name)


def _holds_text(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(one, str | Mapping | list) and one for one in value[:1])
    return isinstance(value, str | Mapping) and bool(value)


def _is(value: Any, marked: Any) -> bool:
    """Whether a text is marked, or each of a list."""
    if isinstance(value, str):
        return marked(value)
    return (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(one, str) and marked(one) for one in value)
    )
