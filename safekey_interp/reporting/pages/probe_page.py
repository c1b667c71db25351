"""Page of a probe run: where the model decides, on what, what its states know, and what chance would give."""

from __future__ import annotations

from typing import Any

from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages import page_text, token_view
from safekey_interp.reporting.pages.page_layout import Page
from safekey_interp.reporting.pages.rendering import island
from safekey_interp.reporting.pages.rendering import render as rendered
from safekey_interp.runs.run_folder import Run

# The response and the free-form fields stay on disk: the page quotes prompt, understanding and key sentence.
_TRACE_COLUMNS = (
    *("trace_id", "prompt", "label", "source", "group", "condition", "family", "region", "understanding"),
    *("key_sentence", "aha", "hint", "confidence", "reason", "n_tokens", "n_straddling", "status", "left_out"),
)
_COORDINATES = ("trace_id", "position", "layer", "site", "label", "lda", "pc1")
_MAX_POINTS = 1000
"""Traces in the scatter: more points show a reader no more."""
MAX_BYTES = 7_900_000
"""The page stays below this; attention of the examples gets what the rest leaves."""


class ProbePage(Page):
    """A page with a token view."""

    def __init__(self, run: Run) -> None:
        super().__init__("probe", run, run.manifest)
        self.traces: Table | None = run.table("traces", columns=_TRACE_COLUMNS)
        self.coordinates: Table | None = run.table("coordinates", columns=_COORDINATES, max_traces=_MAX_POINTS)
        self.show(token_view.collect(run, self.traces))

    def show(self, view: token_view.View) -> None:
        """Take the token view, and its notes in place of those of the one before."""
        old = getattr(self, "view", token_view.View()).notes
        self.view, self.notes = view, [*view.notes, *self.notes[len(old) :]]


def render(run: Run) -> str:
    """The whole page as text."""
    page = ProbePage(run)
    page.draw()
    # The maps take what the rest leaves: the page without them is measured, then the maps are packed to fit.
    used = len(_text(page).encode("utf-8", "replace"))
    page.show(token_view.with_maps(page.view, run, MAX_BYTES - used - 20_000))
    page.draw("left-out")
    return _text(page)


def _text(page: ProbePage) -> str:
    model = page_text.model_of(page.manifest)
    about: dict[str, Any] = {"model": model, "traces": _traces(page)}
    about["opening"] = page_text.facts_of(page.manifest, model["is_toy"])
    return page.text(
        title=f"What {(page.manifest.get('model') or {}).get('name') or 'a model'} looks at when it decides",
        header=rendered("probe_page", "header", **about),
        scripts=("plots.js", "tokens.js"),
        islands=[island("examples-data", page.view.embedded())],
    )


<<<<<<< HEAD
def _traces(page: ProbePage) -> dict[str, str]:
    traces, count = page.traces, "unknown"
    if traces is not None:
        count = f"{int((traces['status'] == 'measured').sum()):,} measured of {len(traces):,}"
    return {"count": count, "sources": page_text.sources_of(page.manifest)}
=======
    # The maps take what the rest leaves: the page without them is measured, then the maps are packed to fit.
    used = len(page(view).encode("utf-8", "replace"))
    return page(token_view.with_maps(view, run, MAX_BYTES - used - 20_000))


def _sections(
    run: Run, traces: Table | None, groups: dict[str, probe_page_figures.Group], view: token_view.View
) -> list[Section]:
    by_layer = run.attention_by_layer
    thinned = [*view.notes, *(group.note for group in groups.values())]
    return [
        Section("summary", "In short", [page_text.summary(run.findings)]),
        Section(
            "where",
            page_text.QUESTIONS["where"],
            [
                page_text.key_sentence_facts(traces),
                page_text.outcome_table(traces, conditions_in(run.manifest)),
                _token_view(view),
            ],
        ),
        Section(
            "what",
            page_text.QUESTIONS["what"],
            [
                el("h3", "Which heads look"),
                el("p", _ON_LIFT),
                figures_of(groups.get("lift"), "attention_by_head.parquet", "lift by layer and head"),
                el("h3", "How much, by layer"),
                el("p", _ON_MASS),
                figures_of(groups.get("mass"), "attention_by_layer.parquet", "attention mass by layer"),
                el("h3", "In the paper’s terms"),
                controls_table.paper_measure(by_layer, probe_page_figures.subset_names(conditions_in(run.manifest)))
                if by_layer is not None and len(by_layer)
                else page_text.absent("attention_by_layer.parquet", "the paper’s measure"),
            ],
        ),
        Section(
            "knew",
            page_text.QUESTIONS["knew"],
            [
                el("h3", "By layer and position"),
                el("p", _ON_PROBES),
                figures_of(groups.get("separability"), "separability.parquet", "separability by layer and position"),
                *_across(groups),
                el("h3", "Trace by trace"),
                figures_of(groups.get("scatter"), "coordinates.parquet", "the scatter of traces"),
            ],
        ),
        Section(
            "chance",
            page_text.QUESTIONS["chance"],
            [controls_table.against_chance(by_layer, run.separability, run.transfer, conditions_in(run.manifest))],
        ),
        Section("left-out", "What was left out", [page_text.left_out(run.findings, run.manifest, thinned)]),
        Section("reading", "How to read this page", [Html(static("reading.html"))]),
        Section("provenance", "Where the numbers come from", [page_text.provenance(run.manifest)]),
    ]  # fmt: skip


def _across(groups: dict[str, probe_page_figures.Group]) -> list[Html]:
    """Probes across conditions, where the run tells conditions apart."""
    if "transfer" not in groups:
        return []
    figures = figures_of(groups["transfer"], "transfer.parquet", "transfer between conditions")
    return [el("h3", "From one condition to another"), el("p", _ON_TRANSFER), figures]


def _groups(run: Run, traces: Table | None) -> dict[str, probe_page_figures.Group]:
    groups = {}
    subsets = probe_page_figures.subset_names(conditions_in(run.manifest))
    if (by_head := run.attention_by_head) is not None and len(by_head):
        groups["lift"] = probe_page_figures.lift_group(by_head, subsets)
    if (by_layer := run.attention_by_layer) is not None and len(by_layer):
        groups["mass"] = probe_page_figures.mass_group(by_layer, subsets)
    separability: Table | None = run.separability
    transfer: Table | None = run.transfer
    if separability is not None and (separability["method"] != "text_tfidf").any():
        groups["separability"] = probe_page_figures.separability_group(separability)
    if transfer is not None and (transfer["method"] == "logistic").any():
        groups["transfer"] = probe_page_figures.transfer_group(transfer)
    coordinates: Table | None = run.table("coordinates", columns=_COORDINATES, max_traces=_MAX_POINTS)
    if coordinates is not None and len(coordinates):
        texts = {} if traces is None else dict(zip(traces["trace_id"], traces["prompt"].astype(str), strict=True))
        groups["scatter"] = probe_page_figures.scatter_group(coordinates, texts, separability)
    return {name: group for name, group in groups.items() if any(panel.variants for panel in group.panels)}


def _token_view(view: token_view.View) -> Html:
    if not view.records:
        return page_text.absent("examples.json", "the token view")
    return Html(static("tokens.html"))
>>>>>>> R-14
