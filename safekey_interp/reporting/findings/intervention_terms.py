"""Names of an intervention's places, lines, metrics and controls, and the rows of its summary that are reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safekey_interp.data.class_labels import ClassPair, class_pair
from safekey_interp.data.conditions import FEW, LABELS, TRACES_OF
from safekey_interp.interventions.effects import TESTED, default_rows
from safekey_interp.interventions.intervention_parts import METRICS
from safekey_interp.interventions.intervention_registry import find_intervention, intervention_names
from safekey_interp.reporting.findings.phrases import capital

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
    if "stage" in rows.columns:
        rows = rows.loc[rows["stage"] == "exact"]
    is_controlled = rows["control_kind"] != TESTED
    if "n_places" in rows.columns and is_controlled.any():
        rows = rows.loc[is_controlled]  # of two stages, the places that were confirmed
    if "dose" in rows.columns:
        rows = rows.loc[rows["dose"] == WHOLE["dose"]]
    if intervention.metrics:
        rows = rows.loc[rows["metric"] == (metric or main_metric(intervention, summary))]
    return rows.loc[rows["subset"] == (subset or main_subset(summary))].dropna(subset=["value"])


def n_places(rows: Table) -> int:
    """Places that a line's rows are picked from: all that were estimated, where only the first were measured."""
    return int(rows["n_places"].max()) if "n_places" in rows.columns else len(rows)


def control_name(kind: str, intervention: Intervention | None = None) -> str:
    """A kind of control in words, those of its intervention first."""
    own = [intervention] if intervention is not None else []
    for record in (*own, *map(find_intervention, intervention_names())):
        if kind in record.controls:
            return record.controls[kind].words
    return kind.replace("_", " ")


def default_control(intervention: Intervention, summary: Table) -> str:
    """The control that a summary's rows are reported beside, in words."""
    kinds = default_rows(summary)["control_kind"]
    return control_name(next((kind for kind in kinds if kind != TESTED), TESTED), intervention)


def main_metric(intervention: Intervention, summary: Table) -> str:
    """The metric that is reported: the first that was asked for, else the first of the intervention's own; empty where
    it has one number alone."""
    if "unit" in summary.columns:
        return summary["metric"].iloc[0]
    measured = set(summary["metric"]) if intervention.metrics else ()
    return next((metric for metric in intervention.metrics if metric in measured), "")


def by_metric(summary: Table) -> list[Table]:
    """A summary's rows of each metric that was asked for, the first one first; all of them where none was. Both terms
    of a difference are told with it."""
    if "unit" not in summary.columns:
        return [summary]
    names = dict.fromkeys(summary["metric"])
    terms = ("safe", "go_ahead") if any(name.split(" at ")[0] == "difference" for name in names) else ()
    return [summary.loc[summary["metric"] == name] for name in names if name.split(" at ")[0] not in terms]


def metric_name(intervention: Intervention, metric: str) -> str:
    """A metric in words, or as it was typed."""
    return metric if intervention.is_plain or "(" in metric else METRICS.get(metric, metric.replace("_", " "))


def unit_of(intervention: Intervention, summary: Table, metric: str | None = None) -> str:
    """The unit of a metric, of the main one when None."""
    if "unit" not in summary.columns:
        return intervention.unit
    rows = summary.loc[summary["metric"] == (metric or main_metric(intervention, summary)), "unit"].dropna()
    return str(rows.iloc[0]) if len(rows) else intervention.unit


def traces_of(subset: str) -> str:
    """Traces of a label, or all of them, in words."""
    return TRACES_OF.get(subset, f"{subset} traces")


def labels_of(summary: Table) -> tuple[str, ...]:
    """The labels that a summary tells apart: harmful and benign, or the data's own."""
    own = [str(subset) for subset in summary["subset"].unique() if subset != "all"]
    return LABELS if set(own) <= set(LABELS) else tuple(own)


def classes_in(summary: Table) -> ClassPair:
    """The two labels that a summary of scores has a curve of each; empty names where there are not two."""
    labels = [str(label) for label in summary["label"].unique()]
    pair = class_pair(labels, "label") if len(labels) < 3 else ClassPair("", "")
    return pair if pair.negative else ClassPair("", "")


def readers_in(summary: Table) -> dict[int, str]:
    """What a summary of scores has a curve of, by number: a metric, or a reader of states."""
    names = summary.drop_duplicates("reader").set_index("reader")
    return {int(number): str(row.get("metric", f"reader {number}")) for number, row in names.iterrows()}


def is_mixed(summary: Table, subset: str) -> bool:
    """Whether a subset has traces of both labels, whose other label's spans have opposite effects."""
    return subset == "all" and len(set(labels_of(summary)) & set(summary["subset"])) > 1


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


def label_start(label: str) -> str:
    """A label at the start of a sentence: a word with a capital letter, one of the data as it is there."""
    return capital(label) if label in LABELS else label


def line_start(intervention: Intervention, row: Row) -> str:
    """A row's line at the start of a sentence: a word with a capital letter, an expression as it was typed."""
    line = line_name(intervention, row)
    return line if intervention.is_plain else capital(line)


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
    component = row.get("component", row.get("site", "resid_post"))
    if component == "ln_final":
        return "final norm"
    where = f"layer {layer}" if component == "resid_post" else f"{component} of layer {layer}"
    if n > 1:
        where = f"all {n} layers" if n == model.get("n_layers") else f"{n} layers from {layer} on"
    return where if row.get("head", -1) < 0 else f"{where}, head {int(row['head'])}"
