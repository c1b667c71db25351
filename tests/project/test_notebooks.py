"""Each notebook and its text twin say the same, hold no outputs, call only the package, and run in a new kernel.

Their pages in ``docs/notebooks/`` are made of the present sources.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import jupytext
import pytest

from docs.executed_notebooks import PAGES, first_line

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ALLOWED = {"safekey_interp", "pandas"} | sys.stdlib_module_names
HANGS_AFTER_S = 900
"""What takes longer hangs. SmolLM2's responses in notebook 8 take over a minute, and longer beside other processes."""
by_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def test_every_notebook_has_its_twin():
    assert NOTEBOOKS
    assert {path.stem for path in NOTEBOOKS} == {path.stem for path in FOLDER.glob("*.py")}


@by_notebook
def test_the_twins_say_the_same(path):
    assert cells(path) == cells(path.with_suffix(".py")), f"run: jupytext --sync {path.relative_to(FOLDER.parent)}"


@by_notebook
def test_no_output_is_kept(path):
    code = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@by_notebook
def test_the_page_is_made_of_the_present_source_and_has_its_pictures(path):
    page = (PAGES / f"{path.stem}.md").read_text(encoding="utf-8")
    made = f"run: python -m docs.executed_notebooks {path.stem}"
    assert page.splitlines()[0] == first_line(path.with_suffix(".py")), made
    pictures = re.findall(r"\]\((\w+\.png)\)", page)
    assert pictures, made
    assert sorted(pictures) == sorted(file.name for file in PAGES.glob(f"{path.stem}_*.png"))


@by_notebook
def test_a_notebook_calls_only_the_package(path):
    tree = ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert modules <= ALLOWED


@pytest.mark.timeout(HANGS_AFTER_S)
@by_notebook
def test_a_notebook_runs_from_top_to_bottom_without_a_network(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = jupytext.read(path)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=HANGS_AFTER_S, kernel_name="python3", resources=where).execute()
    shown = {
        kind
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        for kind in output.get("data", {})
    }
    assert "application/vnd.plotly.v1+json" in shown
    assert "text/html" in shown
    assert not list(tmp_path.iterdir())
