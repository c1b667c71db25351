"""In which order does the page tell its story? Where does the model decide, on what, knowing what, and by chance?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from safekey_interp.conditions import conditions_in
from safekey_interp.figures.drawing import Table
from safekey_interp.report import chance, examples, panels, story
from safekey_interp.report.embedding import embed
from safekey_interp.report.frame import Frame, Section, figures_of, static
from safekey_interp.report.markup import Html, el, island, join

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


class RunTables(Protocol):
    """What the page reads of a run; each table is None where the run has none."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def manifest(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def findings(self) -> dict[str, Any] | None: ...  # noqa: D102
    @property
    def examples(self) -> list[dict[str, Any]] | None: ...  # noqa: D102
    @property
    def traces(self) -> Table | None: ...  # noqa: D102
    @property
    def attention_by_layer(self) -> Table | None: ...  # noqa: D102
    @property
    def attention_by_head(self) -> Table | None: ...  # noqa: D102
    @property
    def separability(self) -> Table | None: ...  # noqa: D102
    @property
    def transfer(self) -> Table | None: ...  # noqa: D102
    @property
    def coordinates(self) -> Table | None: ...  # noqa: D102


def render(run: RunTables) -> str:
    """The whole page as text."""
    groups = _groups(run)
    plots = island("figures-data", embed(list(groups.values())))
    view = examples.collect(run)
    name = (run.manifest.get("model") or {}).get("name") or "a model"
    frame = Frame(
        title=f"What {name} looks at when it decides · safekey-interp",
        header=story.header(run.manifest, run.traces),
        scripts=("plots.js", "tokens.js"),
        version=run.manifest.get("safekey_interp", ""),
    )

    def page(view: examples.View) -> str:
        return frame.page(_sections(run, groups, view), join(plots, island("examples-data", view.embedded())))

    # The maps take what the rest leaves: the page without them is measured, then the maps are packed to fit.
    used = len(page(view).encode("utf-8", "replace"))
    return page(examples.with_maps(view, run, MAX_BYTES - used - 20_000))


def _sections(run: RunTables, groups: dict[str, panels.Group], view: examples.View) -> list[Section]:
    by_layer = run.attention_by_layer
    thinned = [*view.notes, *(group.note for group in groups.values())]
    return [
        Section("summary", "In short", [story.summary(run.findings)]),
        Section(
            "where",
            story.QUESTIONS["where"],
            [
                story.key_sentence_facts(run.traces),
                story.outcome_table(run.traces, conditions_in(run.manifest)),
                _token_view(view),
            ],
        ),
        Section(
            "what",
            story.QUESTIONS["what"],
            [
                el("h3", "Which heads look"),
                el("p", _ON_LIFT),
                figures_of(groups.get("lift"), "attention_by_head.parquet", "lift by layer and head"),
                el("h3", "How much, by layer"),
                el("p", _ON_MASS),
                figures_of(groups.get("mass"), "attention_by_layer.parquet", "attention mass by layer"),
                el("h3", "In the paper’s terms"),
                chance.paper_measure(by_layer, panels.subset_names(conditions_in(run.manifest)))
                if by_layer is not None and len(by_layer)
                else story.absent("attention_by_layer.parquet", "the paper’s measure"),
            ],
        ),
        Section(
            "knew",
            story.QUESTIONS["knew"],
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
            story.QUESTIONS["chance"],
            [chance.against_chance(by_layer, run.separability, run.transfer, conditions_in(run.manifest))],
        ),
        Section("left-out", "What was left out", [story.left_out(run.findings, run.manifest, thinned)]),
        Section("reading", "How to read this page", [Html(static("reading.html"))]),
        Section("provenance", "Where the numbers come from", [story.provenance(run.manifest)]),
    ]  # fmt: skip


def _across(groups: dict[str, panels.Group]) -> list[Html]:
    """Probes across conditions, where the run tells conditions apart."""
    if "transfer" not in groups:
        return []
    figures = figures_of(groups["transfer"], "transfer.parquet", "transfer between conditions")
    return [el("h3", "From one condition to another"), el("p", _ON_TRANSFER), figures]


def _groups(run: RunTables) -> dict[str, panels.Group]:
    groups = {}
    subsets = panels.subset_names(conditions_in(run.manifest))
    if (by_head := run.attention_by_head) is not None and len(by_head):
        groups["lift"] = panels.lift_group(by_head, subsets)
    if (by_layer := run.attention_by_layer) is not None and len(by_layer):
        groups["mass"] = panels.mass_group(by_layer, subsets)
    separability = run.separability
    if separability is not None and (separability["method"] != "text_tfidf").any():
        groups["separability"] = panels.separability_group(separability)
    if (transfer := run.transfer) is not None and (transfer["method"] == "logistic").any():
        groups["transfer"] = panels.transfer_group(transfer)
    if (coordinates := run.coordinates) is not None and len(coordinates):
        traces = run.traces
        texts = {} if traces is None else dict(zip(traces["trace_id"], traces["prompt"].astype(str), strict=True))
        groups["scatter"] = panels.scatter_group(coordinates, texts, separability)
    return {name: group for name, group in groups.items() if any(panel.variants for panel in group.panels)}


def _token_view(view: examples.View) -> Html:
    if not view.records:
        return story.absent("examples.json", "the token view")
    return Html(static("tokens.html"))
