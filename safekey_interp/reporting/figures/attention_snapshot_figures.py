"""Figures of attention during training: by layer and step, over the distance-matched baseline.

Each snapshot measures the same held-out traces with the same probes, step 0 included. Over all layers, attention is a
ratio of sums, Σ mass / Σ matched mass: a layer counts as much as its baseline. Its band weighs the bounds of the layers
alike; layers rise and fall together at most, so it is wider than it need be and never narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.attention_figures import from_to, on_log_axis, on_whole_layers
from safekey_interp.reporting.figures.figure_numbers import highest, named, number, select, sizes, with_interval
from safekey_interp.reporting.figures.figure_parts import finish, heatmap, line
from safekey_interp.reporting.figures.figure_style import LIFT_SCALE, Drawing, Spec, Table
from safekey_interp.reporting.figures.training_figures import mark_auxiliary
from safekey_interp.reporting.findings.phrases import capital
from safekey_interp.reporting.labels import SPANS, VALUE

_RATIO = "lift_over_matched"


class Ends(NamedTuple):
    """The first and the last snapshot."""

    first: Table
    """Rows of the first step."""
    last: Table
    """Rows of the last step."""


def ends_of(table: Table) -> Ends:
    """Rows of the first and of the last step."""
    return Ends(table[table["step"] == table["step"].min()], table[table["step"] == table["step"].max()])


@Drawing
def lift_by_step(
    by_layer: Table,
    *,
    from_span: str = "decision",
    to_span: str = "understanding",
    subset: str = "all",
    limit: float | None = None,
    auxiliary_from: int | None = None,
) -> Spec:
    """Layer by step: log2 of attention on a span over the distance-matched baseline; 0 is no more and no less.

    Args:
        by_layer: the training run's ``attention_by_layer``.
        from_span, to_span, subset: whose rows attend, to what, on which traces.
        limit: ends of the colour scale, in log2; None: the largest in this figure, at least 1.
        auxiliary_from: steps done when the auxiliary losses begin to count.

    Returns:
        A heat map; cells beyond ``limit`` take the end's colour, cells without a number stay blank.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(by_layer, "attention_by_layer", from_span=from_span, to_span=to_span, subset=subset, measure=_RATIO)
    grid = _grid(rows, "value")
    with np.errstate(divide="ignore", invalid="ignore"):
        log2 = np.log2(grid.to_numpy(float))
    finite = np.abs(log2[np.isfinite(log2)])
    end = limit or max(1.0, float(finite.max()) if len(finite) else 1.0)
    trace = heatmap(
        [int(step) for step in grid.columns],
        [str(layer) for layer in grid.index],
        [[number(value, 2) for value in row] for row in np.clip(log2, -end, end)],
        (-end, end),
        LIFT_SCALE,
        hover="step %{x}, layer %{y}<br>%{customdata:.2f} × distance-matched baseline",
        bar="log2 lift",
        customdata=[[number(value, 2) for value in row] for row in grid.to_numpy(float)],
        ygap=1 if len(grid) <= 16 else 0,
    )
    first, last = (_above(part) for part in ends_of(rows))
    caption = (
        f"{from_to(from_span, to_span)}, mean over heads, over the distance-matched baseline. Interval above 1: "
        f"{first} at step {grid.columns[0]:,}, {last} at step {grid.columns[-1]:,}. {sizes(rows)}."
    )
    title = f"Lift on {named(SPANS, to_span)}, by layer"
    return on_layers_and_steps(trace, caption, title=title, unit="log2 lift", auxiliary_from=auxiliary_from)


@Drawing
def lift_over_steps(
    by_layer: Table, *, from_span: str = "decision", subset: str = "all", auxiliary_from: int | None = None
) -> Spec:
    """Attention on U and on X over all layers, divided by the distance-matched baseline, by step.

    Args:
        by_layer: the training run's ``attention_by_layer``.
        from_span, subset: whose rows attend, on which traces.
        auxiliary_from: steps done when the auxiliary losses begin to count.

    Returns:
        Lines over steps on a log axis, 1 = no more than the distance-matched baseline.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(by_layer, "attention_by_layer", from_span=from_span, subset=subset)
    data: list[Spec] = []
    told = []
    for to_span, name, dash in (("understanding", "on U", "solid"), ("prompt", "on X", "dash")):
        all_layers = over_layers(rows[rows["to_span"] == to_span])
        if all_layers.empty:
            continue
        data += line(all_layers, "step", name=name, tone=to_span, dash=dash)
        first, last = all_layers.iloc[0], all_layers.iloc[-1]
        ends = (
            f"{with_interval(*(row[bound] for bound in VALUE))} × at step {int(row['step']):,} (mass {row['mass']:.3f})"
            for row in ([first, last] if len(all_layers) > 1 else [last])
        )
        told.append(f"{capital(name)}: {', '.join(ends)}.")
    if not data:
        raise RunError(f"attention_by_layer: no {_RATIO} with its matched_mass on U or X from {from_span!r}")
    whose = SPANS.get(from_span, from_span)
    caption = (
        f"From {whose}, mean over heads, all layers together, divided by the distance-matched baseline; 1 is no more. "
        f"{' '.join(told)} {sizes(rows)}. Bands: the layers’ 95 % intervals, averaged; no narrower than the true one."
    )
    title = "Attention over all layers"
    spec = finish(data, caption, table="lines", title=title, x="step", y="× distance-matched baseline", height=360)
    on_log_axis(spec)
    mark_auxiliary(spec, auxiliary_from)
    return spec


@Drawing
def lift_before_after(
    by_layer: Table, *, from_span: str = "decision", to_span: str = "understanding", subset: str = "all"
) -> Spec:
    """Attention on a span over the distance-matched baseline, by layer, at the first and at the last snapshot.

    Args:
        by_layer: the training run's ``attention_by_layer``.
        from_span, to_span, subset: whose rows attend, to what, on which traces.

    Returns:
        Lines over layers on a log axis, 1 = no more than the distance-matched baseline.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(by_layer, "attention_by_layer", from_span=from_span, to_span=to_span, subset=subset, measure=_RATIO)
    data, best = before_and_after(rows.sort_values("layer"), "layer", VALUE, VALUE, unit=" ×")
    caption = (
        f"{from_to(from_span, to_span)}, mean over heads, over the distance-matched baseline; 1 is no more. {best} "
        f"{sizes(rows)}. Bands: 95 % intervals over groups."
    )
    title = f"Lift on {named(SPANS, to_span)}, before and after"
    spec = finish(data, caption, table="lines", title=title, x="layer", y="× distance-matched baseline", height=400)
    on_log_axis(spec)
    on_whole_layers(spec, rows["layer"])
    return spec


