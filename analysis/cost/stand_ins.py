"""Stand-ins of einops, jaxtyping, lazy_loader and sentencex, for machines that have torch and transformers alone.

The package names its axes with einops and jaxtyping. Where one of the four is not installed, these few lines take its
place while costs are measured: the same tensors, without the checks and the speed of a well-kept library. ``sentencex``
cannot be replaced so; what needs sentences is left out.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch


def install() -> list[str]:
    """Put a stand-in for each of the four that is missing; their names."""
    made: dict[str, Callable[[], ModuleType]] = {
        "einops": _einops,
        "jaxtyping": _Annotations,
        "lazy_loader": lambda: _module("lazy_loader", attach_stub=attach_stub),
        "sentencex": lambda: _module("sentencex", segment=_no_sentences),
    }
    missing = [name for name in made if name not in sys.modules and find_spec(name) is None]
    sys.modules.update({name: made[name]() for name in missing})
    return missing


def rearrange(value: Any, pattern: str, **sizes: int) -> Any:
    """Axes in another order, split or joined; ``1`` is an axis of one."""
    return _transformed(value, pattern, None, sizes)


def reduce(value: Any, pattern: str, how: str, **sizes: int) -> Any:
    """The same, and axes that the result lacks reduced by ``sum``, ``mean``, ``max`` or ``min``."""
    return _transformed(value, pattern, how, sizes)


def repeat(value: Any, pattern: str, **sizes: int) -> Any:
    """The same, and axes that the value lacks repeated."""
    return _transformed(value, pattern, None, sizes)


def einsum(*values_and_pattern: Any) -> Any:
    """Products of named axes, summed over those that the result lacks."""
    *values, pattern = values_and_pattern
    left, right = pattern.split("->")
    letters: dict[str, str] = {}
    for name in pattern.replace("->", " ").replace(",", " ").split():
        letters.setdefault(name, chr(ord("a") + len(letters)))
    terms = ["".join(letters[name] for name in term.split()) for term in left.split(",")]
    formula = f"{','.join(terms)}->{''.join(letters[name] for name in right.split())}"
    if isinstance(values[0], torch.Tensor):
        return torch.einsum(formula, *values)
    import numpy as np

    return np.einsum(formula, *values)


def _transformed(value: Any, pattern: str, how: str | None, sizes: dict[str, int]) -> Any:
    left, right = (_axes(side) for side in pattern.split("->"))
    known = dict(sizes)
    for group, size in zip(left, value.shape, strict=True):
        unknown = [name for name in group if name not in known]
        rest = prod(known[name] for name in group if name in known)
        known |= {name: size // rest for name in unknown}
    have = [name for group in left for name in group]
    want = [name for group in right for name in group]
    value = value.reshape([known[name] for name in have])
    gone = [number for number, name in enumerate(have) if name not in want]
    for number in reversed(gone):
        if how is not None:
            value = getattr(value, {"max": "amax", "min": "amin"}.get(how, how) if _is_tensor(value) else how)(number)
        else:
            assert known[have[number]] == 1, pattern
            value = value.reshape([*value.shape[:number], *value.shape[number + 1 :]])
    have = [name for name in have if name in want]
    order = [have.index(name) for name in want if name in have]
    value = value.permute(order) if _is_tensor(value) else value.transpose(order)
    for number, name in enumerate(want):
        if name not in have:
            value = value[(slice(None),) * number + (None,)]
    if any(name not in have for name in want):
        shape = [known.get(name, 1) for name in want]
        value = value.expand(shape) if _is_tensor(value) else _broadcast(value, shape)
    return value.reshape([prod(known.get(name, 1) for name in group) for group in right])


def _axes(side: str) -> list[list[str]]:
    """The names of each axis; of one in parentheses, of its parts. ``1`` has none."""
    groups: list[list[str]] = []
    inside = False
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word in "()":
            inside = word == "("
            groups += [[]] if inside else []
            continue
        names = [] if word == "1" else [word]
        if inside:
            groups[-1] += names
        else:
            groups.append(names)
    return groups


def _broadcast(value: Any, shape: list[int]) -> Any:
    import numpy as np

    return np.broadcast_to(value, shape)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _einops() -> ModuleType:
    return _module("einops", rearrange=rearrange, reduce=reduce, repeat=repeat, einsum=einsum)


class _Annotations(ModuleType):
    """Every name is a type that takes any shape."""

    def __init__(self) -> None:
        super().__init__("jaxtyping")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyShape


class _AnyShape:
    def __class_getitem__(cls, item: Any) -> Any:
        return item[0] if isinstance(item, tuple) else cls


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's ``__getattr__``, ``__dir__`` and ``__all__``, from the imports in the stub file beside it."""
    tree = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    found = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = found[name]
        if module is None:
            return importlib.import_module(f"{package}.{original}")
        return getattr(importlib.import_module(f"{package}.{module}"), original)

    return get, lambda: sorted(found), sorted(found)


def _no_sentences(*_: Any) -> NoReturn:
    raise ModuleNotFoundError("No module named 'sentencex'", name="sentencex")


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module
