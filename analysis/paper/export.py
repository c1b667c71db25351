"""Files of a figure: a page without network access, its data as CSV, and pictures where a browser is installed.

Every file is written atomically. Pictures are drawn by kaleido with an installed browser; without one they are absent,
never those of an earlier run.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.paper.html_elements import Html, data, el, escape, island, join, table
from analysis.paper.verdicts import Measured
from safekey_interp.errors import install_hint
from safekey_interp.reporting.figures.figure_style import PALETTE, Spec, look
from safekey_interp.runs.storage import write_aside

_CSS = f"""
:root {{ color-scheme: light }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: {PALETTE["ink"].light}; background: {PALETTE["surface"].light};
  max-width: 1000px; margin: 0 auto; padding: 1rem }}
h1 {{ font-size: 1.5rem; line-height: 1.25 }} h2 {{ font-size: 1.25rem; margin-top: 2.5rem }}
h3 {{ font-size: 1.05rem }} dt {{ color: {PALETTE["muted"].light}; font-size: .85rem }} dd {{ margin: 0 0 .4rem }}
a {{ color: {PALETTE["prompt"].light} }} .muted, caption {{ color: {PALETTE["muted"].light}; text-align: left }}
.scroll, .plot {{ overflow-x: auto }} img {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }}
th, td {{ text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid {PALETTE["grid"].light} }}
"""
_DRAW = (
    'const figure = JSON.parse(document.getElementById("figure").textContent);'
    'Plotly.newPlot("plot", figure.data, figure.layout, {displaylogo: false, responsive: false});'
)
PICTURES = ("png", "svg", "pdf")
"""Endings of a figure's pictures."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A figure with its numbers and its words."""

    name: str
    """Of its files."""
    title: str
    """What it asks or shows."""
    caption: str
    """What is shown, n, control; one paragraph."""
    spec: Spec
    """The drawing."""
    numbers: Mapping[str, pd.DataFrame]
    """What is drawn: CSV files by name, without the ending."""
    table: pd.DataFrame
    """Few numbers in words, for the page and the terminal."""
    table_caption: str
    """What they are."""
    source: str
    """Which model, data and seed."""

    def shown(self) -> Shown:
        """What the index says of it."""
        return Shown(
            name=self.name,
            title=self.title,
            caption=self.caption,
            numbers=list(self.numbers),
            width=int(self.spec["layout"]["width"]),
            source=self.source,
            table=[{str(name): str(value) for name, value in row.items()} for row in self.table.to_dict("records")],
            table_caption=self.table_caption,
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the index says of a figure."""

    name: str
    """Of its files."""
    title: str
    """What it asks or shows."""
    caption: str
    """What is shown, n, control; one paragraph."""
    numbers: list[str]
    """Its CSV files, without the ending."""
    width: int
    """Pixels across."""
    source: str
    """Which model, data and seed."""
    table: list[dict[str, str]]
    """Few numbers in words."""
    table_caption: str
    """What they are."""


class Answer(NamedTuple):
    """What a question's figures show."""

    sheets: list[Sheet]
    """The figures."""
    measured: list[Measured]
    """What they say of the paper's claims."""


def save_sheet(folder: Path, sheet: Sheet) -> None:
    """Write the page and the CSVs of a figure."""
    for name, numbers in sheet.numbers.items():
        text = numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(folder / f"{name}.csv", text)
    write_text(folder / f"{sheet.name}.html", _page(sheet))


def save_pictures(folder: Path, sheets: Sequence[Sheet]) -> str | None:
    """Write PNG (twice the size, for paper), SVG and PDF of each figure.

    Returns:
        None, or in one line why there are none; pictures of an earlier run are then gone.
    """
    why = None
    pictures: dict[str, bytes] = {}
    if importlib.util.find_spec("kaleido") is None:
        why = f"kaleido is not installed ({install_hint('figures')})"
    else:
        try:
            pictures = asyncio.run(_draw(sheets))
        except (RuntimeError, OSError, ValueError) as error:  # kaleido's own are of these kinds
            text = " ".join(str(error.args[0] if error.args else error).split())
            why = f"kaleido found no browser that works ({text.partition('. ')[0]})"
    for sheet in sheets:
        for ending in PICTURES:
            file = folder / f"{sheet.name}.{ending}"
            picture = pictures.get(file.name)
            if picture is None:
                file.unlink(missing_ok=True)
            else:
                write_aside(file, lambda path, picture=picture: path.write_bytes(picture))
    return why and f"no pictures: {why}"


def _page(sheet: Sheet) -> str:
    from plotly.offline import get_plotlyjs

    figure = {"data": sheet.spec["data"], "layout": _styled(sheet.spec)["layout"]}
    rows: list[list[object]] = [list(row) for row in sheet.table.itertuples(index=False)]
    files = [el("a", f"{name}.csv", href=f"{name}.csv") for name in sheet.numbers]
    parts = [
        el("p", el("a", "All figures", href="index.html")),
        el("h1", sheet.title),
        el("div", el("div", id="plot", role="img", aria_label=sheet.title), class_="plot"),
        el("p", data(sheet.caption)),
        table(list(map(str, sheet.table.columns)), rows, caption=sheet.table_caption),
        el("p", "The numbers: ", *between(files, ", ")),
        el("p", data(sheet.source), class_="muted"),
        island("figure", figure),
    ]
    return document(sheet.title, parts, scripts=(get_plotlyjs(), _DRAW))


def between(parts: Sequence[Html], mark: str) -> list[object]:
    pieces: list[object] = [piece for part in parts for piece in (mark, part)]
    return pieces[1:]


def document(title: str, parts: Sequence[Html], *, scripts: Sequence[str]) -> str:
    """A whole page whose only scripts are these, and which may load nothing but pictures that lie beside it."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    policy = f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'; "
    head = join(
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}img-src \'self\' data: blob: file:">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        Html(f"<style>{_CSS}</style>"),
    )
    code = join(*(Html(f"<script>{script}</script>") for script in scripts))
    return f'<!doctype html>\n<html lang="{escape("en")}">{el("head", head)}{el("body", *parts, code)}</html>\n'


def write_text(path: Path, text: str) -> None:
    write_aside(path, lambda file: file.write_text(text, encoding="utf-8", newline="\n"))


def _styled(spec: Spec) -> Spec:
    return {"data": spec["data"], "layout": spec["layout"] | {"template": {"layout": look("light")}}}


async def _draw(sheets: Sequence[Sheet]) -> dict[str, bytes]:
    import kaleido

    for library in ("kaleido", "choreographer"):  # what they say of a browser that works all the same helps nobody
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    pictures = {}
    async with kaleido.Kaleido(mathjax=False, timeout=60) as browser:
        for sheet in sheets:
            figure: Any = json.loads(json.dumps(_styled(sheet.spec)))
            size = {name: sheet.spec["layout"][name] for name in ("width", "height")}
            for ending in PICTURES:
                options: Any = size | {"format": ending, "scale": 2 if ending == "png" else 1}
                pictures[f"{sheet.name}.{ending}"] = await browser.calc_fig(figure, opts=options)
    return pictures
