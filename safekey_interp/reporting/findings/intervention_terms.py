"""Names of an intervention's places, lines, metrics and controls, and the rows of its summary that are reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safekey_interp.data.conditions import FEW
from safekey_interp.interventions.effects import TESTED, default_rows
from safekey_interp.interventions.intervention_parts import METRICS
from safekey_interp.interventions.intervention_registry import find_intervention, intervention_names

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
Row = Any
"""One of its rows."""
EXCESS = ("excess", "excess_low", "excess_high")
"""Columns of measured minus control."""
CONTROL = ("control", "control_low", "control_high")
"""Columns of the control."""
WHOLE = {"measure": "effect", "dose": 1.0}
"""The rows of a summary that are meant unless others are asked for: the effect of the whole change."""


def main_rows(
    intervention: Intervention,
    summary: Table,
    *,
    metric: str | None = None,
    subset: str | None = None,
    kind: str | None = None,
) -> Table:
    """The rows that are reported: of one metric and some traces, beside one kind of control.

    Args:
        intervention: the record; its summary has effects.
        summary: its summary.
        metric: the first of the intervention's own that the summary has, when None.
        subset: harmful prompts where there are enough of them, else all, when None.
        kind: of control; the default when None.
    """
    rows: Table = default_rows(summary) if kind is None else summary.loc[summary["control_kind"] == kind]
    if "measure" in rows.columns:
        exact = rows["measure"] == WHOLE["measure"]
        rows = rows.loc[exact if (exact & rows["value"].notna()).any() else rows["measure"] == "attribution"]
    if "dose" in rows.columns:
        rows = rows.loc[rows["dose"] == WHOLE["dose"]]
    if intervention.metrics:
        rows = rows.loc[rows["metric"] == (metric or main_metric(intervention, summary))]
    return rows.loc[rows["subset"] == (subset or main_subset(summary))].dropna(subset=["value"])


def control_name(kind: str) -> str:
    """A kind of control in words."""
    for record in map(find_intervention, intervention_names()):
        if kind in record.controls:
            return record.controls[kind].words
    return kind.replace("_", " ")


def default_control(summary: Table) -> str:
    """The control that a summary's rows are reported beside, in words."""
    kinds = default_rows(summary)["control_kind"]
    return control_name(next((kind for kind in kinds if kind != TESTED), TESTED))


def main_metric(intervention: Intervention, summary: Table) -> str:
    """The metric that is reported: the first that was asked for, else the first of the intervention's own; empty where
    it has one number alone."""
    if "unit" in summary.columns:
        return summary["metric"].iloc[0]
    measured = set(summary["metric"]) if intervention.metrics else ()
    return next((metric for metric in intervention.metrics if metric in measured), "")


def metric_name(metric: str) -> str:
    """A metric in words; one that is written with brackets stands for itself."""
    return METRICS.get(metric, metric if "(" in metric else metric.replace("_", " "))


def unit_of(intervention: Intervention, summary: Table, metric: str | None = None) -> str:
    """The unit of a metric, by default of the one that is reported."""
    if "unit" not in summary.columns:
        return intervention.unit
    rows = summary.loc[summary["metric"] == (metric or main_metric(intervention, summary)), "unit"]
    return rows.iloc[0] if len(rows) else intervention.unit


def main_subset(summary: Table) -> str:
    """Harmful prompts where there are enough of them for an interval, else all traces."""
    sizes = summary.groupby("subset")["n_groups"].max()
    return "harmful" if sizes.get("harmful", 0) >= FEW else "all"


def column_name(intervention: Intervention, column: str, value: Any) -> str:
    """A column's value in words."""
    known = intervention.columns.get(column)
    return str(value) if known is None else known.name(value)


def line_name(intervention: Intervention, row: Row) -> str:
    """The line of a summary's row in words; empty where there is one alone."""
    return column_name(intervention, intervention.lines, row[intervention.lines]) if intervention.lines else ""


def place_name(intervention: Intervention, row: Row, model: Mapping[str, Any]) -> str:
    """Where a row was measured, in words.

    Args:
        intervention: the record.
        row: of its summary.
        model: ``run.json``'s record of the model, which says how many layers there are.
    """
    if intervention.place is not None:
        return intervention.place(row)
    layer, n = int(row["layer"]), int(row.get("n_layers", 1))
    if row.get("site") == "ln_final":
        return "final norm"
    where = f"layer {layer}"
    if n > 1:
        where = f"all {n} layers" if n == model.get("n_layers") else f"{n} layers from {layer} on"
    return where if row.get("head", -1) < 0 else f"{where}, head {int(row['head'])}"
