"""Sections of the page of a comparison, benchmarks in its folder among them."""

from __future__ import annotations

from collections.abc import Callable

from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import benchmark_rows, comparison_rows, page_text
from safekey_interp.reporting.pages import comparison_page_figures as plots
from safekey_interp.reporting.pages.comparison_page import ComparisonPage
from safekey_interp.reporting.pages.page_layout import filled
from safekey_interp.reporting.pages.page_sections import page_section
from safekey_interp.reporting.pages.probe_page_figures import Group
from safekey_interp.reporting.pages.rendering import Html, render
from safekey_interp.runs.run_folder import Run

_TITLES = QUESTIONS["comparison"]
_PROVENANCE = {"data": "Data", "settings": "Settings", "versions": "Versions", "timings": "Seconds"}
BENCHMARK_PROVENANCE = {"settings": "How benchmarks were asked", "versions": "Versions", "timings": "Seconds"}
"""Parts of a benchmark run's ``run.json``, with their captions."""


@page_section("comparison", name="did", title=_TITLES["did"], order=10)
def _did(page: ComparisonPage) -> Html:
    table = filled(page.run.comparison)
    group = None if table is None else plots.share_group(table, page.names, page.conditions)
    return render(
        "comparison_page",
        "did",
        is_kept=bool(page.manifest.get("settings", {}).get("keep_responses")),
        shares=page.figures(group, "comparison.parquet", "shares by model"),
    )


@page_section("comparison", name="what", title=_TITLES["what"], order=20)
def _what(page: ComparisonPage) -> Html:
    models = _group(page, plots.attention_group, page.run.comparison)
    layers = _group(page, plots.attention_layers_group, page.run.attention_by_layer)
    return _measured(page, "what", models, layers, word="attention", file="attention_by_layer.parquet")


@page_section("comparison", name="knew", title=_TITLES["knew"], order=30)
def _knew(page: ComparisonPage) -> Html:
    models = _group(page, plots.auroc_group, page.run.comparison)
    layers = _group(page, plots.auroc_layers_group, page.run.separability)
    return _measured(page, "knew", models, layers, word="AUROC", file="separability.parquet")


def _group(page: ComparisonPage, draw: Callable[[Table, list[str]], Group], table: Table | None) -> Group | None:
    return None if filled(table) is None else draw(table, page.names)


def _measured(
    page: ComparisonPage, block: str, models: Group | None, layers: Group | None, *, word: str, file: str
) -> Html:
    """A measure by model, and where the comparison has it, by layer."""
    shown_models = page.figures(models, "comparison.parquet", f"{word} by model")
    is_drawn = layers and any(panel.variants for panel in layers.panels)
    shown = page.figures(layers, file, f"{word} by layer") if is_drawn else None
    return render("comparison_page", block, models=shown_models, layers=shown)


@page_section("comparison", name="benchmarks", title=QUESTIONS["benchmarks"]["benchmarks"], order=40)
def _benchmarks(page: ComparisonPage) -> Html | None:
    run = page.run.evaluation
    if run is None:
        return None
    page.left_out += run.findings.get("left_out") or []
    names = benchmark_rows.names_in(run.benchmarks, page.names)
    file = "benchmarks.parquet"
    return render(
        "benchmarks_page",
        "benchmarks",
        notes=benchmark_rows.notes(run.manifest),
        scores=page.figures(benchmark_rows.group(run.benchmarks, names), file, "scores by benchmark"),
        findings=[finding.get("text", "") for finding in run.findings.get("findings") or []],
    )


@page_section("comparison", name="table", title="Every number", order=5)
def _table(page: ComparisonPage) -> Html:
    table = page.run.comparison
    is_there = table is not None and not table.empty
    return render(
        "comparison_page",
        "table",
        head=comparison_rows.head_of("Measure", page.names),
        rows=comparison_rows.comparison_rows(table, page.names, page.conditions) if is_there else None,
        benchmarks=None if page.run.evaluation is None else benchmark_table(page.run.evaluation, page.names),
    )


@page_section("comparison", "series", name="sides", title="Side by side", order=60)
def _sides(page: ComparisonPage) -> Html:
    return render("comparison_page", "sides", examples=comparison_rows.examples_of(page.run.side_by_side))


@page_section("comparison", "series", name="provenance", title="Where the numbers come from", order=100)
def _provenance(page: ComparisonPage) -> Html:
    run = page.run.evaluation
    return render(
        "comparison_page",
        "provenance",
        sources=comparison_rows.sources_of(page.manifest),
        rest=page_text.provenance(page.manifest, _PROVENANCE),
        benchmarks=None if run is None else benchmark_provenance(run),
    )


def benchmark_table(run: Run, names: list[str]) -> Html:
    """Every number of the benchmarks, models of ``names`` first."""
    if run.benchmarks is None or run.benchmarks.empty:
        return page_text.absent("benchmarks.parquet", "the table of benchmarks")
    names = benchmark_rows.names_in(run.benchmarks, names)
    head = comparison_rows.head_of("Benchmark: task, metric, harness", names)
    rows = benchmark_rows.benchmark_rows(run.benchmarks, names)
    return render("benchmarks_page", "table", head=head, rows=rows)


def benchmark_provenance(run: Run) -> Html:
    """The benchmarks, the models and everything else that run.json says."""
    rest = page_text.provenance(run.manifest, BENCHMARK_PROVENANCE)
    return render("benchmarks_page", "provenance", sources=benchmark_rows.sources_of(run.manifest), rest=rest)
