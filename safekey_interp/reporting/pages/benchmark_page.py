"""In which order does the page of benchmarks tell its story? What they say, every number, what failed, who made it."""

from __future__ import annotations

from safekey_interp.reporting.pages import benchmark_text, page_text
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.html import Html, el, island, join
from safekey_interp.reporting.pages.page_layout import Frame, Section, figures_of, static
from safekey_interp.runs.run_folder import Run


def render(run: Run) -> str:
    """The whole page as text."""
    manifest = run.manifest
    names = benchmark_text.names_in(run.benchmarks, [str(one.get("name")) for one in manifest.get("models") or []])
    group = benchmark_text.group(run.benchmarks, names)
    frame = Frame(
        title=f"{', '.join(names) or 'Models'} on benchmarks · safekey-interp",
        header=benchmark_text.header(manifest, names),
        scripts=("plots.js", "steps.js"),
        version=manifest.get("safekey_interp", ""),
    )
    sections = [
        Section("summary", "In short", [page_text.summary(run.findings, benchmark_text.QUESTIONS)]),
        Section(
            "benchmarks",
            benchmark_text.QUESTIONS["benchmarks"],
            [
                el("p", benchmark_text.HOW),
                benchmark_text.notes(manifest),
                figures_of(group, "benchmarks.parquet", "scores by benchmark"),
            ],
        ),
        Section("table", "Every number", [benchmark_text.everything(run.benchmarks, names)]),
        Section("left-out", "What was left out", [page_text.left_out(run.findings, manifest, ())]),
        Section("reading", "How to read this page", [Html(static("benchmark_reading.html"))]),
        Section("provenance", "Where the numbers come from", [join(*benchmark_text.provenance(manifest))]),
    ]
    return frame.page(sections, island("figures-data", embed([group] if group else [])))
