"""Files of directions and probes: safetensors, the arrays as tensors and everything else as metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from safekey_interp.errors import InputError
from safekey_interp.measures.control_directions import controls_in

_CONTROLS = "controls"
_LATER = {"classes", "estimator"}  # fields that files of version 0.1 lack


def save_record(record: Any, path: str | Path, vectors: Sequence[str]) -> None:
    """Write a record; vectors as float64, its controls as they are.

    Args:
        record: a dataclass with a field ``controls``.
        path: of the file.
        vectors: its fields that are arrays.
    """
    from safetensors.numpy import save_file

    apart = {*vectors, _CONTROLS}
    others = {field.name: getattr(record, field.name) for field in fields(record) if field.name not in apart}
    tensors = {name: np.ascontiguousarray(getattr(record, name), dtype=np.float64) for name in vectors}
    if record.controls is not None:
        controls = record.controls.arrays().items()
        tensors |= {f"{_CONTROLS}.{name}": np.ascontiguousarray(array) for name, array in controls}
    save_file(tensors, path, {"safekey_interp": type(record).__name__, "fields": json.dumps(others)})


def kind_of_record(path: str | Path) -> str:
    """Name of the class whose record a file holds; empty where it holds none or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("safekey_interp", "")
    except (OSError, SafetensorError):
        return ""


def load_record(cls: type, path: str | Path, vectors: Sequence[str]) -> dict[str, Any]:
    """Arrays and fields of a record's file, checked: same record, all names, vectors of one width.

    Raises:
        InputError: in one line, for anything else.
    """
    from safetensors import SafetensorError, safe_open

    expected = f"expected a file written by {cls.__name__}.save"
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {expected}") from None
    if about.get("safekey_interp") != cls.__name__:
        raise InputError(f"{path}: got a file of {about.get('safekey_interp') or 'something else'}, {expected}")
    prefix = f"{_CONTROLS}."
    drawn = {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
    if (
        set(arrays) != set(vectors)
        or len({array.shape for array in arrays.values()}) != 1
        or arrays[vectors[0]].ndim != 1
    ):
        got = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
        raise InputError(f"{path}: got {got}, expected {', '.join(f'{name} (d_model,)' for name in vectors)}")
    try:
        stored: dict[str, Any] = json.loads(about["fields"])
        others = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
        known, there = {field.name for field in fields(cls)}, set(others) | set(arrays) | {_CONTROLS}
        missing = (known - there - _LATER) | (there - known)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: its metadata holds no fields; {expected}") from None
    if missing:
        raise InputError(f"{path}: got other fields than expected ({', '.join(sorted(missing))}); {expected}")
    return others | arrays | {_CONTROLS: controls_in(drawn, len(arrays[vectors[0]]), str(path))}
