"""What came of a knockout: the effect of hiding a span, beside random keys outside every tested span where a trace has
enough of them; whether it rises with the share that is hidden; and what another request's span does in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from safekey_interp.data.conditions import FEW, TRACES_OF
from safekey_interp.interventions.donors import OTHER, SAME
from safekey_interp.interventions.effects import default_rows
from safekey_interp.interventions.knockout_plan import DOSE, DOSES, OUTSIDE
from safekey_interp.interventions.knockout_summary import CONTRAST, CURVATURE, EFFECT, SLOPE
from safekey_interp.reporting.findings.finding import Estimate, Finding, estimate
from safekey_interp.reporting.findings.intervention_terms import (
    METRICS,
    Row,
    Table,
    main_metric,
    main_rows,
    place_name,
    series_name,
)
from safekey_interp.reporting.findings.phrases import and_list, capital

_NAME = "knockout"
_CONTROL = ("control", "control_low", "control_high")
_ZERO = Estimate(0.0, np.nan, np.nan)
_UNIT = "nats a token"


def controls_in_words(settings: Mapping[str, Any], effects: Table) -> str:
    """Which controls were measured, with their draws."""
    there = set(effects["control"])
    words = {
        OUTSIDE: f"as many random keys outside X, U and what is hidden ({settings.get('n_random')} draws)",
        DOSE: f"random quarters of the span ({settings.get('n_dose')} draws of each share)",
        SAME: f"the same span of {settings.get('n_donors')} other requests of each label, keys and values in its place",
    }
    return "; ".join(text for kind, text in words.items() if kind in there) or "none"


def find_effects(summary: Table, model: Mapping[str, Any]) -> Iterator[Finding]:
    """Of each span the largest effect of hiding it, and what stands beside it."""
    metric = METRICS[main_metric(_NAME, summary)]
    for span, rows in main_rows(_NAME, summary).groupby("to_span", sort=False):
        row = _largest(rows)
        number = estimate(row).of_largest(len(rows), row["n_groups"])
        picked = place_name(_NAME, row, model) + picked_of(len(rows))
        text = f"Hiding {series_name(_NAME, span)} moves {metric} by {number.text('+.2f')} {_UNIT} ({picked})"
        other, same = (_beside(summary, row, kind) for kind in (OTHER, SAME))
        if other and same and not _is_mixed(summary, row):
            text += (
                f"; with the same span of another request in its place it moves by {other.text('+.2f')} where that has "
                f"the other label, by {same.text('+.2f')} where it has the same one"
            )
        text += f", on {TRACES_OF[row['subset']]}."
        outside = _beside(summary, row, OUTSIDE)
        control = f"as many random keys outside X, U and what is hidden: {outside.text('+.2f')}" if outside else "none"
        yield Finding(question="did", text=text, n=int(row["n"]), control=control, short=text, **number.fields())


def find_pool(summary: Table) -> Iterator[Finding]:
    """How many traces have enough keys outside the tested spans for a control by random keys."""
    rows = main_rows(_NAME, summary)
    for span, part in rows.groupby("to_span", sort=False):
        row = part.loc[part["n_with_control"].idxmin()]
        n, there = int(row["n"]), 0 if row["control_kind"] != OUTSIDE else int(row["n_with_control"])
        if there == n:
            continue
        text = (
            f"{capital(series_name(_NAME, span))}: random keys outside every tested span are no control on "
            f"{n - there:,} of {n:,} traces, where fewer lie there (median {row['n_pool']:.0f}) than the span has keys "
            f"({row['n_k']:.0f}); no p and no excess for them."
        )
        yield Finding(question="chance", text=text, n=n, control="none")


def find_doses(summary: Table, model: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the effect rises with the share of the span that is hidden."""
    for span, rows in main_rows(_NAME, summary).groupby("to_span", sort=False):
        row = _largest(rows)
        wanted = [*((EFFECT, dose) for dose in DOSES), (SLOPE, 1.0), (CURVATURE, 1.0)]
        found = [_same_place(summary, row, measure, dose) for measure, dose in wanted]
        there = [one for one in found if one is not None and np.isfinite(one["value"])]
        if len(there) < len(wanted):
            continue
        *steps, slope, curvature = there
        number, bend = (estimate(one).of_largest(len(rows), one["n_groups"]) for one in (slope, curvature))
        shown = and_list([f"{one['value']:+.2f} ({one['dose']:.2f})" for one in (*steps, row)])
        verdict = f"the slope is {number.text('+.2f')} {_UNIT} for the whole span, {beside_zero(number)}"
        bent = f"all keys minus four times a quarter: {bend.text('+.2f')}, {beside_zero(bend)}"
        text = (
            f"{capital(series_name(_NAME, span))} hidden by quarters in {place_name(_NAME, row, model)}"
            f"{picked_of(len(rows))}: {shown}; {verdict}; {bent}."
        )
        yield Finding(
            question="chance",
            text=text,
            n=int(row["n"]),
            control="smaller doses",
            is_shown=is_off_zero(number),
            **number.fields(),
        )


