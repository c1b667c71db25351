"""Figures of a training run: each term of the loss by step, in training and held out, and the optimizer.

Losses are nats, as :mod:`safekey_interp.training.losses` defines them. A vertical line marks where the auxiliary losses
begin to count; its place is the number of steps done without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_numbers import counts, number
from safekey_interp.reporting.figures.figure_parts import curve, finish
from safekey_interp.reporting.figures.figure_style import PALETTE, Drawing, Spec, Table

Term = Literal["total", "lm", "head", "query_mask", "key"]
Column = Literal["learning_rate", "grad_norm"]


class LossTerm(NamedTuple):
    """A term of the loss in words."""

    title: str
    """Its name."""
    unit: str
    """What it is a mean over."""
    column: str = ""
    """The column that says how many it was averaged over; empty for the total."""
    counted: str = ""
    """What this column counts."""

    def n(self, row: Table) -> str:
        """How many a row's number was averaged over."""
        return f"{int(row[self.column]):,} {self.counted}"


TERMS: dict[Term, LossTerm] = {
    "total": LossTerm("Total", "nats, weighted sum"),
    "lm": LossTerm("Language modelling", "nats per response token", "tokens", "response tokens"),
    "head": LossTerm("Safety head", "nats per trace", "rows", "traces"),
    "query_mask": LossTerm("Query mask", "nats per token of K", "key_tokens", "tokens of K"),
    "key": LossTerm("K with the prompt in sight", "nats per token of K", "visible_key_tokens", "tokens of K"),
}
_OPTIMIZER = {"learning_rate": "learning rate", "grad_norm": "gradient norm"}
_MAX_POINTS = 500  # more points than this are no wider than a pixel


@Drawing
def loss_by_step(
    steps: Table | None,
    held_out: Table | None,
    *,
    term: Term = "lm",
    auxiliary_from: int | None = None,
    chance: float | None = None,
) -> Spec:
    """One term of the loss by step, on the traces of training and on held-out prompts.

    Args:
        steps: the run's ``steps``; None: not drawn.
        held_out: the run's ``held_out``; None: not drawn.
        term: which term.
        auxiliary_from: steps done when the auxiliary losses begin to count.
        chance: the loss of knowing nothing, a dotted line.

    Returns:
        Lines over steps; more than 500 rows of training are means of like many.

    Raises:
        RunError: neither table has a number for the term.
    """
    what = TERMS[term]
    data: list[Spec] = []
    remarks = []
    if steps is not None and steps[term].notna().any():
        drawn, each = _thinned(steps[["step", term]])
        data += _line(drawn["step"], drawn[term], name="training", tone="control", dash="solid", width=1.4)
        last = steps.dropna(subset=[term]).sort_values("step").iloc[-1]
        n = f" over {what.n(last)} since the row before" if what.column else ""
        remarks.append(f"Training: {last[term]:.3f} at step {int(last['step']):,}{n}.")
        if each > 1:
            remarks.append(f"Each point of training is the mean of {each} rows of the table.")
    kept = None if held_out is None else held_out.dropna(subset=[term]).sort_values("step")
    if kept is not None and len(kept):
        data += _line(kept["step"], kept[term], name="held out", tone="prompt", dash="solid", markers=True)
        remarks.insert(0, _told(kept, term))
    if not data:
        raise RunError(f"steps, held_out: no row with a number for {term!r}")
    if chance is not None:
        at = [float(place) for trace in data for place in (trace["x"][0], trace["x"][-1])]
        ends = [min(at), max(at)]
        data += _line(ends, [chance] * 2, name="classes’ shares alone", tone="control", dash="dot")
        remarks.append(f"Knowing only how many prompts are harmful would give {chance:.3f}.")
    if term == "total" and _is_inside(data, auxiliary_from):
        remarks.append("At the line the total in training gains terms, so it may jump there; it has not got worse.")
    if term == "total":
        remarks.append("The plots of its terms say how many each is a mean over.")
    spec = finish(data, " ".join(remarks), table="lines", title=what.title, x="step", y=what.unit, height=300)
    mark_auxiliary(spec, auxiliary_from)
    return spec


