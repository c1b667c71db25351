"""Figures of attention: lift and mass by head, mass by layer beside its controls."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from safekey_interp.reporting.figures.figure_numbers import counts, highest, number, select, sizes
from safekey_interp.reporting.figures.figure_parts import across, finish, heatmap, line
from safekey_interp.reporting.figures.figure_style import AUROC_SCALE, LIFT_SCALE, PALETTE, Drawing, Spec, Table, escape
from safekey_interp.reporting.findings.effect_size import LEAST_MASS
from safekey_interp.reporting.labels import Names, names_of

Against = Literal["uniform", "random", "matched"]
AttentionMeasure = Literal["mass", "mass_rest", "lift"]

_CURVES = {
    "mass": ("mass", "matched_mass", "random_mass", "uniform_mass"),
    "mass_rest": ("mass_rest",),
    "lift": ("lift", "lift_over_random"),
}
_CURVE_NAMES = {
    "mass": "measured",
    "mass_rest": "without the first token",
    "uniform_mass": "uniform baseline",
    "random_mass": "random key sets",
    "matched_mass": "distance-matched baseline",
    "lift": "over the uniform baseline",
    "lift_over_random": "over random key sets",
}
_PRINTED = 6  # layers up to which cells print their numbers
_LIFTS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
CHANCE: dict[Against, str] = {
    "uniform": "uniform baseline",
    "random": "random key sets",
    "matched": "distance-matched baseline",
}
"""Each control in words."""


@Drawing
def lift_heatmap(
    by_head: Table,
    *,
    from_span: str = "key_sentence",
    to_span: str = "prompt",
    subset: str = "all",
    against: Against = "uniform",
    limit: float | None = None,
    names: Names | None = None,
) -> Spec:
    """Layer by head: log2 of mass over what a control would give; 0 is no more and no less.

    Args:
        by_head: the run's ``attention_by_head``.
        from_span, to_span, subset: whose rows attend, to what, on which traces.
        against: the control that mass is divided by.
        limit: ends of the colour scale, in log2; None: the largest in this figure, at least 1.
        names: words for spans; None: those of the built-in question, where both are of it.

    Returns:
        A heat map; cells beyond ``limit`` take the end's colour, cells without a number stay blank.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(by_head, "attention_by_head", from_span=from_span, to_span=to_span, subset=subset)
    rows = rows.assign(log2=_log2(rows["mass"], rows[f"{against}_mass"]))
    finite = rows[np.isfinite(rows["log2"])]
    end = limit or max(1.0, finite["log2"].abs().max() if len(finite) else 1.0)
    chance = CHANCE[against]
    hover = f"%{{customdata[1]:.2f}} × {chance}<br>mass %{{customdata[0]:.3f}}"
    best = "No head has a number."
    if len(finite):
        best = f"No head puts {LEAST_MASS:g} of its attention there, so none is named."
    if (top := highest(finite[finite["mass"] >= LEAST_MASS], "log2")) is not None:
        best = (
            f"Largest with a mass of at least {LEAST_MASS:g}: layer {int(top['layer'])}, head {int(top['head'])}, "
            f"{2 ** top['log2']:.2f} × "
            f"(mass {top['mass']:.3f}). {int((finite['log2'] > 0).sum()):,} of {len(finite):,} heads lie above "
            f"the {chance}."
        )
    words = names or names_of(from_span, to_span)
    caption = f"{from_to(from_span, to_span, words)}, against the {chance}. {best} n = {counts(rows['n'])} traces."
    about = {"caption": caption, "title": f"Lift on {escape(words.span(to_span))}", "unit": "log2 lift"}
    return _map_of_heads(rows, "log2", 2, (-end, end), LIFT_SCALE, hover=hover, **about)


@Drawing
def mass_heatmap(
    by_head: Table,
    *,
    from_span: str = "key_sentence",
    to_span: str = "prompt",
    subset: str = "all",
    limit: float | None = None,
) -> Spec:
    """Layer by head: mass, as it is; beside it belongs :func:`lift_heatmap`, which says what a control gives.

    Args:
        by_head: the run's ``attention_by_head``.
        from_span, to_span, subset: whose rows attend, to what, on which traces.
        limit: upper end of the colour scale, from 0; None: the largest in this figure.

    Returns:
        A heat map; cells without a number stay blank.

    Raises:
        RunError: no row for the selection.
    """
    rows = select(by_head, "attention_by_head", from_span=from_span, to_span=to_span, subset=subset)
    rows = rows.assign(log2=_log2(rows["mass"], rows["uniform_mass"]))
    hover = "mass %{customdata[0]:.3f}<br>%{customdata[1]:.2f} × uniform baseline"
    best = "No head has a number."
    if rows["mass"].notna().any():
        best = f"No head puts {LEAST_MASS:g} of its attention there, so none is named."
    if (top := highest(rows[rows["mass"] >= LEAST_MASS], "mass")) is not None:
        best = (
            f"Largest: layer {int(top['layer'])}, head {int(top['head'])}, mass {top['mass']:.3f}; uniform baseline "
            f"{top['uniform_mass']:.3f}."
        )
    words = names_of(from_span, to_span)
    caption = f"{from_to(from_span, to_span, words)}, mass by head. {best} n = {counts(rows['n'])} traces."
    about = {"caption": caption, "title": f"Attention on {escape(words.span(to_span))}", "unit": "mass"}
    return _map_of_heads(rows, "mass", 3, (0, limit or rows["mass"].max()), AUROC_SCALE, hover=hover, **about)


