"""Figures of estimates of several series: forest plots, bars by place, or lines over a number, with their intervals.

A series has a colour and a second cue (a pattern, a dash), so that none is told by its colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_numbers import number
from safekey_interp.reporting.figures.figure_parts import across, finish, line
from safekey_interp.reporting.figures.figure_style import PALETTE, Drawing, Spec, Table, escape, in_lines
from safekey_interp.reporting.labels import VALUE

TONES = ("control", "prompt", "key_sentence", "understanding", "harmful", "benign", "template")
PATTERNS = ("", "/", ".", "x", "-", "+", "\\")
DASHES = ("dot", "solid", "dash", "dashdot", "longdash", "longdashdot", "solid")
SYMBOLS = ("circle", "diamond-open", "square-open", "x-thin", "triangle-up-open", "star-open", "cross-thin")
_WIDEST = 36
"""Characters of a forest plot's row name before it is wrapped."""
_SPREAD = 0.64
"""Share of a row's height that its series take."""


@Drawing
def estimates_as_forest(
    table: Table,
    *,
    title: str,
    x: str,
    caption: str,
    percent: bool = False,
    across_at: float | None = None,
    tones: Sequence[str] = ("prompt", "control", "template", "understanding"),
) -> Spec:
    """A forest plot: a row for each place, in it a point with its interval for each series.

    Args:
        table: ``place``, ``series``, ``value``, ``low``, ``high`` (NaN where there is no interval); places (from the
            top) and series in the order of their first rows.
        title: what is shown.
        x: the values' unit.
        caption: the same in words, with n and control.
        percent: whether values are shares, from 0 to 1.
        across_at: where a dotted line shows what no effect, or chance, gives.
        tones: of the palette, of each series.

    Returns:
        Points; the rows have the numbers 0, 1, … from the top.

    Raises:
        RunError: no number in the table.
    """
    rows = table[np.isfinite(table["value"].astype(float))]
    if rows.empty:
        raise RunError(f"{title}: no number to draw")
    places, series = (list(dict.fromkeys(rows[column].astype(str))) for column in ("place", "series"))
    data: list[Spec] = []
    for at, name in enumerate(series):
        part = rows[rows["series"].astype(str) == name]
        color, symbol = PALETTE[tones[at % len(tones)]].light, SYMBOLS[at % len(SYMBOLS)]
        shift = _SPREAD * ((at + 0.5) / len(series) - 0.5)
        bounds = [[number(row[bound]) for bound in VALUE] for _, row in part.iterrows()]
        whiskers = _whiskers(bounds) | {"color": color, "thickness": 2, "width": 0}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(name),
                "marker": {"size": 9, "color": color, "symbol": symbol, "line": {"width": 2, "color": color}},
                "error_x": whiskers,
                "x": [value for value, _, _ in bounds],
                "y": [round(places.index(place) + shift, 3) for place in part["place"].astype(str)],
                "customdata": [[low, high] for _, low, high in bounds],
                "hovertemplate": "%{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            }
        )
    height = max(220, 100 + (20 + 12 * len(series)) * len(places))
    spec = finish(data, caption, table="forest", title=escape(title), x=x, y=None, height=height)
    names = [in_lines(place, _WIDEST) for place in places]
    ticks = {"tickvals": list(range(len(places))), "ticktext": names, "ticks": ""}
    spec["layout"]["yaxis"] |= ticks | {"range": [len(places) - 0.4, -0.6], "autorange": False, "showgrid": False}
    if percent:
        spec["layout"]["xaxis"] |= {"range": [-0.02, 1.02], "autorange": False, "tickformat": ".0%"}
    if across_at is not None:
        line = {"color": PALETTE["muted"].light, **DOTTED}
        shape = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": across_at, "x1": across_at, "line": line}
        spec["layout"]["shapes"] = [shape]
    return spec


@Drawing
def estimates_as_bars(
    table: Table, *, title: str, y: str, caption: str, percent: bool = False, across_at: float | None = None
) -> Spec:
    """A bar for each place and series.

    Args:
        table: ``place``, ``series``, ``value``, ``low``, ``high``; places and series in the order of their first rows.
        title: what is shown.
        y: its unit.
        caption: the same in words, with n and control.
        percent: whether values are shares, from 0 to 1.
        across_at: where a dotted line shows what chance gives.

    Returns:
        Grouped bars with their intervals.

    Raises:
        RunError: nothing to show.
    """
    places = {(str(place), str(place)): str(place) for place in dict.fromkeys(table["place"])}
    names = list(dict.fromkeys(map(str, table["series"])))
    rows = table.assign(model=table["series"])
    spec = bar_figure(rows, places, ("place", "place"), names, caption=caption, title=title, x="", y=y)
    return _beside_chance(spec, percent, across_at)


