"""Effects of an intervention trace by trace at its main place, beside their control: which trace moved most?

The main place is that of the largest excess over the control (of the largest effect where there is no control) among
the rows that are reported; of an intervention that reports its last layer, that layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pandas as pd

from safekey_interp.interventions.effects import TESTED
from safekey_interp.reporting.findings import intervention_terms as terms

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""


class TraceEffects(NamedTuple):
    """The effect on each trace at one place."""

    row: Any
    """The place: the summary's row."""
    table: Table
    """trace_id, label, effect, control (mean over its draws; NaN where there is none), excess (effect minus control, or
    the effect)."""

    @property
    def most(self) -> Any:
        """The row of the trace that moved most, by excess."""
        return self.table.loc[self.table["excess"].abs().idxmax()]


def main_place(intervention: Intervention, rows: Table) -> Any:
    """Of reported rows that have a number, the one whose place is the main one."""
    if intervention.reports == "last":
        return rows.loc[rows["layer"].idxmax()]
    return rows.loc[rows["excess" if rows["excess"].notna().any() else "value"].abs().idxmax()]


def trace_effects(intervention: Intervention, effects: Table | None, summary: Table | None) -> TraceEffects | None:
    """Effects by trace at the main place; None where the intervention has scores, or no number.

    Args:
        intervention: its record.
        effects: its table.
        summary: its summary.
    """
    if effects is None or summary is None or intervention.form == "scores":
        return None
    rows = terms.main_rows(intervention, summary)
    if rows.empty:
        return None
    row = main_place(intervention, rows)
    columns, there = list(summary.columns), cast("Table", effects)
    for column in columns[: columns.index("subset")]:
        if column in there.columns:
            here = there[column].isna() if pd.isna(row[column]) else there[column] == row[column]
            there = there.loc[here] if here.any() else there  # a value that no trace has stands for all of them
    value = "effect" if "effect" in there.columns else "value"
    tested = there.loc[there["control"] == TESTED].dropna(subset=[value])
    if tested.empty:
        return None
    beside = there.loc[(there["control"] == row["control_kind"]) & (there["control"] != TESTED)]
    table = tested.groupby("trace_id", sort=False).agg(label=("label", "first"), effect=(value, "mean"))
    table["control"] = beside.groupby("trace_id")[value].mean().reindex(table.index)
    table["excess"] = (table["effect"] - table["control"]).fillna(table["effect"])
    return TraceEffects(row, table.reset_index())
