"""What users may rely on: every public name with its signature stands in a file, so that a change shows in review.

``python tests/project/test_public_api.py`` writes the file anew; its difference belongs in the change that made it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import safekey_interp

FILE = Path(__file__).with_name("public_api.txt")


def signature(of: Any) -> str:
    """As Python writes it, without the address of a function that is a default."""
    return re.sub(r"<function [^>]*<?lambda>? at 0x[0-9a-f]+>", "…", str(inspect.signature(of)))


def members(owner: type) -> Iterator[str]:
    """Lines of a class's public methods, properties and constants, in the order of their names."""
    for name, member in sorted(inspect.getmembers_static(owner)):
        home = next((base for base in owner.__mro__ if name in base.__dict__), object)
        if name.startswith("_") or not home.__module__.startswith("safekey_interp"):
            continue
        if isinstance(member, property | cached_property):
            yield f"    {name}: property"
        elif isinstance(member, (staticmethod, classmethod)):
            yield f"    {name}{signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"    {name}{signature(member)}"


def lines() -> Iterator[str]:
    """Every public name, then what a class offers."""
    for name in sorted(set(safekey_interp.__all__) - {"__version__"}):
        value = getattr(safekey_interp, name)
        yield f"{name}{signature(value)}"
        if inspect.isclass(value):
            yield from members(value)


def test_the_public_names_and_signatures_are_those_in_the_file() -> None:
    expected, found = FILE.read_text(encoding="utf-8").splitlines(), list(lines())
    gone = [line for line in expected if line not in found]
    new = [line for line in found if line not in expected]
    told = (
        "write it anew with `python tests/project/test_public_api.py`, and say in CHANGELOG.md what a user must change"
    )
    assert found == expected, f"gone: {gone}; new: {new}; if that is meant, {told}"


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
