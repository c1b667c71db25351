"""Tables of effects and scores beside their controls, and of settings, for the page of an intervention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.data.conditions import FEW
from safekey_interp.interventions.donors import RESAMPLING
from safekey_interp.interventions.effects import TESTED
from safekey_interp.measures.step_down import LEVEL
from safekey_interp.measures.trajectory import trajectory_controls
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.beside_draws import draws_needed, is_beyond_draws
from safekey_interp.reporting.findings.effect_size import smallest_of, verdict_of
from safekey_interp.reporting.findings.finding import Estimate, estimate
from safekey_interp.reporting.findings.phrases import capital
from safekey_interp.reporting.pages.page_text import value_text
from safekey_interp.reporting.pages.rendering import Cell, data

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention

_MOST = 40
"""Rows of a table; more tell a reader no more."""
_EVERY = 10
_SHARED = {
    "max_length": "Most tokens of a trace; longer ones are left out.",
    "finder": "How U and K are found.",
}
"""Settings of every intervention."""


def setting_rows(intervention: Intervention, manifest: Mapping[str, Any]) -> list[list[str | Cell]]:
    """The settings that say what was done: name, value and meaning."""
    settings, options = manifest.get("settings") or {}, intervention.options
    shown = [option for option in options if option.type is not bool and option.reads != "key_sentences"]
    texts = {option.name: option.help for option in shown} | _SHARED
    if intervention.is_plain:  # examples of values, behind a colon, name spans of the built-in question
        texts = {name: f"{text.partition(':')[0].removesuffix('.')}." for name, text in texts.items()}
        texts |= {option.name: option.plain_help for option in shown if option.plain_help}
        texts |= {"finder": "How sentences are found."}
    return [[name, Cell(_value(settings[name]), is_code=True), texts[name]] for name in texts if name in settings]


def excess_tables(intervention: Intervention, summary: Table, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every effect beside each kind of control that it has."""
    tables = []
    asked = [(part, kind) for part in terms.by_metric(summary) for kind in part["control_kind"].unique()]
    for part, kind in asked:
        rows = terms.main_rows(intervention, part, kind=kind)
        if kind not in (TESTED, *RESAMPLING) and not rows.empty:
            caption = table_caption(intervention, part, terms.main_subset(part))
            about = {"caption": caption, "control": terms.control_name(kind, intervention)}
            tables.append(about | _excess_table(intervention, rows, manifest, terms.unit_of(intervention, summary)))
    return tables


def _excess_table(intervention: Intervention, places: Table, manifest: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Beside one kind of control, the largest excess first where there are many places."""
    rows, n_places, by_draws = largest(places, "excess"), len(places), intervention.shared_draws
    p_value = "p_value_over_all"
    has_p = p_value in rows.columns
    n_draws = int(rows["n_controls"].max()) if has_p else 0
    body, smallest = [], smallest_of(unit)
    for _, row in rows.iterrows():
        excess = estimate(row, *terms.EXCESS)
        p = [f"{row[p_value]:.2g}" if np.isfinite(row[p_value]) else "n/a"] if has_p else []
        verdict = _beyond(row) if by_draws else _verdict(excess, row, n_places, smallest)
        numbers = map(table_number, (estimate(row), estimate(row, *terms.CONTROL), excess))
        body.append([row_name(intervention, row, manifest), *numbers, *p, verdict, f"{int(row['n']):,}"])
    return {
        "rows": body,
        "n_places": n_places,
        "has_p": has_p,
        "by_draws": by_draws,
        "n_draws": n_draws,
        "smallest_p": f"{1 / (1 + n_draws):.2g}",
        "level": f"{LEVEL:g}",
        "smallest": f"{smallest:g} {unit}" if smallest else "",
        "needed": draws_needed(n_draws, str(rows["control_kind"].iloc[0])) if has_p else "",
    }


def score_table(summary: Table) -> dict[str, Any]:
    """Each class at every tenth offset, and before the point of alignment, beside control directions."""
    labels, kinds, pair = list(dict.fromkeys(summary["label"])), trajectory_controls(summary), terms.classes_in(summary)
    readers = terms.readers_in(summary)
    several = len(readers) > 1
    body = []
    for (reader, offset), part in summary.groupby(["reader", "offset"]):
        if offset % _EVERY and offset != -1:
            continue
        numbers = {label: estimate(row, "score") for label, row in part.set_index("label").iterrows()}
        cells = [table_number(numbers[label]) if label in numbers else "n/a" for label in labels]
        high, low = map(numbers.get, pair)
        apart = "n/a" if high is None or low is None else high.lies(low) or "not told apart"
        beside = [f"{part[f'{kind}_mean'].mean():.3f} ± {1.96 * part[f'{kind}_sd'].mean():.3f}" for kind in kinds]
        where = f"{int(offset):+d}" + f", {readers[int(reader)]}" * several
        apart = [apart] if pair.positive else []
        body.append([where, *cells, *beside, *apart, ", ".join(f"{int(n):,}" for n in part["n"])])
    head = [
        *map(data, labels),
        *map(terms.control_name, kinds),
        *([f"{terms.label_start(pair.positive)} lies"] * bool(pair.positive)),
    ]
    return {"head": head, "pair": pair, "rows": body}


def largest(rows: Table, column: str, most: int = _MOST) -> Table:
    """The rows that are furthest from 0 in a column; all of them, in their order, where they are few."""
    if len(rows) <= most:
        return rows
    return rows.loc[rows[column].abs().sort_values(ascending=False, kind="stable").index[:most]]


def row_name(intervention: Intervention, row: Any, manifest: Mapping[str, Any]) -> str:
    """The line and the place of a summary's row."""
    parts = (terms.line_name(intervention, row), terms.place_name(intervention, row, manifest.get("model") or {}))
    return ", ".join(filter(None, parts))


def table_caption(intervention: Intervention, summary: Table, subset: str) -> str:
    """Metric, unit and traces of a table."""
    metric = terms.metric_name(intervention, terms.main_metric(intervention, summary))
    named = (metric, terms.unit_of(intervention, summary), terms.traces_of(subset))
    text = ", ".join(part for part in named if part)
    return text if intervention.is_plain else capital(text)


def table_number(number: Estimate) -> str:
    """In one line, however narrow the page."""
    return number.text(".3f").replace(" ", "\u00a0") if np.isfinite(number.value) else "n/a"


_VERDICTS = {"above": "above 0", "below": "below 0", "too small": "too small to matter", "too few": "too few prompts"}
"""Verdicts in a cell; others as they are."""


def _verdict(excess: Estimate, row: Any, n_places: int, smallest: float | None) -> str:
    verdict = verdict_of(excess.of_largest(n_places, row["n_groups"]), smallest)
    return _VERDICTS.get(verdict, verdict)


def _beyond(row: Any) -> str:
    if row["n_groups"] < FEW:
        return "too few prompts"
    return "beyond them" if is_beyond_draws(row) else "not told apart"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value.get('kind', '')} of layer {value.get('layer')} at {value.get('position') or 'unknown position'}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return value_text(value)
