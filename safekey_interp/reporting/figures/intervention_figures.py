"""Figures of effects beside their controls: by layer or scale, by place, and as a map of layers.

Every figure draws rows of one summary (:func:`~safekey_interp.interventions.effects.summarise_effects`): the mean over
traces with its interval, and the control's beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from safekey_interp.errors import RunError
from safekey_interp.interventions.effects import default_rows
from safekey_interp.reporting.figures.attention_figures import on_whole_layers
from safekey_interp.reporting.figures.figure_numbers import counts, number, select, with_interval
from safekey_interp.reporting.figures.figure_parts import LayerAxis, across, finish, line
from safekey_interp.reporting.figures.figure_style import LIFT_SCALE, PALETTE, Drawing, Spec, Table, escape, in_lines
from safekey_interp.reporting.findings.intervention_terms import CONTROL, WHOLE
from safekey_interp.reporting.labels import VALUE

_INTERVALS = "Intervals: 95 % intervals over groups."
_TESTED = "prompt"
"""The palette's tone of what was tested."""
_WIDEST = 16
"""Characters of a place's name before it is wrapped."""


@Drawing
def effect_by_layer(
    summary: Table,
    *,
    control: str,
    value: str = "effect",
    unit: str = "nats per token",
    x: Literal["layer", "scale", "dose"] = "layer",
    **wanted: Any,
) -> Spec:
    """A mean effect over layers, over the scale of a direction, or over the share of a span, beside its control.

    Args:
        summary: of an intervention.
        control: what the control is, in words; without a number of it there is no such line.
        value: what a value is, in words.
        unit: its unit.
        x: the column of the axis.
        **wanted: values of columns: ``subset``, ``metric``, ``to_span`` …; ``control_kind`` for another control than
            the default.

    Returns:
        Two lines with bands; 0 is a line.

    Raises:
        RunError: no row with a number for the selection.
    """
    rows = _rows(summary, wanted, x).sort_values(x)
    axis = LayerAxis(rows) if x == "layer" and "site" in rows.columns else None
    places = rows[x] if axis is None else axis.of(rows)
    lines = ((VALUE, "measured", _TESTED, "solid"), (CONTROL, control, "control", "dash"))
    data: list[Spec] = []
    for names, name, tone, dash in lines:
        data += line(rows, places, names, name=name, tone=tone, dash=dash)
    first = "first of the layers" if x == "layer" and "n_layers" in rows.columns and (rows["n_layers"] > 1).any() else x
    label = f"{value}, {unit}"
    spec = finish(data, _caption(rows, control, x), table="lines", title=value.capitalize(), x=first, y=label)
    if axis is not None:
        spec["layout"]["xaxis"] |= {"tickvals": axis.ticks, "ticktext": axis.texts}
    elif x == "layer":
        on_whole_layers(spec, rows[x])
    across(spec, 0)
    return spec


@Drawing
def effect_by_place(
    summary: Table,
    *,
    places: Sequence[tuple[Mapping[str, Any], str]],
    control: str,
    value: str = "effect",
    unit: str = "nats per token",
    x: str = "hidden",
    **wanted: Any,
) -> Spec:
    """Mean effects side by side, each beside its control.

    Args:
        summary: of an intervention.
        places: columns and their values, and the name on the axis; those without a row are left out.
        control: with ``value``, ``unit`` and ``wanted``: as in :func:`effect_by_layer`.
        x: what the places are.

    Returns:
        Points with intervals; 0 is a line.

    Raises:
        RunError: no row with a number for the selection.
    """
    rows = _with_numbers(summary, wanted).reset_index(drop=True)
    drawn = [(_once(part, wanted).iloc[0], name) for where, name in places if len(part := _matching(rows, where))]
    if not drawn:
        raise RunError("summary: no row for any of the places")
    data: list[Spec] = []
    for names, name, tone, symbol in (
        (VALUE, "measured", _TESTED, "circle"),
        (CONTROL, control, "control", "diamond-open"),
    ):
        data += _points([[row[column] for column in names] for row, _ in drawn], name, PALETTE[tone].light, symbol)
    kept = rows.loc[[row.name for row, _ in drawn]]
    caption = _caption(kept.assign(place=[name for _, name in drawn]), control, "place")
    spec = finish(data, caption, table="lines", title=value.capitalize(), x=x, y=f"{value}, {unit}")
    ticks = {"tickvals": list(range(len(drawn))), "ticktext": [in_lines(name, _WIDEST) for _, name in drawn]}
    spec["layout"]["xaxis"] |= ticks | {"range": [-0.5, len(drawn) - 0.5], "showgrid": False}
    spec["layout"] |= {"scattermode": "group", "scattergap": 0.7}
    across(spec, 0)
    return spec


