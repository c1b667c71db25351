"""Sections of the page of a probe run."""

from __future__ import annotations

from safekey_interp.reporting.labels import QUESTIONS
from safekey_interp.reporting.pages import attention_page_figures as looking
from safekey_interp.reporting.pages import controls_table, key_sentence_counts
from safekey_interp.reporting.pages import probe_page_figures as plots
from safekey_interp.reporting.pages.calibration_table import calibration
from safekey_interp.reporting.pages.latent_tables import latent_tables
from safekey_interp.reporting.pages.page_layout import filled
from safekey_interp.reporting.pages.page_sections import page_section
from safekey_interp.reporting.pages.probe_page import ProbePage
from safekey_interp.reporting.pages.rendering import Html, render
from safekey_interp.reporting.probe_rows import probe_rows

_TITLES, _OF_SPANS = QUESTIONS["probe"], QUESTIONS["spans"]


@page_section("probe", name="where", title=_TITLES["where"], order=10)
def _where(page: ProbePage) -> Html:
    traces = page.traces
    return render(
        "probe_page",
        "where",
        counts=None if traces is None or traces.empty else key_sentence_counts.in_words(traces),
        outcomes=key_sentence_counts.outcome_rows(traces, page.conditions),
        has_examples=bool(page.view.records),
        kinds=page.view.words.kinds,
    )


@page_section("spans", name="what", title=_OF_SPANS["what"], order=20)
@page_section("probe", name="what", title=_TITLES["what"], order=20)
def _what(page: ProbePage) -> Html | None:
    if page.spans.pairs is None:
        return None
    words, looks = looking.subset_names(page.conditions, page.names), looking.span_choices(page.names, page.spans)
    by_head, by_layer = filled(page.run.attention_by_head), filled(page.run.attention_by_layer)
    lift = None if by_head is None else looking.lift_group(by_head, words, looks)
    mass = None if by_layer is None else looking.mass_group(by_layer, words, looks)
    return render(
        f"{page.kind}_page",
        "what",
        lift=page.figures(lift, "attention_by_head.parquet", "lift by layer and head"),
        mass=page.figures(mass, "attention_by_layer.parquet", "attention mass by layer"),
        has_layers=by_layer is not None,
        paper=None if by_layer is None else controls_table.paper_measure(by_layer, words),
        has_examples=bool(page.view.records),
        kinds=page.view.words.kinds,
    )


@page_section("spans", name="knew", title=_OF_SPANS["knew"], order=30)
@page_section("probe", name="knew", title=_TITLES["knew"], order=30)
def _knew(page: ProbePage) -> Html | None:
    run = page.run
    if not page.spans.positions:
        return None
    separability, transfer, coordinates, traces = run.separability, run.transfer, page.coordinates, page.traces
    inner = across = scatter = None
    if separability is not None and (separability["method"] != "text_tfidf").any():
        inner = plots.separability_group(separability, page.names)
    if transfer is not None and len(probe_rows(transfer)):
        across = plots.transfer_group(transfer, page.names)
    if filled(coordinates) is not None:
        texts = {} if traces is None else dict(zip(traces["trace_id"], traces["prompt"].astype(str), strict=True))
        scatter = plots.scatter_group(coordinates, texts, separability, page.names)
    return render(
        "probe_page",
        "knew",
        calibration=calibration(separability, page.names),
        probes=page.figures(inner, "separability.parquet", "separability by layer and position"),
        across=across and page.figures(across, "transfer.parquet", "transfer between conditions"),
        scatter=page.figures(scatter, "coordinates.parquet", "the scatter of traces"),
    )


@page_section("spans", "probe", name="latents", title="Which latents of the SAE tell them apart?", order=35)
def _latents(page: ProbePage) -> Html | None:
    run = page.run
    found = latent_tables(run.sae_latents, run.sae_separability, run.separability, page.names)
    return None if found is None else render("probe_page", "latents", **found)


@page_section("spans", name="chance", title=_OF_SPANS["chance"], order=40)
@page_section("probe", name="chance", title=_TITLES["chance"], order=40)
def _chance(page: ProbePage) -> Html:
    run = page.run
    tables = run.attention_by_layer, run.separability, run.transfer
    lists = controls_table.beside_controls(*tables, page.conditions, page.names)
    return render("probe_page", "chance", lists=lists, probe=page.probe)