@Drawing
def optimizer_by_step(steps: Table, *, column: Column = "grad_norm", auxiliary_from: int | None = None) -> Spec:
    """The learning rate, or the norm of the gradient before it is scaled down, by step.

    Args:
        steps: the run's ``steps``.
        column: which of both.
        auxiliary_from: steps done when the auxiliary losses begin to count.

    Returns:
        One line over steps.

    Raises:
        RunError: the column holds no number.
    """
    drawn, each = _thinned(steps[["step", column]])
    digits = 4 if column == "grad_norm" else 12
    data = _line(drawn["step"], drawn[column], name=_OPTIMIZER[column], tone="control", dash="solid", digits=digits)
    if not data:
        raise RunError(f"steps: no row with a number for {column!r}")
    there = steps.dropna(subset=[column])
    top = there.loc[there[column].idxmax()]
    caption = f"Highest: {top[column]:.3g} at step {int(top['step']):,}; at the end {there[column].iloc[-1]:.3g}."
    caption += f" Each point is the mean of {each} rows of the table." * (each > 1)
    title = _OPTIMIZER[column].capitalize()
    spec = finish(data, caption, table="lines", title=title, x="step", y=_OPTIMIZER[column], height=240)
    spec["layout"]["yaxis"] |= {"rangemode": "tozero", "exponentformat": "e"}
    data[0]["hovertemplate"] = "%{y:.3g}"
    mark_auxiliary(spec, auxiliary_from)
    return spec


def mark_auxiliary(spec: Spec, step: int | None) -> None:
    """A vertical line where the auxiliary losses begin to count; nothing past the end.

    Its words stand beside the legend; in a figure without one, where there is no room, in the caption.
    """
    if step is None or not _is_inside(spec["data"], step):
        return
    layout = spec["layout"]
    tone = PALETTE["ink"].light
    line = {"type": "line", "xref": "x", "x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1}
    line |= {"name": "auxiliary losses begin", "line": {"color": tone, "width": 1.5, "dash": "dash"}}
    layout["shapes"] = [*layout.get("shapes", []), line]
    if sum("name" in trace for trace in spec["data"]) < 2:
        layout["meta"]["caption"] += " Dashed line: the auxiliary losses begin."
        return
    places = [at for trace in spec["data"] for at in trace["x"]]
    is_left = step < (min(places) + max(places)) / 2
    words = {"x": step, "xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    words |= {"text": "auxiliary losses begin", "xanchor": "left" if is_left else "right"}
    words |= {"xshift": -4 if is_left else 4, "font": {"size": 12, "color": PALETTE["muted"].light}}
    layout["annotations"] = [*layout.get("annotations", []), words]
    layout["legend"] = {"y": 1 + 26 / layout["height"] * 1.4}


def _is_inside(data: list[Spec], step: int | None) -> bool:
    return step is not None and 0 <= step <= max((at for trace in data for at in trace["x"]), default=-1)


def _line(
    x: Iterable[float],
    y: Iterable[float],
    *,
    name: str,
    tone: str,
    dash: str,
    markers: bool = False,
    width: float = 2,
    digits: int = 4,
) -> list[Spec]:
    """A line without a band; nothing when no value is finite."""
    ys = list(y)
    traces = curve(x, ys, name=name, color=PALETTE[tone].light, dash=dash, markers=markers)
    for trace in traces:
        trace["line"]["width"] = width
        trace["y"] = [number(value, digits) for value in ys]
        trace["hovertemplate"] = "%{y:.3f}"
    return traces


def _thinned(rows: Table) -> tuple[Table, int]:
    """At most :data:`_MAX_POINTS` rows, each the mean of as many; and of how many."""
    each = -(-len(rows) // _MAX_POINTS)
    rows = rows.sort_values("step")
    return (rows.groupby(np.arange(len(rows)) // each).mean() if each > 1 else rows), each


def _told(kept: Table, term: Term) -> str:
    first, last = kept.iloc[0], kept.iloc[-1]
    best = kept.loc[kept[term].idxmin()]
    lowest = "" if best["step"] == last["step"] else f" (lowest {best[term]:.3f} at step {int(best['step']):,})"
    column, counted = TERMS[term].column, TERMS[term].counted
    n = f" n = {counts(kept[column])} {counted}." if column else ""
    return (
        f"Held out: {first[term]:.3f} at step {int(first['step']):,}, {last[term]:.3f} at step "
        f"{int(last['step']):,}{lowest}.{n}"
    )
