"""Page of an intervention: what was changed, what that did, and whether it is more than chance."""

from __future__ import annotations

from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.page_layout import Page, filled
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.runs.run_folder import Run


class InterventionPage(Page):
    """A page with the record of its intervention, the summary, and the findings that say what was changed."""

    def __init__(self, run: Run) -> None:
        super().__init__("intervention", run, page_text.public(run.manifest))
        self.intervention = find_intervention(self.manifest["intervention"]).named(self.manifest["settings"])
        self.is_plain = self.intervention.is_plain
        if self.is_plain:  # a switch of the built-in metrics
            self.manifest["settings"].pop("aha", None)
        self.summary: Table | None = filled(run.summary)
        findings = run.findings.get("findings") or []
        self.changes = [finding for finding in findings if finding.get("question") == "changed"]


drawn = InterventionPage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    model, n_read = page_text.model_of(page.manifest), (page.manifest.get("data") or {}).get("n_read")
    n = 0 if page.summary is None else int(page.summary["n"].max())
    before, _, behind = page.intervention.title.partition("{model}")
    header = rendered(
        "intervention_page",
        "plain_header" if page.intervention.is_plain else "header",
        opening=page_text.facts_of(page.manifest, model["is_toy"]),
        model=model,
        title=(before, behind),
        n=f"{page.changes[0]['n'] if page.changes else n:,}",
        n_read=f"{n_read:,}" if isinstance(n_read, int) else None,
        sources=page_text.sources_of(page.manifest),
    )
    name = (page.manifest.get("model") or {}).get("name") or "a model"
    return page.text(title=page.intervention.title.format(model=name), header=header, scripts=("plots.js", "steps.js"))
