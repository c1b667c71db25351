"""Findings of doses, of other requests' spans in place, and of the pool of random keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.interventions.donors import OTHER, SAME
from safekey_interp.interventions.effects import default_rows
from safekey_interp.interventions.knockout_plan import DOSES, OUTSIDE
from safekey_interp.interventions.knockout_summary import CONTRAST, CURVATURE, EFFECT, SLOPE
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.effect_size import size_in_words, smallest_of, verdict_of
from safekey_interp.reporting.findings.finding import Estimate, Finding, estimate
from safekey_interp.reporting.findings.intervention_terms import Row, Table
from safekey_interp.reporting.findings.phrases import and_list

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

_ZERO = Estimate(0.0, np.nan, np.nan)


def in_place(summary: Table, row: Row) -> str:
    """The effect of other requests' spans in place, behind the effect of hiding it; empty where it is not measured."""
    other, same = (_beside(summary, row, kind) for kind in (OTHER, SAME))
    # Traces of both labels together average opposite effects of the other label's span.
    if other is None or same is None or terms.is_mixed(summary, row["subset"]):
        return ""
    return (
        f"; with the same span of another request in its place it moves by {other.text('+.2f')} where that has the "
        f"other label, by {same.text('+.2f')} where it has the same one"
    )


def find_pool(intervention: Intervention, summary: Table) -> Iterator[Finding]:
    """How many traces have enough keys outside the tested spans for a control by random keys."""
    for _, part in terms.main_rows(intervention, summary).groupby(intervention.lines, sort=False):
        row = part.loc[part["n_with_control"].idxmin()]
        n, n_with = int(row["n"]), 0 if row["control_kind"] != OUTSIDE else int(row["n_with_control"])
        if n_with == n:
            continue
        text = (
            f"{terms.line_start(intervention, row)}: random keys outside every tested span are no control on "
            f"{n - n_with:,} of {n:,} traces, where fewer lie there (median {row['n_pool']:.0f}) than the span has "
            f"keys ({row['n_k']:.0f}); no p and no excess for them."
        )
        yield Finding(question="chance", text=text, n=n, control="none")


def find_doses(intervention: Intervention, summary: Table, model: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the effect rises with the share of the span that is hidden."""
    unit = terms.unit_of(intervention, summary)
    for _, rows in terms.main_rows(intervention, summary).groupby(intervention.lines, sort=False):
        row = _largest(rows)
        wanted = [*((EFFECT, dose) for dose in DOSES), (SLOPE, 1.0), (CURVATURE, 1.0)]
        found = [_same_place(summary, row, measure, dose) for measure, dose in wanted]
        measured = [other for other in found if other is not None and np.isfinite(other["value"])]
        if len(measured) < len(wanted):
            continue
        *steps, slope, curvature = measured
        number, bend = (estimate(other).of_largest(len(rows), other["n_groups"]) for other in (slope, curvature))
        doses = and_list([f"{step['value']:+.2f} ({step['dose']:.2f})" for step in (*steps, row)])
        text = (
            f"{terms.line_start(intervention, row)} hidden by quarters in "
            f"{terms.place_name(intervention, row, model)}{picked_of(len(rows))}: {doses}; the slope is "
            f"{number.text('+.2f')} {unit} for the whole span, {size_in_words(number, unit)}; "
            f"all keys minus four times a quarter: {bend.text('+.2f')}, {size_in_words(bend, unit)}."
        )
        about: dict[str, Any] = {"n": int(row["n"]), "control": "smaller doses", "is_shown": is_off_zero(number)}
        about |= {"verdict": verdict_of(number, smallest_of(unit))}
        yield Finding(question="chance", text=text, **about, **number.fields())


def find_contrast(
    intervention: Intervention, summary: Table, model: Mapping[str, Any], subset: str
) -> Iterator[Finding]:
    """Whether it matters which kind of request the span in place comes from; of one label at a time."""
    metric, unit = terms.main_metric(intervention, summary), terms.unit_of(intervention, summary)
    rows = summary.loc[(summary["measure"] == CONTRAST) & (summary["metric"] == metric)]
    rows = rows.loc[(rows["subset"] == subset) & rows["value"].notna()]
    for _, part in rows.groupby(intervention.lines, sort=False):
        row = _largest(part)
        number = estimate(row).of_largest(len(part), row["n_groups"])
        where = terms.place_name(intervention, row, model) + picked_of(len(part))
        text = (
            f"{terms.line_start(intervention, row)} of another request in place, the other label’s minus the "
            f"same label’s: {number.text('+.2f')} {unit} ({where}), {size_in_words(number, unit)}, on "
            f"{terms.traces_of(subset)}."
        )
        about: dict[str, Any] = {"n": int(row["n"]), "control": "another request of the same label"}
        about |= {"is_shown": is_off_zero(number), "verdict": verdict_of(number, smallest_of(unit))}
        yield Finding(question="chance", text=text, **about, **number.fields())


def picked_of(n_places: int) -> str:
    """Behind a place that was picked for its effect; its interval is :meth:`Estimate.of_largest`."""
    return f", the largest of {n_places}, with the interval of all {n_places} at once" if n_places > 1 else ""


def is_off_zero(number: Estimate) -> bool:
    """Whether an interval excludes 0."""
    return bool(number.lies(_ZERO))


def _largest(rows: Table) -> Row:
    return rows.loc[rows["value"].abs().idxmax()]


def _at_place(summary: Table, row: Row) -> Table:
    """The rows at a row's place, of any measure, dose and control."""
    names = list(summary.columns)
    place = [name for name in names[: names.index("subset") + 1] if name not in terms.WHOLE]
    return summary.loc[(summary[place] == row[place]).all(axis=1)]


def _same_place(summary: Table, row: Row, measure: str, dose: float) -> Row | None:
    rows = _at_place(summary, row)
    rows = default_rows(rows.loc[(rows["measure"] == measure) & (rows["dose"] == dose)])
    return None if rows.empty else rows.iloc[0]


def _beside(summary: Table, row: Row, kind: str) -> Estimate | None:
    """The control of a kind at a row's place; None where there is none."""
    rows = summary.loc[summary["control_kind"] == kind]
    rows = _at_place(rows, row) if len(rows) else rows
    if rows.empty or not np.isfinite(rows.iloc[0]["control"]):
        return None
    return estimate(rows.iloc[0], *terms.CONTROL)
