"""Sections of the page of a comparison of checkpoints: lines over the steps of training."""

from __future__ import annotations

from collections.abc import Callable

from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import series_page_figures as plots
from safekey_interp.reporting.pages import series_rows
from safekey_interp.reporting.pages.comparison_page import ComparisonPage
from safekey_interp.reporting.pages.page_layout import filled
from safekey_interp.reporting.pages.page_sections import page_section
from safekey_interp.reporting.pages.probe_page_figures import Group
from safekey_interp.reporting.pages.rendering import Html, render

_TITLES = QUESTIONS["series"]


@page_section("series", name="table", title="Every number", order=5)
def _table(page: ComparisonPage) -> Html:
    table = filled(page.run.series)
    head = None if table is None else series_rows.series_head(table)
    rows = None if table is None else series_rows.series_rows(table, page.conditions)
    return render("series_page", "table", head=head, rows=rows)


@page_section("series", name="did", title=_TITLES["did"], order=10)
def _did(page: ComparisonPage) -> Html:
    return _over_steps(page, "did", plots.share_steps)


@page_section("series", name="what", title=_TITLES["what"], order=20)
def _what(page: ComparisonPage) -> Html:
    return _over_steps(page, "what", plots.attention_steps)


@page_section("series", name="knew", title=_TITLES["knew"], order=30)
def _knew(page: ComparisonPage) -> Html:
    return _over_steps(page, "knew", plots.auroc_steps)


def _over_steps(page: ComparisonPage, block: str, draw: Callable[[Table], Group]) -> Html:
    table = filled(page.run.series)
    shown = page.figures(None if table is None else draw(table), "series.parquet", "this by step")
    is_kept = bool(page.manifest.get("settings", {}).get("keep_responses"))
    return render("series_page", block, shown=shown, is_kept=is_kept)
