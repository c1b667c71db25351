"""In which order does the page of benchmarks tell its story? What they say, every number, what failed, who made it."""

from __future__ import annotations

from safekey_interp.report import benchmark_story, story
from safekey_interp.report.benchmark_story import BenchmarkTables
from safekey_interp.report.embedding import embed
from safekey_interp.report.frame import Frame, Section, figures_of, static
from safekey_interp.report.markup import Html, el, island, join


def render(run: BenchmarkTables) -> str:
    """The whole page as text."""
    manifest = run.manifest
    names = benchmark_story.names_in(run.benchmarks, [str(one.get("name")) for one in manifest.get("models") or []])
    group = benchmark_story.group(run.benchmarks, names)
    frame = Frame(
        title=f"{', '.join(names) or 'Models'} on benchmarks · safekey-interp",
        header=benchmark_story.header(manifest, names),
        scripts=("plots.js", "steps.js"),
        version=manifest.get("safekey_interp", ""),
    )
    sections = [
        Section("summary", "In short", [story.summary(run.findings, benchmark_story.QUESTIONS)]),
        Section(
            "benchmarks",
            benchmark_story.QUESTIONS["benchmarks"],
            [
                el("p", benchmark_story.HOW),
                benchmark_story.notes(manifest),
                figures_of(group, "benchmarks.parquet", "scores by benchmark"),
            ],
        ),
        Section("table", "Every number", [benchmark_story.everything(run.benchmarks, names)]),
        Section("left-out", "What was left out", [story.left_out(run.findings, manifest, ())]),
        Section("reading", "How to read this page", [Html(static("benchmark_reading.html"))]),
        Section("provenance", "Where the numbers come from", [join(*benchmark_story.provenance(manifest))]),
    ]
    return frame.page(sections, island("figures-data", embed([group] if group else [])))
