"""Values of cells: whole numbers, identifiers, JSON text of a CSV cell, and what a message says of a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from safekey_interp.errors import InputError


def json_value(value: Any, opening: tuple[str, ...] = ("[",)) -> Any:
    """What a cell holds as JSON text that begins with one of the brackets; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith(opening):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


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
