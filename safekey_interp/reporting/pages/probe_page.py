"""In which order does the page tell its story? Where does the model decide, on what, knowing what, and by chance?"""

from __future__ import annotations

from safekey_interp.data.conditions import conditions_in
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages import controls_table, page_text, probe_page_figures, token_view
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.html import Html, el, island, join
from safekey_interp.reporting.pages.page_layout import Frame, Section, figures_of, static
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

_ON_LIFT = (
    "Each cell is one attention head. Blue heads put more attention on the span than the control chosen here, brown "
    "heads less. The distance-matched baseline is the strictest: "
    "the share that the span would get if attention were a function of distance alone, as U’s rows show it."
)
_ON_MASS = (
    "What the line has over the uniform baseline and random keys can be nearness; what it has over the "
    "distance-matched baseline cannot. Its reference rows are those of U, without the token before K."
)
_ON_PROBES = (
    "A probe reads the hidden states and must tell the classes apart on prompts that it never saw. It counts only as "
    "far as it beats shuffled labels and the words alone."
)
_ON_TRANSFER = (
    "A probe is fitted on the traces of one condition and tested on another’s. No prompt is on both sides, in whatever "
    "form: what carries over is not the words of one condition. Below 0.5 the direction is turned round."
)


def render(run: Run) -> str:
    """The whole page as text."""
    traces: Table | None = run.table("traces", columns=_TRACE_COLUMNS)
    groups = _groups(run, traces)
    plots = island("figures-data", embed(list(groups.values())))
    view = token_view.collect(run, traces)
    name = (run.manifest.get("model") or {}).get("name") or "a model"
    frame = Frame(
        title=f"What {name} looks at when it decides · safekey-interp",
        header=page_text.header(run.manifest, traces),
        scripts=("plots.js", "tokens.js"),
        version=run.manifest.get("safekey_interp", ""),
    )

    def page(view: token_view.View) -> str:
        return frame.page(_sections(run, traces, groups, view), join(plots, island("examples-data", view.embedded())))

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
