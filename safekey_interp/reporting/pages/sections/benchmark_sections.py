"""Sections of the page of benchmarks."""

from __future__ import annotations

from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import benchmark_rows
from safekey_interp.reporting.pages.benchmark_page import BenchmarkPage
from safekey_interp.reporting.pages.page_sections import page_section
from safekey_interp.reporting.pages.rendering import Html, render
from safekey_interp.reporting.pages.sections.comparison_sections import benchmark_provenance, benchmark_table


@page_section("benchmarks", name="benchmarks", title=QUESTIONS["benchmarks"]["benchmarks"], order=10)
def _benchmarks(page: BenchmarkPage) -> Html:
    group = benchmark_rows.group(page.run.benchmarks, page.names)
    return render(
        "benchmarks_page",
        "benchmarks",
        notes=benchmark_rows.notes(page.manifest),
        scores=page.figures(group, "benchmarks.parquet", "scores by benchmark"),
        findings=[],
    )


@page_section("benchmarks", name="table", title="Every number", order=5)
def _table(page: BenchmarkPage) -> Html:
    return benchmark_table(page.run, page.names)


@page_section("benchmarks", name="provenance", title="Where the numbers come from", order=100)
def _provenance(page: BenchmarkPage) -> Html:
    return benchmark_provenance(page.run)
