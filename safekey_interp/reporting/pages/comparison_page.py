"""Page of a comparison: what models or checkpoints did, what they attend to, what they know; then each prompt."""

from __future__ import annotations

from safekey_interp.models.organism import is_organism
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.page_layout import Page
from safekey_interp.reporting.pages.page_strips import COMPARISON, SERIES
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.runs.run_folder import Run


class ComparisonPage(Page):
    """A page with the names of its models; that of a series of checkpoints has sections and a strip of its own."""

    def __init__(self, run: Run) -> None:
        models = run.manifest.get("models") or []
        is_series = any("step" in model for model in models)
        super().__init__("series" if is_series else "comparison", run, page_text.public(run.manifest))
        self.strip = SERIES if is_series else COMPARISON
        self.names = [str(model.get("name")) for model in models]


drawn = ComparisonPage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    manifest = page.manifest
    is_toy = any(is_organism(str((m.get("model") or {}).get("spec"))) for m in manifest.get("models") or [])
    header = rendered(
        f"{page.kind}_page",
        "header",
        date=page_text.date_of(manifest.get("created")),
        names=page.names,
        n_read=(manifest.get("data") or {}).get("n_read", "?"),
        sources=page_text.sources_of(manifest),
    )
    whole = ", ".join(page.names) or "Models"
    title = f"{page.names[0]} to {page.names[-1]}" if page.kind == "series" else f"{whole} on the same prompts"
    return page.text(title=title, header=header, notices=page_text.notices_of(manifest, is_toy))
