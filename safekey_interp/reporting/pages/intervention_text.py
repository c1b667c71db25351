"""Texts and tables of the page of an intervention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.data.conditions import FEW, TRACES_OF
from safekey_interp.interventions.donors import RESAMPLING
from safekey_interp.interventions.effects import TESTED
from safekey_interp.measures.trajectory import trajectory_controls
from safekey_interp.models.organism import is_organism
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.finding import Estimate, estimate
from safekey_interp.reporting.findings.intervention_findings import LEVEL, is_beyond_draws
from safekey_interp.reporting.findings.phrases import capital
from safekey_interp.reporting.pages.html import Html, data, el, join, table
from safekey_interp.reporting.pages.page_text import file_names, opening

if TYPE_CHECKING:
    from safekey_interp.interventions.intervention_record import Intervention, Option

QUESTIONS = {
    "changed": "What was changed?",
    "did": "What did it do?",
    "chance": "More than chance?",
}
PROVENANCE = {
    "model": "Model",
    "data": "Data",
    "settings": "Settings",
    "plan": "Plan",
    "versions": "Versions",
    "timings": "Seconds",
}
_MOST = 40
"""Rows of the table of chance; more tell a reader no more."""
_EVERY = 10
_SHARED = {
    "max_length": "Most tokens of a trace; longer ones are left out.",
    "finder": "How U and K are found.",
}
"""Settings of every intervention."""


def header(intervention: Intervention, manifest: Mapping[str, Any], n: int) -> Html:
    """Title, what the page is, and the facts of the run in one list."""
    model, source = manifest.get("model") or {}, manifest.get("data") or {}
    name = model.get("name") or model.get("spec") or "the model"
    files = ", ".join(file_names(source.get("sources"))) or "an unnamed source"
    read = source.get("n_read")
    facts = [
        ("Model", join(data(name), f", {model.get('n_layers', '?')} layers × {model.get('n_heads', '?')} heads")),
        ("Traces", join(f"{n:,} measured of {read:,} from " if isinstance(read, int) else f"{n:,} from ", data(files))),
    ]
    before, _, behind = intervention.title.partition("{model}")
    return opening(
        manifest,
        eyebrow="safekey-interp intervention report",
        title=el("h1", before, data(name), behind),
        facts=facts,
        lead=(
            "",
            "; the next sentence, ",
            ", decides. This page shows what was done to the model while it read these traces, what that did, and what "
            "the same did where it should not matter.",
        ),
        is_toy=is_organism(str(model.get("spec"))),
    )


def changed(
    intervention: Intervention, manifest: Mapping[str, Any], findings: Mapping[str, Any] | None
) -> list[Html | None]:
    """What was done, in words, and the settings that say it."""
    changes = [f for f in (findings or {}).get("findings") or [] if f.get("question") == "changed"]
    settings = manifest.get("settings") or {}
    texts = {option.name: option.help for option in intervention.options if _is_shown(option)} | _SHARED
    rows: list[list[object]] = [
        [name, el("code", data(_value(settings[name]))), text] for name, text in texts.items() if name in settings
    ]
    return [
        *(el("p", data(f.get("text", "")), " Control: ", data(f.get("control", "")), ".") for f in changes),
        table(["Setting", "Value", "What it is"], rows, caption="The settings that matter; all are at the page’s end")
        if rows
        else None,
    ]


def _is_shown(option: Option) -> bool:
    return option.type is not bool and option.reads != "key_sentences"


def excess_table(intervention: Intervention, summary: Table, manifest: Mapping[str, Any]) -> Html:
    """Every effect beside its control, the largest excess first where there are many."""
    kinds = [kind for kind in summary["control_kind"].unique() if kind not in (TESTED, *RESAMPLING)]
    tables = [_excess_table(intervention, summary, manifest, kind) for kind in kinds]
    if not any(tables):
        return el("p", "This run has no control to compare with.", class_="absent")
    return join(*(each for each in tables if each))


def _excess_table(intervention: Intervention, summary: Table, manifest: Mapping[str, Any], kind: str) -> Html | None:
    """Beside one kind of control; None where no place has it."""
    rows = terms.main_rows(intervention, summary, kind=kind)
    if rows.empty:
        return None
    n_places = len(rows)
    if n_places > _MOST:
        rows = rows.loc[rows["excess"].abs().sort_values(ascending=False, kind="stable").index[:_MOST]]
    by_draws = intervention.shared_draws
    with_p = "p_value_over_all" if by_draws else "p_value" if "p_value" in rows.columns else ""
    body: list[list[object]] = []
    for _, row in rows.iterrows():
        excess = estimate(row, *terms.EXCESS)
        numbers = [table_number(number) for number in (estimate(row), estimate(row, *terms.CONTROL), excess)]
        p = [f"{row[with_p]:.2g}" if np.isfinite(row[with_p]) else "n/a"] if with_p else []
        where = row_name(intervention, row, manifest)
        verdict = _beyond(row) if by_draws else _verdict(excess, row, n_places)
        body.append([where, *numbers, *p, verdict, f"{int(row['n']):,}"])
    head = [
        "Where",
        "Measured",
        "Control",
        "Excess",
        *(["p"] if with_p else []),
        "Among the draws" if by_draws else "Excess lies",
        "n",
    ]
    caption = f"{table_caption(intervention, summary, terms.main_subset(summary))}; control: {terms.control_name(kind)}"
    notes = ["Excess is measured minus control, trace by trace."]
    if by_draws:
        n = int(rows["n_controls"].max())
        notes.append(
            f"Every trace has the same {n} control directions, so that the interval of the excess leaves out how "
            f"these differ: p is the rank of the measured effect among theirs, at least {1 / (1 + n):.2g}, with the "
            f"largest of all layers for each; beyond them when p is at most {LEVEL:g}."
        )
    else:
        notes.append(
            "It lies above or below 0 when its 95 % interval leaves 0 out"
            + f", widened to hold for all {n_places} places at once (Bonferroni)" * (n_places > 1)
            + "; the intervals shown are each of one place."
        )
    if with_p and not by_draws:
        n = int(rows["n_controls"].max())
        notes.append(
            f"p is over the draws of the control, at least {1 / (1 + n):.2g} with {n} of them, for one place chosen "
            f"beforehand; for the best of these {n_places} places, multiply it by {n_places}."
        )
    if n_places > _MOST:
        notes.append(f"The {_MOST} largest of {n_places}; all are in summary.parquet.")
    return join(table(head, body, caption=caption), el("p", " ".join(notes), class_="muted"))


def score_table(summary: Table) -> Html:
    """Each class at every tenth offset, and before the point of alignment, beside control directions."""
    labels = list(dict.fromkeys(summary["label"]))
    body: list[list[object]] = []
    kinds = trajectory_controls(summary)
    several = summary["reader"].nunique() > 1
    for (reader, offset), part in summary.groupby(["reader", "offset"]):
        if offset % _EVERY and offset != -1:
            continue
        by_label = part.set_index("label")
        numbers = {
            label: estimate(by_label.loc[label], "score") if label in by_label.index else None for label in labels
        }
        cells = ["n/a" if number is None else table_number(number) for number in numbers.values()]
        where = f"{int(offset):+d}" + f", reader {int(reader)}" * several
        harmful, benign = numbers.get("harmful"), numbers.get("benign")
        apart = "n/a" if harmful is None or benign is None else harmful.lies(benign) or "not told apart"
        beside = [f"{part[f'{kind}_mean'].mean():.3f} ± {1.96 * part[f'{kind}_sd'].mean():.3f}" for kind in kinds]
        body.append([where, *cells, *beside, apart, ", ".join(f"{int(n):,}" for n in part["n"])])
    head = ["Offset", *(data(label) for label in labels), *map(terms.control_name, kinds), "Harmful lies", "n"]
    note = (
        "Controls: mean ± 1.96 standard deviations over their draws, on the same states. "
        "“Above” and “below” mean that the 95 % intervals of harmful and benign traces do not touch. Offsets of one "
        "trace are not independent of one another."
    )
    return join(table(head, body, caption="Mean score by offset"), el("p", note, class_="muted"))  # type: ignore[arg-type]


def row_name(intervention: Intervention, row: Any, manifest: Mapping[str, Any]) -> Html:
    """The line and the place of a summary's row."""
    parts = (terms.line_name(intervention, row), terms.place_name(intervention, row, manifest.get("model") or {}))
    return data(", ".join(part for part in parts if part))


def table_caption(intervention: Intervention, summary: Table, subset: str) -> str:
    """Metric, unit and traces of a table."""
    metric = terms.metric_name(terms.main_metric(intervention, summary))
    return capital(", ".join(part for part in (metric, intervention.unit, TRACES_OF[subset]) if part))


def table_number(number: Estimate) -> str:
    """In one line, however narrow the page."""
    return number.text(".3f").replace(" ", "\u00a0") if np.isfinite(number.value) else "n/a"


def _verdict(excess: Estimate, row: Any, n_places: int) -> str:
    if not excess.is_sure:
        return "too few prompts"
    lies = excess.of_largest(n_places, row["n_groups"]).lies(Estimate(0.0, np.nan, np.nan))
    return f"{lies} 0" if lies else "not told apart"


def _beyond(row: Any) -> str:
    if row["n_groups"] < FEW:
        return "too few prompts"
    return "beyond them" if is_beyond_draws(row) else "not told apart"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return f"{value.get('kind', '')} of layer {value.get('layer')} at {value.get('position') or 'unknown position'}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