@Drawing
def estimates_as_lines(
    table: Table, *, title: str, x: str, y: str, caption: str, percent: bool = False, across_at: float | None = None
) -> Spec:
    """A line with a band for each series.

    Args:
        table: ``x`` (numbers), ``series``, ``value``, ``low``, ``high``; series in the order of their first rows.
        title: what is shown.
        x: what is counted.
        y: the values' unit.
        caption: the same in words, with n and control.
        percent: whether values are shares, from 0 to 1.
        across_at: where a dotted line shows what chance gives.

    Raises:
        RunError: nothing to show.
    """
    data: list[Spec] = []
    for place, name in enumerate(dict.fromkeys(map(str, table["series"]))):
        rows = table[table["series"].astype(str) == name].sort_values("x")
        data += line(rows, "x", name=name, **look_of(place))
    if not data:
        raise RunError(f"{title}: no number to draw")
    spec = finish(data, caption, table="lines", title=escape(title), x=x, y=y)
    return _beside_chance(spec, percent, across_at)


def _beside_chance(spec: Spec, percent: bool, across_at: float | None) -> Spec:
    if percent:
        on_unit_axis(spec, percent=True)
    if across_at is not None:
        across(spec, across_at, **DOTTED)
    return spec


def bar_figure(
    rows: Table, places: Mapping[tuple[str, str], str], columns: tuple[str, str], names: Sequence[str], **about: Any
) -> Spec:
    """Bars of each model side by side, with their intervals.

    Args:
        rows: ``model``, ``columns``, ``value``, ``low``, ``high``.
        places: values of ``columns``, with the words below their bars, in order.
        columns: the two that name a place.
        names: the models, in their order.
        **about: ``caption``, ``title``, ``x`` and ``y`` of the figure.
    """
    data: list[Spec] = []
    keyed = {(str(row[columns[0]]), str(row[columns[1]]), str(row["model"])): row for _, row in rows.iterrows()}
    for place, name in enumerate(names):
        bars_of = [(at, keyed[*key, name]) for at, key in enumerate(places) if (*key, name) in keyed]
        if not bars_of:
            continue
        values = [[number(row[bound]) for bound in VALUE] for _, row in bars_of]
        color = PALETTE[TONES[place % len(TONES)]].light
        data.append(
            {
                "type": "bar",
                "name": escape(name),
                "x": [at for at, _ in bars_of],
                "y": [value for value, _, _ in values],
                "marker": {
                    "color": color,
                    "pattern": {
                        "shape": PATTERNS[place % len(PATTERNS)],
                        "fillmode": "overlay",
                        "fgcolor": PALETTE["surface"].light,
                    },
                },
                "error_y": _whiskers(values) | {"color": PALETTE["ink"].light, "thickness": 1.5},
                "customdata": [[low, high] for _, low, high in values],
                "hovertemplate": "%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            }
        )
    if not data:
        raise RunError("comparison: no number for the selection")
    about["title"] = escape(about["title"])
    spec = finish(data, table="lines", **about)
    spec["layout"]["xaxis"] |= {
        "tickvals": list(range(len(places))),
        "ticktext": [escape(text) for text in places.values()],
        "range": [-0.5, len(places) - 0.5],
    }
    spec["layout"]["barmode"] = "group"
    return spec


def _whiskers(values: Sequence[Sequence[float | None]]) -> Spec:
    """Whiskers to the ends of intervals; ``values`` are value, low, high."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_reach(high, value) for value, _, high in values],
        "arrayminus": [_reach(value, low) for value, low, _ in values],
    }


def _reach(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else number(max(0.0, np.subtract(high, low)))


def on_unit_axis(spec: Spec, *, percent: bool = False) -> None:
    """Show all of the values from 0 to 1, and in percent when they are shares."""
    spec["layout"]["yaxis"] |= {"range": [0, 1.02], "autorange": False} | ({"tickformat": ".0%"} if percent else {})


DOTTED = {"width": 1.5, "dash": "dot"}
"""Looks of the line at what chance gives."""


def look_of(place: int) -> dict[str, str]:
    """Tone and dashes of the line of a series."""
    return {"tone": TONES[place % len(TONES)], "dash": DASHES[place % len(DASHES)]}
