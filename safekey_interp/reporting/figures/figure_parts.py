"""Parts of figures: lines with bands, heat maps, axes of layers, and the controls of a probe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Literal

import numpy as np

from safekey_interp.reporting.figures.figure_numbers import number, with_interval
from safekey_interp.reporting.figures.figure_style import PALETTE, Spec, Table, Tone, escape, veil
from safekey_interp.reporting.findings.finding import AUROC
from safekey_interp.reporting.labels import METHODS, VALUE

NULL = ("null_auroc_mean", "null_auroc_low", "null_auroc_high")
"""Columns of what shuffled labels give, and its interval."""


def finish(
    data: list[Spec],
    caption: str,
    *,
    table: Literal["lines", "grid", "points", "forest"],
    title: str,
    x: str,
    y: str | None,
    height: int = 340,
    unit: str = "",
) -> Spec:
    """A figure's spec; ``meta`` holds the caption in words, and how its numbers make a table, in which unit."""
    layout: Spec = {
        "title": {"text": title},
        "height": height,
        "meta": {"caption": caption, "table": table, "unit": unit},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}} if y else {},
    }
    if table == "lines":
        layout["hovermode"] = "x unified"
    return {"data": data, "layout": layout}


def curve(
    x: Iterable[Any],
    y: Iterable[Any],
    low: Iterable[Any] = repeat(np.nan),
    high: Iterable[Any] = repeat(np.nan),
    *,
    name: str,
    color: str,
    dash: str,
    markers: bool = True,
) -> list[Spec]:
    """A line with its band, where it has bounds; nothing when no value is finite."""
    points = list(zip(x, y, low, high, strict=False))
    if not any(np.isfinite(value) for _, value, _, _ in points):
        return []
    band = [(at, lo, hi) for at, _, lo, hi in points if np.isfinite(lo) and np.isfinite(hi)]
    traces: list[Spec] = []
    if band:
        there, back = band, band[::-1]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "fill": "toself",
                "fillcolor": veil(color),
                "line": {"width": 0, "color": color},
                "hoverinfo": "skip",
                "showlegend": False,
                "x": [number(at) for at, _, _ in there + back],
                "y": [number(lo) for _, lo, _ in there] + [number(hi) for _, _, hi in back],
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers" if markers else "lines",
            "name": escape(name),
            "line": {"color": color, "dash": dash, "width": 2},
            "marker": {"size": 5, "color": color},
            "x": [number(at) for at, *_ in points],
            "y": [number(value) for _, value, _, _ in points],
            "customdata": [[number(lo), number(hi)] for *_, lo, hi in points],
            "hovertemplate": "%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        }
    )
    return traces


def line(
    rows: Table,
    x: str | Iterable[Any],
    columns: Sequence[str] = VALUE,
    *,
    name: str,
    tone: str,
    dash: str,
    **looks: Any,
) -> list[Spec]:
    """A line with its band of a table's columns: the value, and the ends of its interval.

    Args:
        rows: one a point.
        x: the column of the places, or the places.
        columns: value, low, high.
        name: in the legend.
        tone: of the palette.
        dash: plotly's name of the dashes.
        **looks: ``markers`` of :func:`curve`.
    """
    places, color = rows[x] if isinstance(x, str) else x, PALETTE[tone].light
    return curve(places, *(rows[column] for column in columns), name=name, color=color, dash=dash, **looks)


def heatmap(
    x: Sequence[Any],
    y: Sequence[Any],
    z: Sequence[Any],
    ends: tuple[float, float],
    scale: Sequence[tuple[float, Tone]],
    *,
    hover: str,
    bar: str = "",
    **more: Any,
) -> Spec:
    """A heat map; cells without a number stay blank.

    Args:
        x: the columns.
        y: the rows.
        z: numbers by row and column.
        ends: of the colour scale.
        scale: its tones.
        hover: what a cell shows on hover, as plotly's template.
        bar: title of the colour scale.
        **more: other fields of the trace.
    """
    title = {"title": {"text": bar, "font": {"size": 13}}} if bar else {}
    trace = {"type": "heatmap", "x": x, "y": y, "z": z, "zmin": ends[0], "zmax": ends[1], "hoverongaps": False}
    colors = {
        "colorscale": [[at, tone.light] for at, tone in scale],
        "colorbar": title | {"thickness": 12, "len": 1, "outlinewidth": 0},
    }
    return trace | colors | {"hovertemplate": f"{hover}<extra></extra>"} | more