@Drawing
def effect_map(
    summary: Table,
    *,
    rows_by: str,
    names: Mapping[Any, str],
    control: str,
    value: str = "effect",
    unit: str = "nats per token",
    limit: float | None = None,
    **wanted: Any,
) -> Spec:
    """Mean effects over layers and heads, or layers and positions: blue above 0, brown below.

    Args:
        summary: of an intervention.
        rows_by: the column of the map's rows.
        names: its values in words, in the order from the bottom; others are not drawn.
        control: with ``value``, ``unit`` and ``wanted``: as in :func:`effect_by_layer`.
        limit: ends of the colour scale; the largest in this figure when None.

    Returns:
        A heat map; a cell's control and n are shown on hover.

    Raises:
        RunError: no row with a number for the selection.
    """
    rows = _rows(summary, wanted)
    rows = rows.loc[rows[rows_by].isin(list(names))]
    layers = sorted(rows["layer"].unique())
    order = [key for key in names if (rows[rows_by] == key).any()]
    cells = rows.set_index([rows_by, "layer"])
    grid, beside, n = (
        cells[column].unstack("layer").reindex(index=order, columns=layers).to_numpy(float)
        for column in ("value", "control", "n")
    )
    end = limit or float(np.nanmax(np.abs(grid))) or 1.0
    trace = {
        "type": "heatmap",
        "x": [int(layer) for layer in layers],
        "y": [escape(names[key]) for key in order],
        "z": [[number(cell, 3) for cell in line] for line in np.clip(grid, -end, end)],
        "customdata": [
            [[number(z), number(c), number(m)] for z, c, m in zip(*lines, strict=True)]
            for lines in zip(grid, beside, n, strict=True)
        ],
        "zmin": -end,
        "zmax": end,
        "colorscale": [[at, tone.light] for at, tone in LIFT_SCALE],
        "colorbar": {"title": {"text": unit, "font": {"size": 13}}, "thickness": 12, "len": 1, "outlinewidth": 0},
        "hovertemplate": f"layer %{{x}}, %{{y}}<br>%{{customdata[0]:.3f}}<br>{escape(control)} %{{customdata[1]:.3f}}"
        "<br>n = %{customdata[2]}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
    }
    height = max(240, min(560, 130 + 22 * len(order)))
    caption = _caption(rows.assign(place=[names[key] for key in rows[rows_by]]), control, "place")
    title = f"{value.capitalize()} by layer"
    spec = finish([trace], caption, table="grid", title=title, x="layer", y=rows_by, height=height, unit=unit)
    spec["layout"]["xaxis"]["showgrid"] = spec["layout"]["yaxis"]["showgrid"] = False
    spec["layout"]["yaxis"]["type"] = "category"
    on_whole_layers(spec, rows["layer"])
    return spec


def whole_effects(summary: Table, chosen: Collection[str]) -> Table:
    """The rows of the effect of the whole change, where its measure and its dose are not chosen."""
    for column, value in WHOLE.items():
        if column in summary.columns and column not in chosen:
            summary = summary.loc[summary[column] == value]
    return summary


def _rows(summary: Table, wanted: Mapping[str, Any], x: str = "") -> Table:
    """The wanted rows with a number, each place once."""
    return _once(_with_numbers(summary, wanted, x), wanted)


def _with_numbers(summary: Table, wanted: Mapping[str, Any], x: str = "") -> Table:
    """The wanted rows with a number: of the whole span's effect unless the axis is its share, or something else is
    wanted."""
    rows = whole_effects(summary, (*wanted, x))
    rows = _matching(rows, {name: value for name, value in wanted.items() if _is_nan(value)})
    rows = select(rows, "summary", **{name: value for name, value in wanted.items() if not _is_nan(value)})
    rows = rows.loc[rows["value"].notna()]
    if rows.empty:
        raise RunError("summary: no row with a number for the selection")
    return rows


def _once(rows: Table, wanted: Mapping[str, Any]) -> Table:
    """Each place once: beside the kind of control that is wanted, or the default."""
    return rows if "control_kind" in wanted else default_rows(rows)


def _matching(rows: Table, where: Mapping[str, Any]) -> Table:
    for name, value in where.items():
        rows = rows.loc[rows[name].isna() if _is_nan(value) else rows[name] == value]
    return rows


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


def _points(values: Sequence[Sequence[float]], name: str, color: str, symbol: str) -> list[Spec]:
    """Points with whiskers; nothing where no value is finite."""
    if not any(np.isfinite(value) for value, _, _ in values):
        return []
    up = [number(high - value) if np.isfinite(high) else 0 for value, _, high in values]
    down = [number(value - low) if np.isfinite(low) else 0 for value, low, _ in values]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": escape(name),
            "marker": {"size": 9, "color": color, "symbol": symbol, "line": {"width": 2, "color": color}},
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": up,
                "arrayminus": down,
                "color": color,
                "thickness": 2,
                "width": 5,
            },
            "x": list(range(len(values))),
            "y": [number(value) for value, _, _ in values],
            "customdata": [[number(low), number(high)] for _, low, high in values],
            "hovertemplate": "%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        }
    ]


def _caption(rows: Table, control: str, place: str) -> str:
    """The largest value in words, with its control, n and what the intervals are."""
    top = rows.loc[rows["value"].abs().idxmax()]
    where = f"layer {int(top['layer'])}, {top['place']}" if place == "place" and _is_map(rows) else None
    where = where or (str(top["place"]) if place == "place" else f"{place} {top[place]:g}")
    beside = ""
    if np.isfinite(top["control"]):
        beside = f"; {control} there {with_interval(*(top[column] for column in CONTROL))}"
    sizes = f"n = {counts(rows['n'])} traces in {counts(rows['n_groups'])} groups"
    draws = f", {counts(rows['n_controls'])} draws of the control" if (rows["n_controls"] > 0).any() else ""
    largest = f"Largest: {where}, {with_interval(*(top[column] for column in VALUE))}{beside}."
    return f"{largest} {sizes}{draws}. {_INTERVALS}"


def _is_map(rows: Table) -> bool:
    return "layer" in rows.columns and rows["layer"].nunique() > 1
