"""Sections of the page of an intervention."""

from __future__ import annotations

import math

from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import intervention_tables as tables
from safekey_interp.reporting.pages.intervention_page import InterventionPage
from safekey_interp.reporting.pages.knockout_tables import knockout_tables
from safekey_interp.reporting.pages.page_sections import page_section
from safekey_interp.reporting.pages.rendering import Html, part, render

_TITLES = QUESTIONS["intervention"]


@page_section("intervention", name="changed", title=_TITLES["changed"], order=10)
def _changed(page: InterventionPage) -> Html:
    settings = tables.setting_rows(page.intervention, page.manifest)
    return render("intervention_page", "changed", changes=page.changes, settings=settings)


@page_section("intervention", name="did", title=_TITLES["did"], order=20)
def _did(page: InterventionPage) -> Html:
    figures = page.figures(page.effects, "summary.parquet", "effects" if page.effects else "what the intervention did")
    return render("intervention_page", "did", reading=page.intervention.reading, figures=figures)


@page_section("intervention", name="moved", title="Which trace moved most?", order=25)
def _moved(page: InterventionPage) -> Html | None:
    if page.moved is None:
        return None
    row, trace, texts = page.moved.row, page.moved.most, page.run.most_moved
    is_it = texts.get("trace_id") == trace["trace_id"]
    return render(
        "intervention_page",
        "moved",
        trace=trace,
        texts={name: is_it and texts.get(name) for name in ("prompt", "understanding", "key_sentence")},
        measured=f"{trace['effect']:+.3f}",
        beside=f"{trace['control']:+.3f}" if math.isfinite(trace["control"]) else "",
        control=terms.control_name(row["control_kind"], page.intervention),
        unit=terms.unit_of(page.intervention, page.summary),
        place=tables.row_name(page.intervention, row, page.manifest),
        n=f"{len(page.moved.table):,}",
        is_plain=page.is_plain,
    )


@page_section("intervention", name="chance", title=_TITLES["chance"], order=30)
def _chance(page: InterventionPage) -> Html:
    if page.summary is None:
        return part("absent", "summary.parquet", "effects beside their controls")
    if page.intervention.form == "scores":
        return render("intervention_page", "scores", table=tables.score_table(page.summary))
    about = (page.intervention, page.summary, page.manifest)
    excesses, knockout = tables.excess_tables(*about), knockout_tables(*about)
    return render("intervention_page", "chance", excesses=excesses, knockout=knockout, is_plain=page.is_plain)