def over_layers(rows: Table) -> Table:
    """Attention of one pair of spans over all layers at each step.

    Args:
        rows: of ``attention_by_layer``, one pair and one subset.

    Returns:
        Columns ``step``, ``value`` (Σ mass / Σ matched mass over the layers that have both), ``low``, ``high`` (the
        layers' bounds, weighed alike; NaN when one has none), ``mass`` (mean over these layers), ``n``, ``n_groups``
        (of the layer with the fewest); no row where no layer has both.
    """
    indexed = rows.set_index(["step", "layer"])
    ratio = indexed.loc[indexed["measure"] == _RATIO, ["value", "low", "high", "n", "n_groups"]]
    matched = indexed.loc[indexed["measure"] == "matched_mass", "value"].rename("matched")
    cells = ratio.join(matched, how="inner").dropna(subset=["value", "matched"])
    summed = []
    for step, part in cells.groupby(level="step"):
        weights = part["matched"].to_numpy(float)
        if weights.sum() <= 0:
            continue
        value, low, high = (float(weights @ part[name].to_numpy(float) / weights.sum()) for name in VALUE)
        n = {name: int(part[name].min()) for name in ("n", "n_groups")}
        mass = float((part["value"] * part["matched"]).mean())
        summed.append({"step": step, "value": value, "low": low, "high": high, "mass": mass} | n)
    return pd.DataFrame(summed, columns=["step", *VALUE, "mass", "n", "n_groups"])


def before_and_after(
    rows: Table, x: str, columns: Sequence[str], in_words: Sequence[str], *, unit: str = ""
) -> tuple[list[Spec], str]:
    """Lines of the first and of the last snapshot, of one alone where there is no other, and where each is highest.

    Args:
        rows: by layer and step, in the order of the layers.
        x: the column of the places.
        columns: value, low, high, as they are drawn.
        in_words: the same of the highest layer.
        unit: behind a value.
    """
    first, last = ends_of(rows)
    both = [(first, "key_sentence", "dash"), (last, "prompt", "solid")]
    if int(first["step"].iloc[0]) == int(last["step"].iloc[0]):
        del both[0]
    data: list[Spec] = []
    told = []
    for part, tone, dash in both:
        name = snapshot_name(int(part["step"].iloc[0]))
        data += line(part, x, columns, name=name, tone=tone, dash=dash)
        if (top := highest(part, columns[0])) is not None:
            where = "after the final norm" if top.get("site") == "ln_final" else f"in layer {int(top['layer'])}"
            told.append(f"{name}, {with_interval(*(top[bound] for bound in in_words))}{unit} {where}")
    return data, f"Highest: {'; '.join(told)}." if told else "No layer has a number."


def snapshot_name(step: int) -> str:
    """What a snapshot is called in words."""
    return "before training" if step == 0 else f"step {step:,}"


def largest_lift_of(by_layer: Table) -> float:
    """An end of the colour scale that fits every selection: the 98th percentile of |log2 lift|, within [1, 4]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.abs(np.log2(by_layer.loc[by_layer["measure"] == _RATIO, "value"].to_numpy(float)))
    values = values[np.isfinite(values)]
    return float(np.clip(np.quantile(values, 0.98), 1, 4)) if len(values) else 1.0


def _grid(rows: Table, column: str) -> Table:
    return rows.set_index(["layer", "step"])[column].unstack("step").sort_index()


def _above(rows: Table) -> str:
    return f"{int((rows['low'] > 1).sum())} of {rows['layer'].nunique()} layers"


def on_layers_and_steps(trace: Spec, caption: str, *, title: str, unit: str, auxiliary_from: int | None) -> Spec:
    """A heat map of layers over steps as a figure."""
    height = int(np.clip(130 + 24 * len(trace["y"]), 260, 520))
    spec = finish([trace], caption, table="grid", title=title, x="step", y="layer", height=height, unit=unit)
    spec["layout"]["xaxis"] |= {"showgrid": False}
    spec["layout"]["yaxis"] |= {"showgrid": False, "type": "category"}
    mark_auxiliary(spec, auxiliary_from)
    return spec
