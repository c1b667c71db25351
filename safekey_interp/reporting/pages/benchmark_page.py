"""Page of benchmarks: what they say, every number, what failed, and who made them."""

from __future__ import annotations

from safekey_interp.models.organism import is_organism
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.benchmark_rows import names_in
from safekey_interp.reporting.pages.page_layout import Page
from safekey_interp.reporting.pages.page_strips import BENCHMARKS
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.runs.run_folder import Run


class BenchmarkPage(Page):
    """A page with the names of its models."""

    strip = BENCHMARKS

    def __init__(self, run: Run) -> None:
        super().__init__("benchmarks", run, run.manifest)
        models = self.manifest.get("models") or []
        self.names = names_in(run.benchmarks, [str(model.get("name")) for model in models])


drawn = BenchmarkPage.drawn


def render(run: Run) -> str:
    """The whole page as text."""
    page = drawn(run)
    is_toy = any(is_organism(str(model.get("spec"))) for model in page.manifest.get("models") or [])
    header = rendered(
        "benchmarks_page",
        "header",
        date=page_text.date_of(page.manifest.get("created")),
        names=page.names,
        benchmarks=", ".join(str(entry.get("name")) for entry in page.manifest.get("benchmarks") or []) or "none",
    )
    title = f"{', '.join(page.names) or 'Models'} on benchmarks"
    return page.text(title=title, header=header, notices=page_text.notices_of(page.manifest, is_toy))
