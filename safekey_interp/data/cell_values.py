"""Values of cells: whole numbers, identifiers, JSON text of a CSV cell, and what a message says of a value."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from safekey_interp.errors import InputError

_PYTHON = re.compile(r"\[?\s*(?:\{\s*)?['\"]")
_LONGEST_PYTHON = 1 << 20
"""Characters of a cell that is read as Python; Python's own reader takes many times as much memory."""


def json_value(value: Any, opening: tuple[str, ...] = ("[",)) -> Any:
    """What a cell holds as text of JSON, or of Python, that begins with one of the brackets; else as it is."""
    if not isinstance(value, str) or not (text := value.strip()).startswith(opening):
        return value
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _python_value(text, value)


def _python_value(text: str, otherwise: Any) -> Any:
    """Lists and objects as pandas writes them into CSV: ``[{'role': 'user', …}]``."""
    if not _PYTHON.match(text) or text[-1:] not in ("]", "}") or len(text) > _LONGEST_PYTHON:
        return otherwise
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return otherwise


def whole_number(value: Any, where: str) -> int:
    """A number of characters.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InputError(f"{where}: got {kind_in_words(value)}, expected a whole number of characters")


def identifier(value: Any, where: str) -> str:
    """A text, or a whole number as text.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{where}: got {kind_in_words(value)}, expected text or a whole number")


def kind_in_words(value: Any) -> str:
    """What a value is, in words, and the value when it is short."""
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    if value is None:
        return "null"
    for types, word in ((bool, "the truth value"), (int | float, "the number"), (str, "the text")):
        if isinstance(value, types):
            return f"{word} {shown}"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(str, list(value)[:5])) or 'no fields'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"{type(value).__name__} {shown}"
