"""Sections of the page of an intervention."""

from __future__ import annotations

from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import intervention_tables as tables
from safekey_interp.reporting.pages.intervention_page import InterventionPage
from safekey_interp.reporting.pages.intervention_page_figures import effect_group, score_group
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
    group = None
    if page.summary is not None and page.intervention.form == "scores":
        group = score_group(page.summary, page.manifest["settings"]["align"])
    elif page.summary is not None:
        group = effect_group(page.intervention, page.summary)
    figures = page.figures(group, "summary.parquet", "effects" if group else "what the intervention did")
    return render("intervention_page", "did", reading=page.intervention.reading, figures=figures)


@page_section("intervention", name="chance", title=_TITLES["chance"], order=30)
def _chance(page: InterventionPage) -> Html:
    if page.summary is None:
        return part("absent", "summary.parquet", "effects beside their controls")
    if page.intervention.form == "scores":
        return render("intervention_page", "scores", table=tables.score_table(page.summary))
    about = (page.intervention, page.summary, page.manifest)
    excesses, knockout = tables.excess_tables(*about), knockout_tables(*about)
    return render("intervention_page", "chance", excesses=excesses, knockout=knockout, is_plain=page.is_plain)
