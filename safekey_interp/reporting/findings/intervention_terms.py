"""How is an intervention's summary read: which rows are told first, what is a row called, and what is its control?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from safekey_interp.data.conditions import FEW
from safekey_interp.interventions.effects import TESTED, default_rows

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_registry import Name

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
Row = Any
"""One of its rows."""

METRICS = {
    "difference": "safe key sentences less go-aheads",
    "safe": "safe key sentences",
    "go_ahead": "go-aheads",
    "key_sentence": "the trace’s own K",
    "first_difference": "first words of safe key sentences less those of go-aheads",
    "first_safe": "first words of safe key sentences",
    "first_go_ahead": "first words of go-aheads",
}
"""What is read out, in words."""
PARTS = {"understanding": "U", "key_sentence": "K", "rest": "the rest"}
"""Parts of the reasoning, as a plot's axis has room for."""
_SPANS = {
    "prompt": "the prompt (X)",
    "understanding": "the understanding (U)",
    "template": "the template",
    "first_token": "the first token",
}
POSITIONS = {
    "prompt": "X",
    "prompt_end": "the end of X",
    "template": "the template behind X",
    "understanding": "U",
    "understanding_end": "the end of U",
    "decision": "the token before K",
}
"""Where states are swapped, in the order of a trace."""
FROM = {
    "key_sentence": "K’s own tokens",
    "decision": "the token before K",
    "decision+key_sentence": "K’s own tokens and the one before them",
}
"""The queries of a knockout."""


CONTROLS = {
    "outside_spans": "as many random keys outside X, U and what is hidden",
    "resample_same_label": "the same span of another request of the same label in its place",
    "resample_other_label": "the same span of another request of the other label in its place",
    "random_keys": "as many random keys",
    "other_request": "another request’s states",
    "shuffled_labels": "directions fitted to shuffled labels",
    "covariance": "directions drawn from the states’ covariance",
    "isotropic": "isotropic random directions",
    "other_requests": "other requests’ key sentences",
}
"""Kinds of control in words."""


SHARED_DRAWS = ("direction",)
"""Interventions of which one draw of the control is the same for every trace: p over the draws decides, not an interval
over traces."""


class Reading(NamedTuple):
    """How the summary of one intervention is read."""

    metrics: tuple[str, ...]
    """What is told first, and else; none where there is one number alone."""
    series: str
    """The column that tells lines apart; empty for none."""
    unit: str
    """Of the values."""
    value: str
    """What a value is."""


READINGS: dict[Name, Reading] = {
    "knockout": Reading(
        ("difference", "key_sentence", "safe", "go_ahead"),
        "to_span",
        "nats a token",
        "effect",
    ),
    "patch": Reading(
        ("difference", "key_sentence", "safe", "go_ahead"),
        "position",
        "nats a token",
        "effect",
    ),
    "direction": Reading(
        ("difference", "key_sentence", "safe", "go_ahead"),
        "scale",
        "nats a token",
        "effect",
    ),
    "suppress": Reading((), "target_part", "nats a token", "KL"),
    "lens": Reading(
        ("key_sentence", "difference", "first_difference", "safe", "go_ahead", "first_safe", "first_go_ahead"),
        "",
        "nats",
        "log-probability",
    ),
}


def main_rows(
    name: Name, summary: Table, *, metric: str | None = None, subset: str | None = None, kind: str | None = None
) -> Table:
    """The rows that are told: of one metric and some traces, beside one kind of control.

    Args:
        name: the intervention; not a trajectory, whose summary has another form.
        summary: its summary.
        metric: the first of the intervention's own that the summary has, when None.
        subset: harmful prompts where there are enough of them, else all, when None.
        kind: of control; the default when None.
    """
    rows: Table = default_rows(summary) if kind is None else summary.loc[summary["control_kind"] == kind]
    if "measure" in rows.columns:
        exact = rows["measure"] == "effect"
        rows = rows.loc[exact if (exact & rows["value"].notna()).any() else rows["measure"] == "attribution"]
    if "dose" in rows.columns:
        rows = rows.loc[rows["dose"] == 1]
    if READINGS[name].metrics:
        rows = rows.loc[rows["metric"] == (metric or main_metric(name, summary))]
    return rows.loc[rows["subset"] == (subset or main_subset(summary))].dropna(subset=["value"])


def control_name(kind: str) -> str:
    """A kind of control in words."""
    return CONTROLS.get(kind, kind.replace("_", " "))


def default_control(summary: Table) -> str:
    """The control that a summary's rows are told beside, in words."""
    kinds = default_rows(summary)["control_kind"]
    return control_name(next((kind for kind in kinds if kind != TESTED), TESTED))


def main_metric(name: Name, summary: Table) -> str:
    """The first of an intervention's metrics that its summary has."""
    there = set(summary["metric"])
    return next(metric for metric in READINGS[name].metrics if metric in there)


def main_subset(summary: Table) -> str:
    """Harmful prompts where there are enough of them for an interval, else all traces."""
    sizes = summary.groupby("subset")["n_groups"].max()
    return "harmful" if sizes.get("harmful", 0) >= FEW else "all"


def series_name(name: Name, value: Any) -> str:
    """A line in words."""
    if name == "direction":
        return "taken out" if isinstance(value, float) and np.isnan(value) else f"added, scale {value:g}"
    words = {"knockout": _SPANS, "patch": POSITIONS, "suppress": PARTS}[name]
    return words.get(str(value), str(value))


def place_name(name: Name, row: Row, model: Mapping[str, Any]) -> str:
    """Where a row was measured, in words: layers and heads, or the part that was hidden.

    Args:
        name: the intervention.
        row: of its summary.
        model: ``run.json``'s record of the model, which says how many layers there are.
    """
    if name == "suppress":
        return f"{PARTS.get(row['source_part'], row['source_part'])} hidden"
    layer = int(row["layer"])
    if name == "direction" and row["site"] == "ln_final":
        return "final norm"
    if name != "knockout":
        return f"layer {layer}"
    n = int(row["n_layers"])
    if n == 1:
        where = f"layer {layer}"
    elif n == model.get("n_layers"):
        where = f"all {n} layers"
    else:
        where = f"{n} layers from {layer} on"
    return where if row["head"] < 0 else f"{where}, head {int(row['head'])}"
