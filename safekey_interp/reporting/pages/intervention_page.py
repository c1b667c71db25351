"""Page of an intervention: what was changed, what that did, and whether it is more than chance."""

from __future__ import annotations

from functools import cached_property

from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.intervention_page_figures import effect_group, score_group
from safekey_interp.reporting.pages.page_layout import Page, filled
from safekey_interp.reporting.pages.page_strips import INTERVENTION
from safekey_interp.reporting.pages.probe_page_figures import Group
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.reporting.trace_effects import TraceEffects, trace_effects
from safekey_interp.runs.run_folder import Run


class InterventionPage(Page):
    """A page with the record of its intervention, the summary, and the findings that say what was changed."""

    strip = INTERVENTION

    def __init__(self, run: Run) -> None:
        super().__init__("intervention", run, page_text.public(run.manifest))
        self.intervention = find_intervention(self.manifest["intervention"]).named(self.manifest["settings"])
        self.is_plain = self.intervention.is_plain
        if self.is_plain:  # a switch of the built-in metrics
            self.manifest["settings"].pop("aha", None)
        self.summary: Table | None = filled(run.summary)
        findings = run.findings.get("findings") or []
        self.changes = [finding for finding in findings if finding.get("question") == "changed"]

    @cached_property
    def effects(self) -> Group | None:
        """Its figures with their choices; None without a summary."""
        if self.summary is None:
            return None
        if self.intervention.form == "scores":
            return score_group(self.summary, self.manifest["settings"]["align"])
        return effect_group(self.intervention, self.summary)

    @cached_property
    def moved(self) -> TraceEffects | None:
        """The effect on each trace."""
        return trace_effects(self.intervention, self.run.effects, self.summary)


drawn = InterventionPage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    model, n_read = page_text.model_of(page.manifest), (page.manifest.get("data") or {}).get("n_read")
    n = 0 if page.summary is None else int(page.summary["n"].max())
    before, _, behind = page.intervention.title.partition("{model}")
    header = rendered(
        "intervention_page",
        "header",
        date=page_text.date_of(page.manifest.get("created")),
        model=model,
        title=(before, behind),
        n=f"{page.changes[0]['n'] if page.changes else n:,}",
        n_read=f"{n_read:,}" if isinstance(n_read, int) else None,
        sources=page_text.sources_of(page.manifest),
    )
    name = (page.manifest.get("model") or {}).get("name") or "a model"
    notices = page_text.notices_of(page.manifest, model["is_toy"])
    return page.text(title=page.intervention.title.format(model=name), header=header, notices=notices)
