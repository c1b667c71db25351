"""Tables of doses, of other requests' spans in place, and of the pool of random keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safekey_interp.interventions.donors import OTHER, SAME
from safekey_interp.interventions.effects import default_rows
from safekey_interp.interventions.knockout_plan import DOSES, OUTSIDE
from safekey_interp.interventions.knockout_summary import CONTRAST, CURVATURE, EFFECT, SLOPE
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.finding import estimate
from safekey_interp.reporting.pages.html import Html, data, el, join, table
from safekey_interp.reporting.pages.intervention_text import row_name, table_caption, table_number

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

_MOST = 40
"""Rows of a table; more tell a reader no more."""
_PLACE = ["to_span", "layer", "head"]


def control_tables(intervention: Intervention, summary: Table, manifest: Mapping[str, Any]) -> list[Html]:
    """The tables that the summary of a knockout has beside that of the excess."""
    if "n_pool" not in summary.columns:
        return []
    tables = (
        _pool(intervention, summary),
        _resampled(intervention, summary, manifest),
        _doses(intervention, summary, manifest),
    )
    return [each for each in tables if each is not None]


def _pool(intervention: Intervention, summary: Table) -> Html:
    """On how many traces random keys outside the tested spans are a control."""
    rows = terms.main_rows(intervention, summary).drop_duplicates("to_span")
    body: list[list[object]] = [
        [
            data(terms.line_name(intervention, row)),
            f"{row['n_k']:.0f}",
            f"{row['n_pool']:.0f}",
            f"{int(row['n_with_control']) if row['control_kind'] == OUTSIDE else 0:,} of {int(row['n']):,}",
        ]
        for _, row in rows.iterrows()
    ]
    head = ["Hidden", "Keys of the span", "Keys outside every tested span", "Traces with the control"]
    note = (
        "Medians over traces, of keys in sight of the first query. Where fewer keys lie outside the tested spans than "
        "the span has, random keys would be a weaker change: no such control is measured there, and neither p nor "
        "excess is given. Doses and another request’s span in place need no such keys."
    )
    caption = "Random keys outside X, U and what is hidden, and not the first token"
    return join(table(head, body, caption=caption), el("p", note, class_="muted"))


def _resampled(intervention: Intervention, summary: Table, manifest: Mapping[str, Any]) -> Html | None:
    """The effect of the same span of other requests, by their label."""
    subset = terms.main_subset(summary)
    kinds = {
        kind: terms.main_rows(intervention, summary, subset=subset, kind=kind).set_index(_PLACE)
        for kind in (OTHER, SAME)
    }
    contrasts = _measure(intervention, summary, CONTRAST, subset)
    if contrasts.empty:
        return None
    body: list[list[object]] = []
    for _, row in _largest(contrasts).iterrows():
        place = tuple(row[_PLACE])
        beside = [
            table_number(estimate(rows.loc[place], *terms.CONTROL)) if place in rows.index else "n/a"
            for rows in kinds.values()
        ]
        where = row_name(intervention, row, manifest)
        body.append([where, *beside, table_number(estimate(row)), f"{int(row['n']):,}"])
    head = ["Span", "Other label’s in place", "Same label’s in place", "Other minus same", "n"]
    note = (
        "In place of the span, K sees the keys and values of the same span of another request, at the same positions. "
        "That a span says which kind of request it is rests on the last difference; hiding it also takes away what any "
        "request’s span gives."
    )
    if subset == "all" and {"harmful", "benign"} <= set(summary["subset"]):
        note += " Over harmful and benign traces together the two directions cancel: read them apart."
    return join(
        table(head, body, caption=table_caption(intervention, summary, subset)),
        el("p", note + _more(contrasts), class_="muted"),
    )


def _doses(intervention: Intervention, summary: Table, manifest: Mapping[str, Any]) -> Html | None:
    """The effect by the share of the span that is hidden."""
    subset = terms.main_subset(summary)
    slopes = _measure(intervention, summary, SLOPE, subset)
    if slopes.empty:
        return None
    doses = (*DOSES, 1.0)
    steps = [_measure(intervention, summary, EFFECT, subset, dose).set_index(_PLACE) for dose in doses]
    bends = _measure(intervention, summary, CURVATURE, subset).set_index(_PLACE)
    body: list[list[object]] = []
    for _, row in _largest(slopes).iterrows():
        place = tuple(row[_PLACE])
        numbers = [estimate(rows.loc[place]) for rows in steps] + [estimate(row), estimate(bends.loc[place])]
        where = row_name(intervention, row, manifest)
        body.append([where, *map(table_number, numbers), f"{int(row['n']):,}"])
    head = ["Hidden", *(f"{dose:g} of it" for dose in doses), "Slope", "All minus 4 quarters", "n"]
    note = (
        "Random parts of the span; those of one draw lie in one another. The slope is in nats a token for the whole "
        "span. Where the last difference is 0, keys add up; where it has the sign of the effect, several keys say the "
        "same, and no quarter of them is missed."
    )
    return join(
        table(head, body, caption=table_caption(intervention, summary, subset)),
        el("p", note + _more(slopes), class_="muted"),
    )


def _measure(intervention: Intervention, summary: Table, measure: str, subset: str, dose: float = 1.0) -> Table:
    rows = default_rows(summary)
    rows = rows.loc[(rows["measure"] == measure) & (rows["dose"] == dose) & (rows["subset"] == subset)]
    return rows.loc[(rows["metric"] == terms.main_metric(intervention, summary)) & rows["value"].notna()]


def _largest(rows: Table) -> Table:
    if len(rows) <= _MOST:
        return rows
    return rows.loc[rows["value"].abs().sort_values(ascending=False, kind="stable").index[:_MOST]]


def _more(rows: Table) -> str:
    return f" The {_MOST} largest of {len(rows)}; all are in summary.parquet." if len(rows) > _MOST else ""
