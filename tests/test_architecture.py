"""The house: imports run one way, one package attaches hooks, and no module is named like a public function."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import safekey_interp

ROOT = Path(safekey_interp.__file__).parent
# Lower rooms know nothing of higher ones; rooms of one floor may know each other.
FLOORS = [
    {"version", "errors", "identity", "marks", "notebook", "progress"},
    {"trace", "stats", "storage", "conditions", "processes", "losses", "head_file"},
    {
        *("json_stream", "safekey_offsets", "formats", "row_sources", "row_files", "datasets", "suite_rows", "suites"),
        *("endpoint", "replies"),
    },
    {"finders", "segmentation", "agreement", "showing"},
    {"organism"},
    {"checkpoints", "rendering", "encoding", "bridging", "models"},
    {"capture"},
    {"attention_summary", "attention", "generation", "key_sentence_bank", "continuations", "key_sentences"},
    {"judge"},
    {
        *("folds", "shuffles", "ranking", "geometry", "estimators", "text_baseline", "cells", "layerwise", "pairing"),
        *("controls", "probe_files", "probes", "separability", "transfer"),
    },
    {"interventions", "readers", "sentence_starts", "trajectory", "monitor"},
    {
        *("survey", "manifest", "runs", "run_writer", "parts", "claims", "findings"),
        *("joint_run", "measuring", "summaries", "assembly", "probing", "intervening"),
    },
    {"training", "comparing"},
    {"evaluating"},
    {"figures"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
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


def test_every_module_has_its_floor() -> None:
    assert {room(path) for path in modules()} <= set(FLOOR_OF), "give the new room a floor in FLOORS"
    assert set(FLOOR_OF) >= {room(path) for path in modules()}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    mine = FLOOR_OF[room(path)]
    above = {name for name in imported_rooms(ast.parse(path.read_text())) if FLOOR_OF.get(name, -1) > mine}
    if room(path) != "__init__":
        assert not above, f"{path.name} imports {sorted(above)}, which stand above it"


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
    assert not {room(path) for path in modules()} & (set(safekey_interp.__all__) - {"__version__"})


@pytest.mark.parametrize("name", [n for n in safekey_interp.__all__ if n != "__version__"])
def test_a_public_name_is_the_same_whichever_way_it_is_asked_for(name: str) -> None:
    """Twice, and after importing its module: a module of the same name would take its place."""
    home = safekey_interp._HOME_OF[name]
    code = (
        "import importlib, safekey_interp as ski\n"
        f"first = ski.{name}; second = ski.{name}\n"
        f"module = importlib.import_module('safekey_interp.{home}')\n"
        f"assert first is second is ski.{name} is getattr(module, {name!r})\n"
    )
    exec(compile(code, name, "exec"), {})


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, safekey_interp\n"
        "dir(safekey_interp)\n"
        "names = {'torch', 'transformers', 'transformer_lens', 'pandas', 'sklearn', 'plotly', 'scipy', 'numpy'}\n"
        "heavy = names & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        safekey_interp.nonsense  # noqa: B018
