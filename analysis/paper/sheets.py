"""Figures composed of rows of panels, each with its data and caption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from analysis.paper.claims_page import TOY
from analysis.paper.export import Sheet
from analysis.paper.models import Bench
from analysis.tables import interval
from safekey_interp.data.conditions import conditions_in
from safekey_interp.models.organism import is_organism
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel, Row, letters
from safekey_interp.reporting.figures.subset_figures import Kind
from safekey_interp.runs.run_folder import Run

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""

Drawn = tuple[Panel, Table]
"""A panel, and the rows of the tables that it shows."""
_DASHES = ("solid", "dash")


class Composition:
    """Rows of panels from top to bottom."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        """What :func:`safekey_interp.reporting.figures.figure_grid` draws."""
        self._tables: dict[str, list[Table]] = {}
        self._captions: list[tuple[str, str]] = []

    def add(self, drawn: Sequence[Drawn], *, caption: str = "", kind: str = "", **options: Any) -> None:
        """Add a row.

        Args:
            drawn: its panels; without any, nothing is added.
            caption: what they show, a sentence for the caption; empty when the row goes on with the one above.
            kind: which of the figure's tables their numbers belong to.
            options: of :class:`safekey_interp.reporting.figures.figure_grid.Row`.
        """
        if not drawn:
            return
        self.rows.append(Row(panels=[panel for panel, _ in drawn], **options))
        names = letters(self.rows)[-len(drawn) :]
        self._tables.setdefault(kind, []).extend(
            table.assign(panel=name) for name, (_, table) in zip(names, drawn, strict=True)
        )
        first, before = self._captions.pop() if self._captions and not caption else (names[0], caption)
        self._captions.append((first, before))
        self._last = names[-1]

    def numbers(self, kind: str = "") -> Table:
        """What the panels show, with the panel's letter."""
        return pd.concat(self._tables[kind], ignore_index=True)

    def sheet(
        self, *, name: str, title: str, caption: str, seed: int, table: Table, table_caption: str, source: str
    ) -> Sheet:
        """The figure as a page and its CSV, which says the seed."""
        return Sheet(
            name=name,
            title=title,
            caption=caption,
            spec=figures.grid.spec(self.rows, caption=caption),
            numbers={name: self.numbers().assign(seed=seed)},
            table=table,
            table_caption=table_caption,
            source=source,
        )

    def words(self) -> str:
        """``(a–d) Mass by layer. (e) …``"""
        ends = [*(chr(ord(first) - 1) for first, _ in self._captions[1:]), self._last]
        return " ".join(
            f"({first}{f'–{end}' if end != first else ''}) {caption}"
            for (first, caption), end in zip(self._captions, ends, strict=True)
        )


def shares(rows: Table, title: str, y: str) -> Drawn:
    """A panel of shares as bars, by place and series."""
    spec = figures.estimates_as_bars.spec(rows, title=title, y=y, caption=title, percent=True)
    return Panel(title=title, spec=spec), rows


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Places against series, each cell with its interval and n."""
    cells = table.assign(cell=[_cell(row) for _, row in table.iterrows()])
    wide = cells.pivot_table(index="place", columns="series", values="cell", aggfunc="first", sort=False)
    return wide.fillna("n/a").rename_axis(None, axis=1).reset_index().rename(columns={"place": ""})


def _cell(row: Any) -> str:
    number = interval(row) if pd.notna(row["low"]) else f"{row['value']:.2f}"  # too few groups for an interval
    return f"{number} ({row['n']})"


def with_something(views: Iterable[Drawn | None]) -> list[Drawn]:
    """Those of the panels that have something to show."""
    return [view for view in views if view is not None]


def model_in_words(run: Run) -> str:
    """The model's name, and whether it is the toy."""
    model = run.manifest["model"]
    return f"{model['name']} (toy model)" if is_organism(str(model.get("spec", ""))) else str(model["name"])


def toy_in_words(bench: Bench) -> str:
    """What stands behind a count where every model is the toy, or some are."""
    toys = [name for name in bench.names if bench.is_toy(name)]
    if not toys:
        return ""
    return f" {TOY}" if len(toys) == len(bench.names) else f" ({', '.join(toys)}: toy model)"


def shown_conditions(run: Run) -> list[str]:
    """The two most frequent conditions that the run tells apart, by name; none where it tells none apart."""
    return sorted(conditions_in(run.manifest).names[: len(_DASHES)])


def kinds_of(run: Run, by_layer: Table) -> list[Kind]:
    """The kinds of traces that are drawn apart: labels in colours, conditions in dashes; all where there are none."""
    conditions, names = conditions_in(run.manifest), shown_conditions(run)
    crossed = [
        Kind(conditions.subset(name, label), f"{name}, {label}", label, dash)
        for label in ("harmful", "benign")
        for name, dash in zip(names, _DASHES, strict=False)
    ]
    unlabelled = [
        Kind(conditions.subset(name), name, tone, dash)
        for name, tone, dash in zip(names, ("prompt", "key_sentence"), _DASHES, strict=False)
    ]
    labelled = [Kind(label, label, label, "solid") for label in ("harmful", "benign")]
    there = set(by_layer["subset"])
    for choice in (crossed, unlabelled, labelled):
        if kept := [kind for kind in choice if kind.subset in there]:
            return kept
    return [Kind("all", "all traces", "control", "solid")]