def across(spec: Spec, at: float, **looks: Any) -> None:
    """A thin horizontal line; ``looks`` change it."""
    line = {"color": PALETTE["muted"].light, "width": 1} | looks
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "line": line}
    spec["layout"]["shapes"] = [*spec["layout"].get("shapes", []), shape]


def probe_controls(
    probe: Table, words: Table, axis: LayerAxis, columns: Sequence[str] = AUROC
) -> tuple[list[Spec], list[str]]:
    """The band of shuffled labels and the line of the words alone, and a remark on each.

    Args:
        probe: rows of a probe by layer; without the columns' null there is no band.
        words: rows of the words alone, of which the first counts.
        axis: where the layers lie.
        columns: the measure with its interval; shuffled labels are drawn beside AUROC alone.
    """
    data: list[Spec] = []
    remarks = []
    null = probe.dropna(subset=list(NULL[1:])).drop_duplicates(["layer", "site"])
    if columns[0] == AUROC[0] and len(null):
        null = null.assign(x=axis.of(null)).sort_values("x")
        data += line(null, "x", NULL, name="shuffled labels", tone="control", dash="dot", markers=False)
        remarks.append(f"Shuffled labels reach {null['null_auroc_high'].max():.3f}.")
    for _, text in words.head(1).iterrows():
        ends = [[text[column]] * 2 for column in columns]
        looks = {"color": PALETTE["understanding"].light, "dash": "dashdot", "markers": False}
        data += curve([axis.values[0], axis.values[-1]], *ends, name=METHODS["text_tfidf"], **looks)
        remarks.append(f"Words alone: {with_interval(*(text[column] for column in columns))}.")
    return data, remarks


class LayerAxis:
    """Layers as numbers, with the final norm one place after the last."""

    def __init__(self, rows: Table, *, sparse: bool = False) -> None:
        inner = sorted({int(layer) for layer in rows.loc[rows["site"] != "ln_final", "layer"]})
        final = bool((rows["site"] == "ln_final").any())
        self._norm = (inner[-1] if inner else 0) + 1
        self.values = inner + [self._norm] * final
        step = (1 if len(inner) <= 12 else 5 if len(inner) <= 40 else 10) * (2 if sparse else 1)
        self.ticks = [
            layer
            for layer in inner
            if layer % step == 0 and layer >= step * sparse and (not final or self._norm - layer >= step * 0.6)
        ]
        self.texts = [str(layer) for layer in self.ticks] + ["norm"] * final
        self.ticks += [self._norm] * final

    def of(self, rows: Table) -> list[int]:
        """The place of each row."""
        return [
            self._norm if site == "ln_final" else int(layer)
            for layer, site in zip(rows["layer"], rows["site"], strict=True)
        ]

    def name_ticks(self, spec: Spec) -> None:
        """Write the layers' names on the x axis."""
        spec["layout"]["xaxis"] |= {"tickvals": self.ticks, "ticktext": self.texts, "tickangle": 0}

    def beside_words(self, gap: int) -> list[int]:
        """Places of a map's columns: the words, an empty one that keeps them apart, the layers."""
        return [self.values[0] - gap, self.values[0] - 1, *self.values]

    def row_beside_words(self, rows: Table, measure: str, alone: Any) -> list[float | int | None]:
        """One row of such a map: the words' number, nothing, and each layer's."""
        cells = dict(zip(self.of(rows), rows[measure], strict=True))
        return [number(alone), None, *(number(cells.get(place, np.nan)) for place in self.values)]

    def name_beside_words(self, spec: Spec, places: list[int]) -> None:
        """Write the columns' names on a map; its rows run from the top."""
        spec["layout"]["xaxis"] |= {
            "tickvals": [places[0], *self.ticks],
            "ticktext": ["words", *self.texts],
            "tickangle": 0,
            "showgrid": False,
        }
        spec["layout"]["yaxis"] |= {"autorange": "reversed", "showgrid": False}
