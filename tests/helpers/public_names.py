"""Public names with the modules that define them, from the package's stub."""

from __future__ import annotations

import ast
from pathlib import Path

import safekey_interp

STUB = Path(safekey_interp.__file__).with_name("__init__.pyi")
HOMES = {
    alias.name: node.module
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
"""Module of each public name, below ``safekey_interp``."""
