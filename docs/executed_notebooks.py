"""Executed notebooks as pages: ``python -m docs.executed_notebooks [NAME...]``.

Each notebook of ``notebooks/`` runs in a new kernel and becomes ``docs/notebooks/NAME.md``: text, code, and what
each cell shows. Tables stay tables; plots and coloured traces become pictures. The first line has a hash of the source,
which a test compares. About eight minutes; the last two notebooks read SmolLM2 where it is there, the seventh also
STAR-1.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from docs.screenshots import browser, open_page, save_element

ROOT = Path(__file__).parents[1]
SOURCES, PAGES = ROOT / "notebooks", ROOT / "docs" / "notebooks"
_WIDTH = 760
_PLOT = "application/vnd.plotly.v1+json"
_PROGRESS = "application/vnd.jupyter.widget-view+json"
_TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
_ROUND = str.maketrans("[]<>", "()()")
_ATTRIBUTES = re.compile(r' (?:border|class|style|halign|valign)="[^"]*"')


def first_line(source: Path) -> str:
    """First line of the page of a notebook: which source it was made from."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return f"<!-- made by `python -m docs.executed_notebooks` from notebooks/{source.name}, sha256 {digest} -->"


def executed(source: Path) -> Any:
    """The notebook with its outputs, run in an empty folder without a network."""
    import jupytext
    from nbclient import NotebookClient

    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    notebook = jupytext.read(source)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    return notebook


class PageWriter:
    """Text of a page, and pictures beside it."""

    def __init__(self, driver: Any, name: str) -> None:
        self._driver, self._name = driver, name
        self._n_pictures = 0

    def cell(self, cell: Any) -> list[str]:
        """Blocks of a cell: its source, then its outputs."""
        if cell.cell_type == "markdown":
            return [cell.source]
        shown = [self._output(output) for output in cell.outputs]
        return [f"```python\n{cell.source}\n```", *filter(None, shown)]

    def _output(self, output: Any) -> str:
        if output.output_type == "stream":
            return _as_text(output.text) if output.name == "stdout" else ""
        data = output.get("data", {})
        if _PLOT in data:
            return self._plot(data[_PLOT])
        html = data.get("text/html", "")
        if table := _TABLE.search(html) if "dataframe" in html else None:
            return _ATTRIBUTES.sub("", table[0])
        if _PROGRESS in data:
            return ""
        return self._picture(html) if html else _as_text(data.get("text/plain", ""))

    def _plot(self, figure: dict[str, Any]) -> str:
        from plotly import io

        layout = {**figure["layout"], "width": _WIDTH, "paper_bgcolor": "white"}
        drawn = io.to_html({**figure, "layout": layout}, config={"displayModeBar": False}, validate=False)
        caption = (layout.get("meta") or {}).get("caption", "")
        shown = self._picture(drawn, ".plotly-graph-div", caption)
        return f"{shown}\n\n*{caption}*" if caption else shown

    def _picture(self, html: str, element: str = "body", described: str = "") -> str:
        """Picture of an element, described by its own text where nothing else describes it."""
        self._n_pictures += 1
        file = PAGES / f"{self._name}_{self._n_pictures}.png"
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "output.html"
            page.write_text(html if "<html" in html else _BARE.format(html), encoding="utf-8")
            open_page(self._driver, page, _WIDTH + 16, 400)
            text = save_element(self._driver, element, file)
        return f"![{' '.join((described or text).split()).translate(_ROUND)}]({file.name})"


_STYLE = "margin:0;padding:8px;font:15px sans-serif;background:white"
_BARE = f'<!doctype html><meta charset="utf-8"><body style="{_STYLE}">{{}}</body>'


def _as_text(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def main(names: list[str]) -> None:
    """Write the pages of the named notebooks, by default of all."""
    PAGES.mkdir(exist_ok=True)
    with browser() as driver:
        for source in sorted(SOURCES.glob("*.py")):
            if names and source.stem not in names:
                continue
            notebook = executed(source)
            for old in PAGES.glob(f"{source.stem}_*.png"):
                old.unlink()
            writer = PageWriter(driver, source.stem)
            blocks = [first_line(source), *(block for cell in notebook.cells for block in writer.cell(cell))]
            (PAGES / f"{source.stem}.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
