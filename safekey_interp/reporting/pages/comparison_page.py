"""Page of a comparison: what the models did, what they attend to, what their states know; then each prompt."""

from __future__ import annotations

from safekey_interp.models.organism import is_organism
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.page_layout import Page
from safekey_interp.reporting.pages.page_strips import COMPARISON
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.runs.run_folder import Run


class ComparisonPage(Page):
    """A page with the names of its models."""

    strip = COMPARISON

    def __init__(self, run: Run) -> None:
        super().__init__("comparison", run, page_text.public(run.manifest))
        self.names = [str(model.get("name")) for model in self.manifest.get("models") or []]


drawn = ComparisonPage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    manifest = page.manifest
    is_toy = any(is_organism(str((m.get("model") or {}).get("spec"))) for m in manifest.get("models") or [])
    header = rendered(
        "comparison_page",
        "header",
        date=page_text.date_of(manifest.get("created")),
        names=page.names,
        n_read=(manifest.get("data") or {}).get("n_read", "?"),
        sources=page_text.sources_of(manifest),
    )
    title = f"{', '.join(page.names) or 'Models'} on the same prompts"
    return page.text(title=title, header=header, notices=page_text.notices_of(manifest, is_toy))
