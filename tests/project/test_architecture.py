"""The house: imports run one way, one package attaches hooks, and no module is named like a public function."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from public_names import HOMES

import safekey_interp

ROOT = Path(safekey_interp.__file__).parent
PACKAGES = [
    *("runs", "data", "segmentation", "models", "capture", "measures", "generation"),
    *("interventions", "evaluation", "training", "reporting", "experiments", "exploration", "cli"),
]
"""Imports run from right to left; ``interventions``, ``evaluation`` and ``training`` do not know one another."""
LOOSE = {"version", "errors", "display", "progress", "endpoint", "__init__", "__main__"}
ORDER = ["version", "errors", "display", "progress", "runs", "data", "endpoint", *PACKAGES[2:], "__main__", "__init__"]
APART = {"interventions", "evaluation", "training"}
MOST_LINES = 300
ATTACHING = {
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
    "register_hook",
    "add_hook",
    "hooks",
    "run_with_hooks",
    "run_with_cache",
    "register",
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "safekey_interp":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("safekey_interp.")}
    return names


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that one imports, as ``package.module``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "safekey_interp":
            inside = ".".join(node.module.split(".")[1:])
            names |= {f"{inside}.{alias.name}".strip(".") for alias in node.names} | {inside}
    return names & {dotted(path) for path in modules()}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_there_are_fourteen_packages_and_six_loose_modules() -> None:
    assert sorted(path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()) == sorted(PACKAGES)
    assert {path.stem for path in ROOT.glob("*.py")} == LOOSE


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_run_one_way(path: Path) -> None:
    mine = room(path)
    if mine == "__init__":
        return
    others = imported_rooms(ast.parse(path.read_text())) - {mine}
    above = {name for name in others if ORDER.index(name) > ORDER.index(mine)} - {"__init__"}
    beside = others & APART if mine in APART else set()
    assert not above | beside, f"{dotted(path)} imports {sorted(above | beside)}, which stand above or beside it"


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {dotted(path): imported_modules(path) for path in modules()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_file_names_are_unique() -> None:
    names = Counter(path.stem for path in modules() if path.stem != "__init__")
    assert not {name for name, n in names.items() if n > 1}


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    assert not {dotted(path): n for path in modules() if (n := len(path.read_text().splitlines())) > MOST_LINES}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_capture_attaches(path: Path) -> None:
    if room(path) == "capture":
        return
    calls = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not calls & ATTACHING


def test_no_module_is_named_like_a_public_name() -> None:
    """With lazy imports, the second access to such a name would return the module."""
    assert not {path.stem for path in modules()} & (set(safekey_interp.__all__) - {"__version__"})


@pytest.mark.parametrize("name", [n for n in safekey_interp.__all__ if n != "__version__"])
def test_a_public_name_is_the_same_whichever_way_it_is_asked_for(name: str) -> None:
    """Twice, and after importing its module: a module of the same name would take its place."""
    code = (
        "import importlib, safekey_interp as ski\n"
        f"first = ski.{name}; second = ski.{name}\n"
        f"module = importlib.import_module('safekey_interp.{HOMES[name]}')\n"
        f"assert first is second is ski.{name} is getattr(module, {name!r})\n"
    )
    exec(compile(code, name, "exec"), {})


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, safekey_interp\n"
        "dir(safekey_interp)\n"
        "names = {'torch', 'transformers', 'transformer_lens', 'pandas', 'sklearn', 'plotly', 'scipy', 'numpy'}\n"
        "names |= {'pydantic'}\n"
        "heavy = names & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"No .* attribute nonsense"):
        safekey_interp.nonsense  # noqa: B018