@Drawing
def mass_by_layer(
    by_layer: Table,
    *,
    from_span: str = "key_sentence",
    to_span: str = "prompt",
    subset: str = "all",
    measure: AttentionMeasure = "mass",
    names: Names | None = None,
) -> Spec:
    """Attention on a span by layer, mean over heads, with its interval, beside its controls.

    Args:
        by_layer: the run's ``attention_by_layer``.
        from_span, to_span, subset: whose rows attend, to what, on which traces.
        measure: "mass" with its controls (uniform and distance-matched baseline, random keys); "mass_rest" (the first
            token left out); "lift" over the uniform baseline and over random sets, on a log axis.
        names: words for spans; None: those of the built-in question, where both are of it.

    Returns:
        Lines over layers; bands are the table's intervals.

    Raises:
        RunError: no row for the selection.
    """
    curves = _CURVES[measure]
    rows = select(by_layer, "attention_by_layer", from_span=from_span, to_span=to_span, subset=subset)
    main = select(rows, "attention_by_layer", measure=curves[0])
    data: list[Spec] = []
    for name, dash in zip(curves, ("solid", "dash", "dashdot", "dot"), strict=False):
        part = rows[rows["measure"] == name].sort_values("layer")
        tone = to_span if to_span in PALETTE else "prompt"
        tone = tone if name == curves[0] else "control"
        data += line(part, "layer", name=_CURVE_NAMES[name], tone=tone, dash=dash, markers=name == curves[0])
    best = "No layer has a number."
    if (peak := highest(main, "value")) is not None:
        there = rows[rows["layer"] == peak["layer"]].drop_duplicates("measure").set_index("measure")["value"]
        beside = ", ".join(f"{_CURVE_NAMES[name]} {there[name]:.3f}" for name in curves[1:] if name in there.index)
        best = f"Highest at layer {int(peak['layer'])}: {number(peak['value'])}"
        best += f"; there, {beside}." if beside else "."
    words = names or names_of(from_span, to_span)
    caption = f"{from_to(from_span, to_span, words)}, mean over heads. {best} {sizes(main)}"
    caption += "; bands: 95 % intervals over groups."
    label = {"mass": "mass", "mass_rest": "mass without the first token", "lift": "lift (1 = chance)"}[measure]
    spec = finish(data, caption, table="lines", title=f"Attention on {escape(words.span(to_span))}", x="layer", y=label)
    on_whole_layers(spec, rows["layer"])
    if measure == "lift":
        on_log_axis(spec)
    else:
        spec["layout"]["yaxis"]["rangemode"] = "tozero"
    return spec


def largest_lift(by_head: Table, *, against: Against = "uniform") -> float:
    """An end of the colour scale that fits every selection: the 99th percentile of |log2 lift|, within [1, 4]."""
    values = _log2(by_head["mass"], by_head[f"{against}_mass"]).abs()
    values = values[np.isfinite(values)]
    return float(np.clip(values.quantile(0.99), 1, 4)) if len(values) else 1.0


def _map_of_heads(rows: Table, values: str, digits: int, ends: tuple[float, float], scale: Any, **about: str) -> Spec:
    """Head by layer; ``customdata`` holds mass and ratio as they are, where colours stop at the scale's ends."""
    layers, heads = sorted(rows["layer"].unique()), sorted(rows["head"].unique())
    cells = rows.set_index(["head", "layer"])
    grid, mass, log2 = (
        cells[name].unstack("layer").reindex(index=heads, columns=layers).to_numpy(float)
        for name in (values, "mass", "log2")
    )
    printed = {"texttemplate": f"%{{z:.{digits}f}}", "textfont": {"size": 11}} if len(layers) <= _PRINTED else {}
    mass_and_ratio = [
        [[number(m, 3), number(2.0**z, 2)] for m, z in zip(masses, logs, strict=True)]
        for masses, logs in zip(mass, log2, strict=True)
    ]
    trace = heatmap(
        [int(layer) for layer in layers],
        [int(head) for head in heads],
        [[number(value, digits) for value in row] for row in np.clip(grid, *ends)],
        ends,
        scale,
        hover=f"layer %{{x}}, head %{{y}}<br>{about.pop('hover')}",
        bar=about["unit"],
        customdata=mass_and_ratio,
        xgap=1,
        ygap=1,
        **printed,
    )
    height = max(260, min(560, 110 + 17 * len(heads)))
    spec = finish([trace], table="grid", x="layer", y="head", height=height, **about)
    spec["layout"]["xaxis"]["showgrid"] = spec["layout"]["yaxis"]["showgrid"] = False
    return spec


def on_whole_layers(spec: Spec, layers: Table) -> None:
    """Keep plotly from marking half layers where there are few."""
    if layers.nunique() <= 12:
        spec["layout"]["xaxis"] |= {"dtick": 1}


def on_log_axis(spec: Spec) -> None:
    """Put ratios on a log axis, with a line at 1."""
    spec["layout"]["yaxis"] |= {"type": "log", "tickvals": _LIFTS, "ticktext": [f"{lift:g}" for lift in _LIFTS]}
    across(spec, 1)


def _log2(mass: Table, control: Table) -> Table:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log2(mass.astype(float) / control.astype(float).where(control > 0))


def from_to(from_span: str, to_span: str, names: Names | None = None) -> str:
    """Whose attention, and on what, in words."""
    words = names or names_of(from_span, to_span)
    return f"From {words.span(from_span)}, to {words.span(to_span)}"
