"""Grids of plots for print: rows of panels, one legend a row, letters (a), (b), …

Panels are specs of the other figure functions, unchanged but for their place; all sizes are pixels of a figure
:data:`WIDTH` wide, so that letters stay as large on paper as on the screen.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from safekey_interp.reporting.figures.figure_style import PALETTE, Drawing, Spec

WIDTH = 1000
"""Pixels across."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 8, 4
_HEADING, _LEGEND, _TITLE, _AXIS, _GAP = 26, 24, 24, 46, 18
"""Above a row: its heading, its legend, its panels' titles. Below: ticks and axis title, and the way to the next."""
_BETWEEN, _TICKS, _SCALE = 16, 52, 78
"""Between panels, more where each has ticks of its own, and to the right for a colour scale."""

_AXIS_TITLE = {"font": {"size": 13}, "standoff": 6}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot of a grid."""

    title: str
    """What stands above it, after its letter."""
    spec: Spec
    """What a figure function's ``spec`` gave."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Other names for its series, where the row's legend would mix them up with those of its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels side by side."""

    panels: Sequence[Panel]
    """From left to right."""
    heading: str = ""
    """What the row shows; without one it goes on with the row above, and that one's legend serves both."""
    height: int = 180
    """Of the plots alone, in pixels."""
    order: Sequence[str] = ()
    """Names of series, as the row's legend lists them; the others follow."""
    columns: int = 0
    """How many panels there is room for; 0: as many as there are."""
    one_y: bool = True
    """Whether all panels share the scale of the first one's y axis."""
    scale: str = ""
    """What the colours say, for heat maps: their common scale stands at the right."""

    @property
    def has_legend(self) -> bool:
        """Whether it has series to name, and a heading to name them under."""
        return bool(self.heading) and any("name" in trace for panel in self.panels for trace in panel.spec["data"])


def letters(rows: Sequence[Row]) -> list[str]:
    """The letter of each panel, row by row: a, b, …"""
    return list(string.ascii_lowercase[: sum(len(row.panels) for row in rows)])


@Drawing
def grid(rows: Sequence[Row], *, caption: str) -> Spec:
    """One figure of several plots.

    Args:
        rows: from top to bottom; at most 26 panels in all.
        caption: what the figure says in words, for ``meta``.

    Returns:
        Panels lettered in reading order. A series' name stands once in its row's legend, and a click there hides it in
        the whole row. Colour scales of a row are one: its panels must share ``zmin`` and ``zmax``.
    """
    height = _TOP + _BOTTOM + sum(_above(row) + row.height + _AXIS for row in rows) + _GAP * (len(rows) - 1)
    layout: Spec = {
        "width": WIDTH,
        "height": height,
        "paper_bgcolor": PALETTE["surface"].light,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "hovermode": "closest",
        "annotations": [],
        "shapes": [],
        "meta": {"caption": caption},
    }
    data: list[Spec] = []
    names = iter(letters(rows))
    top, first, legend, order = float(_TOP), 1, "legend", rows[0].order
    shown: set[tuple[str, str]] = set()
    for number, row in enumerate(rows, start=1):
        bottom = top + _above(row) + row.height
        if row.heading:
            layout["annotations"].append(_text(f"<b>{row.heading}</b>", _LEFT, top + 12, height, size=14))
            legend, shown, order = f"legend{number if number > 1 else ''}", set(), row.order
        if row.has_legend:
            layout[legend] = _legend(1 - (top + _HEADING + _LEGEND / 2) / height)
        places = list(_places(row, first, bottom, height))
        for place, panel in zip(places, row.panels, strict=True):
            title = f"<b>({next(names)})</b> {panel.title}"
            layout["annotations"].append(_text(title, place.left, bottom - row.height - 12, height, size=13))
            _put(panel, place, row, layout, is_first=place is places[0])
            scale = row.scale if place is places[-1] else None
            data += _series(panel, place, legend, order, shown, scale=scale)
        top = bottom + _AXIS + _GAP
        first += len(row.panels)
    return {"data": data, "layout": layout}