def find_contrast(summary: Table, model: Mapping[str, Any], subset: str) -> Iterator[Finding]:
    """Whether it matters which kind of request the span in place comes from; of one label at a time."""
    rows = summary.loc[(summary["measure"] == CONTRAST) & (summary["metric"] == main_metric(_NAME, summary))]
    rows = rows.loc[(rows["subset"] == subset) & rows["value"].notna()]
    for span, part in rows.groupby("to_span", sort=False):
        row = _largest(part)
        number = estimate(row).of_largest(len(part), row["n_groups"])
        where = place_name(_NAME, row, model) + picked_of(len(part))
        text = (
            f"{capital(series_name(_NAME, span))} of another request in place, the other label’s minus the same "
            f"label’s: {number.text('+.2f')} {_UNIT} ({where}), {beside_zero(number)}, on {TRACES_OF[subset]}."
        )
        control = "another request of the same label"
        shown = is_off_zero(number)
        yield Finding(question="chance", text=text, n=int(row["n"]), control=control, is_shown=shown, **number.fields())


def picked_of(n_places: int) -> str:
    """What is said behind a place that was picked for its effect; its interval is :meth:`Estimate.of_largest`."""
    return f", the largest of {n_places}, with the interval of all {n_places} at once" if n_places > 1 else ""


def is_off_zero(number: Estimate) -> bool:
    """Whether an interval leaves 0 out."""
    return bool(number.lies(_ZERO))


def beside_zero(number: Estimate) -> str:
    """On which side of 0 an interval lies."""
    lies = number.lies(_ZERO)
    if not number.is_sure:
        return f"on fewer than {FEW} prompts, which says nothing about others"
    return f"{lies} 0" if lies else "not told apart from 0"


def _is_mixed(summary: Table, row: Row) -> bool:
    """Whether a row averages harmful and benign traces, on which another label's span pulls opposite ways."""
    return row["subset"] == "all" and {"harmful", "benign"} <= set(summary["subset"])


def _largest(rows: Table) -> Row:
    return rows.loc[rows["value"].abs().idxmax()]


_PLACE = ["from_span", "to_span", "layer", "n_layers", "head", "metric", "subset"]


def _same_place(summary: Table, row: Row, measure: str, dose: float) -> Row | None:
    rows = default_rows(summary.loc[(summary["measure"] == measure) & (summary["dose"] == dose)])
    rows = rows.loc[(rows[_PLACE] == row[_PLACE]).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def _beside(summary: Table, row: Row, kind: str) -> Estimate | None:
    """The control of a kind at a row's place; None where there is none."""
    rows = summary.loc[(summary["control_kind"] == kind) & (summary[_PLACE] == row[_PLACE]).all(axis=1)]
    if rows.empty or not np.isfinite(rows.iloc[0]["control"]):
        return None
    return estimate(rows.iloc[0], *_CONTROL)
