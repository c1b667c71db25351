"""Sections that pages of several kinds have: the summary, what was left out, how to read it, where it comes from."""

from __future__ import annotations

from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.page_layout import Page
from safekey_interp.reporting.pages.page_sections import page_section
from safekey_interp.reporting.pages.rendering import Html, render


@page_section(*QUESTIONS, name="summary", title="All findings", order=0)
def _summary(page: Page) -> Html:
    return page_text.summary(page.findings, QUESTIONS[page.kind])


@page_section(*(kind for kind in QUESTIONS if kind != "training"), name="left-out", title="What was left out", order=80)
def _left_out(page: Page) -> Html:
    rows = [*(page.run.findings.get("left_out") or []), *page.left_out]
    return page_text.left_out(rows, page.manifest, [*(page.run.findings.get("notes") or []), *page.notes])


@page_section(*QUESTIONS, name="reading", title="How to read this page", order=90)
def _reading(page: Page) -> Html:
    return render(f"{page.kind}_page", "reading", classes=page.classes, probe=page.probe, is_plain=page.is_plain)


@page_section(
    "probe", "spans", "training", "intervention", name="provenance", title="Where the numbers come from", order=100
)
def _provenance(page: Page) -> Html:
    return page_text.provenance(page.manifest, PROVENANCE[page.kind])


PROVENANCE = {
    "probe": page_text.PROVENANCE,
    "spans": page_text.PROVENANCE,
    "training": {
        "model": "Model before training",
        "data": "Data",
        "settings": "Settings",
        "schedule": "Schedule, in steps",
        "way": "How K is predicted with the prompt masked",
        "plan": "Processes",
        "versions": "Versions",
    },
    "intervention": page_text.PROVENANCE | {"plan": "Plan"},
}
"""Parts of ``run.json`` by kind of page, with their captions."""