class _Place(NamedTuple):
    number: int
    """Of the axes, from 1."""
    leader: int
    """The number of the row's first panel."""
    left: float
    """Pixels from the left edge."""
    x: list[float]
    """Domain across, as a share of the figure."""
    y: list[float]
    """Domain up."""

    @property
    def axis(self) -> str:
        """What plotly appends to x and y."""
        return str(self.number) if self.number > 1 else ""


def _above(row: Row) -> int:
    return (_HEADING if row.heading else 0) + (_LEGEND if row.has_legend else 0) + _TITLE


def _legend(middle: float) -> Spec:
    place = {"x": _LEFT / WIDTH, "xanchor": "left", "y": middle, "yanchor": "middle"}
    return {"orientation": "h", "traceorder": "normal", "font": {"size": 12}} | place


def _places(row: Row, first: int, bottom: float, height: float) -> Iterator[_Place]:
    n = max(row.columns, len(row.panels))
    between = _BETWEEN if row.one_y else _TICKS
    width = (WIDTH - _LEFT - _RIGHT - (_SCALE if row.scale else 0) - between * (n - 1)) / n
    for index in range(len(row.panels)):
        left = _LEFT + index * (width + between)
        yield _Place(
            number=first + index,
            leader=first,
            left=left,
            x=[left / WIDTH, (left + width) / WIDTH],
            y=[1 - bottom / height, 1 - (bottom - row.height) / height],
        )


def _put(panel: Panel, place: _Place, row: Row, layout: Spec, *, is_first: bool) -> None:
    """Axes and shapes of a panel."""
    own = panel.spec["layout"]
    x, y = (
        axis | {"automargin": False, "tickfont": {"size": 12}, "title": (axis.get("title") or {}) | _AXIS_TITLE}
        for axis in (own["xaxis"], own["yaxis"])
    )
    layout[f"xaxis{place.axis}"] = x | {"domain": place.x, "anchor": f"y{place.axis}"}
    y |= {"domain": place.y, "anchor": f"x{place.axis}"}
    if row.one_y and not is_first:
        leader = place.leader if place.leader > 1 else ""
        y |= {"matches": f"y{leader}", "showticklabels": False, "title": {"text": ""}}
    layout[f"yaxis{place.axis}"] = y
    for shape in own.get("shapes", ()):
        layout["shapes"].append(shape | {"xref": f"x{place.axis} domain", "yref": f"y{place.axis}"})


def _series(
    panel: Panel, place: _Place, legend: str, order: Sequence[str], shown: set[tuple[str, str]], *, scale: str | None
) -> Iterator[Spec]:
    """A panel's series on its axes, each in the legend once for the whole row."""
    traces = panel.spec["data"]
    for index, trace in enumerate(traces):
        placed = trace | {"xaxis": f"x{place.axis}", "yaxis": f"y{place.axis}"}
        if trace["type"] == "heatmap":
            bar = {"thickness": 12, "outlinewidth": 0, "tickfont": {"size": 12}, "x": place.x[1] + 10 / WIDTH}
            bar |= {"xanchor": "left", "xpad": 0, "y": sum(place.y) / 2, "len": place.y[1] - place.y[0], "ypad": 0}
            bar |= {"lenmode": "fraction", "title": {"text": scale, "side": "right", "font": {"size": 12}}}
            yield placed | ({"showscale": False} if scale is None else {"showscale": True, "colorbar": bar})
            continue
        own = next(other["name"] for other in traces[index:] if "name" in other)  # a band comes before its line
        name = panel.names.get(own, own)
        placed |= {"legend": legend, "legendgroup": f"{legend} {name}"}
        if "name" in trace:
            key = (name, str((trace.get("line") or trace["marker"])["color"]))
            rank = order.index(name) if name in order else len(order)
            placed |= {"name": name, "showlegend": key not in shown, "legendrank": 1 + rank}
            shown.add(key)
        yield placed


def _text(text: str, left: float, middle: float, height: float, *, size: int) -> dict[str, Any]:
    return {
        "text": text,
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": left / WIDTH,
        "xanchor": "left",
        "y": 1 - middle / height,
        "yanchor": "middle",
        "font": {"size": size},
    }
