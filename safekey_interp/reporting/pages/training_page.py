"""Page of a training run: what was trained, which losses fell, what moved, and which changes chance would give."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from safekey_interp.reporting.findings.training_findings import findings as find
from safekey_interp.reporting.pages import page_text, training_facts
from safekey_interp.reporting.pages.page_layout import Page, filled
from safekey_interp.reporting.pages.page_strips import TRAINING
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.reporting.pages.training_controls import changes
from safekey_interp.reporting.pages.training_page_figures import terms_of
from safekey_interp.runs.run_folder import Run


class TrainingPage(Page):
    """A page with the changes from the first snapshot to the last."""

    strip = TRAINING

    def __init__(self, run: Run) -> None:
        super().__init__("training", run, page_text.public(run.manifest))
        self.changes = changes(*(filled(table) for table in (run.aha, run.attention_by_layer, run.separability)))

    @cached_property
    def findings(self) -> dict[str, Any]:
        """Its findings, which are found when the page is drawn."""
        terms = terms_of(self.manifest.get("settings") or {})
        return find(self.manifest, filled(self.run.steps), filled(self.run.held_out), terms, self.changes)


drawn = TrainingPage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    name = (page.manifest.get("model") or {}).get("name") or "a model"
    header = rendered("training_page", "header", **training_facts.header_facts(page.manifest))
    notices = training_facts.notices(page.manifest)
    return page.text(title=f"What training changed in {name}", header=header, notices=notices)
