"""Page of a training run: what was trained, which losses fell, what moved, and which changes chance would give."""

from __future__ import annotations

from safekey_interp.reporting.pages import page_text, training_facts
from safekey_interp.reporting.pages.page_layout import Page, filled
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.reporting.pages.training_controls import changes
from safekey_interp.runs.run_folder import Run


class TrainingPage(Page):
    """A page with the changes from the first snapshot to the last."""

    def __init__(self, run: Run) -> None:
        super().__init__("training", run, page_text.public(run.manifest))
        self.changes = changes(*(filled(table) for table in (run.aha, run.attention_by_layer, run.separability)))


drawn = TrainingPage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    name = (page.manifest.get("model") or {}).get("name") or "a model"
    header = rendered("training_page", "header", **training_facts.header_facts(page.manifest))
    return page.text(title=f"What training changed in {name}", header=header, scripts=("plots.js", "steps.js"))
