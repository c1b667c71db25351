"""How does a value from YAML become a setting of the right type, or one clear line?"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from safekey_interp.errors import InputError

_NOT: Any = object()
"""Stands for a value that is not of the type."""


def read_yaml(text: str, where: str) -> Any:
    """What a YAML text says.

    Raises:
        InputError: it is not YAML; ``where`` says which text.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none; brackets without end
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where}: not YAML ({first})") from error


def write_yaml(settings: Mapping[str, Any]) -> str:
    """Settings of plain types as YAML that :func:`read_yaml` reads back."""
    import yaml

    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def typed(name: str, value: Any, hint: Any) -> Any:
    """``value`` as a setting's type: int, float, bool, str, a literal, a tuple, or one of these or None.

    Raises:
        InputError: it is of another.
    """
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        made = _as_one(value, option)
        if made is not _NOT:
            return made
    raise InputError(f"{name}: got {value!r}, expected {' or '.join(map(_in_words, options))}")


def _as_one(value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return _as_tuple(value, get_args(hint))
    if get_origin(hint) is Literal:
        fits = value in get_args(hint)
    elif hint is float:
        return _as_float(value)
    elif hint is type(None):
        fits = value is None
    else:
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    return value if fits else _NOT


def _as_float(value: Any) -> Any:
    # YAML reads 1e-5 as a text.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _NOT
    try:
        return float(value)
    except ValueError:
        return _NOT


def _as_tuple(value: Any, kinds: tuple[Any, ...]) -> Any:
    is_open = kinds[-1] is ...
    items = [value] if isinstance(value, str) and is_open else value
    if not isinstance(items, list | tuple) or not (is_open or len(items) == len(kinds)):
        return _NOT
    wanted = [kinds[0]] * len(items) if is_open else kinds
    made = tuple(_as_one(item, kind) for item, kind in zip(items, wanted, strict=True))
    return _NOT if _NOT in made else made


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        each = {float: "numbers", int: "whole numbers", str: "texts"}[kinds[0]]
        return f"a list of {each}" if kinds[-1] is ... else f"a list of {len(kinds)} {each}"
    words = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", type(None): "null"}
    return words[hint]
