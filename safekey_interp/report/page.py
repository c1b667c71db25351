"""In which order does the page tell its story? Where does the model decide, on what, knowing what, and by chance?"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Protocol

from safekey_interp.conditions import conditions_in
from safekey_interp.errors import RunError
from safekey_interp.figures.drawing import PALETTE, Table
from safekey_interp.report import chance, examples, panels, story
from safekey_interp.report.embedding import embed
from safekey_interp.report.markup import Html, data, el, escape, island, join

MAX_BYTES = 7_900_000
"""The page stays below this; attention of the examples gets what the rest leaves."""

_ON_LIFT = (
    "Each cell is one attention head. Blue heads put more attention on the span than the control chosen here, brown "
    "heads less. Distance alone is the strictest: what U’s own tokens give to tokens as far away."
)
_ON_MASS = (
    "What the line has over even attention and random keys can be nearness; what it has over distance alone cannot."
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
    parts = {
        "title": escape(f"What {name} looks at when it decides · safekey-interp"),
        "css": Html(_palette_css() + _static("page.css")),
        "header": story.header(run.manifest, run.traces),
        "plotly": _plotly(),
        "script": _static("plots.js") + _static("tokens.js"),
        "version": escape(run.manifest.get("safekey_interp", "")),
    }
    parts["csp"] = _policy([parts["plotly"], parts["script"]])
    # The maps take what the rest leaves: the page without them is measured, then the maps are packed to fit.
    used = len(_assemble(parts, run, groups, view, plots).encode("utf-8", "replace"))
    view = examples.with_maps(view, run, MAX_BYTES - used - 20_000)
    return _assemble(parts, run, groups, view, plots)


def _assemble(
    parts: dict[str, str], run: RunTables, groups: dict[str, panels.Group], view: examples.View, plots: Html
) -> str:
    sections = _sections(run, groups, view)
    links = [el("li", el("a", title, href=f"#{name}")) for name, title, _ in sections]
    body = [
        el("section", el("h2", title, id=f"{name}-title"), *inner, id=name, aria_labelledby=f"{name}-title")
        for name, title, inner in sections
    ]
    page = Template(_static("page.html")).substitute(
        parts, nav=join(*links), sections=join(*body), islands=join(plots, island("examples-data", view.embedded()))
    )
    return page


def _sections(
    run: RunTables, groups: dict[str, panels.Group], view: examples.View
) -> list[tuple[str, str, list[Html | None]]]:
    by_layer = run.attention_by_layer
    thinned = [*view.notes, *(group.note for group in groups.values())]
    return [
        ("summary", "In short", [story.summary(run.findings)]),
        (
            "where",
            story.QUESTIONS["where"],
            [
                story.key_sentence_facts(run.traces),
                story.outcome_table(run.traces, conditions_in(run.manifest)),
                _token_view(view),
            ],
        ),
        (
            "what",
            story.QUESTIONS["what"],
            [
                el("h3", "Which heads look"),
                el("p", _ON_LIFT),
                _figures(groups.get("lift"), "attention_by_head.parquet", "lift by layer and head"),
                el("h3", "How much, by layer"),
                el("p", _ON_MASS),
                _figures(groups.get("mass"), "attention_by_layer.parquet", "attention mass by layer"),
                el("h3", "In the paper’s terms"),
                chance.paper_measure(by_layer, panels.subset_names(conditions_in(run.manifest)))
                if by_layer is not None and len(by_layer)
                else story.absent("attention_by_layer.parquet", "the paper’s measure"),
            ],
        ),
        (
            "knew",
            story.QUESTIONS["knew"],
            [
                el("h3", "By layer and position"),
                el("p", _ON_PROBES),
                _figures(groups.get("separability"), "separability.parquet", "separability by layer and position"),
                *_across(groups),
                el("h3", "Trace by trace"),
                _figures(groups.get("scatter"), "coordinates.parquet", "the scatter of traces"),
            ],
        ),
        (
            "chance",
            story.QUESTIONS["chance"],
            [chance.against_chance(by_layer, run.separability, run.transfer, conditions_in(run.manifest))],
        ),
        ("left-out", "What was left out", [story.left_out(run.findings, run.manifest, thinned)]),
        ("reading", "How to read this page", [Html(_static("reading.html"))]),
        ("provenance", "Where the numbers come from", [story.provenance(run.manifest)]),
    ]  # fmt: skip


def _across(groups: dict[str, panels.Group]) -> list[Html]:
    """Probes across conditions, where the run tells conditions apart."""
    if "transfer" not in groups:
        return []
    figures = _figures(groups["transfer"], "transfer.parquet", "transfer between conditions")
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


def _figures(group: panels.Group | None, file: str, what: str) -> Html:
    if group is None:
        return story.absent(file, what)
    boxes = [
        el(
            "label",
            el("span", choice.label),
            _select(f"{group.name}-{choice.name}", choice.options, choice.default),
            class_="choice",
        )
        for choice in group.choices
        if len(choice.options) > 1
    ]
    choices = el("form", *boxes, class_="choices", aria_label=f"Choices for {what}") if boxes else None
    drawn = el("div", *(_panel(panel, group) for panel in group.panels if panel.variants), class_="panels")
    note = el("p", group.note, class_="muted") if group.note else None
    return el("div", choices, drawn, note, class_="group", data_group=group.name)


def _panel(panel: panels.Panel, group: panels.Group) -> Html:
    chosen = {choice.name: choice.default or next(iter(choice.options)) for choice in group.choices}
    variant = panel.variants.get("|".join(chosen[name] for name in panel.uses))
    caption = variant["layout"]["meta"]["caption"] if variant else "Not measured."
    return el(
        "figure",
        el("h4", panel.title, id=f"{panel.name}-title"),
        el(
            "div",
            class_="plot",
            id=f"{panel.name}-plot",
            role="img",
            aria_labelledby=f"{panel.name}-title {panel.name}-caption",
        ),
        el("figcaption", data(caption), id=f"{panel.name}-caption", aria_live="polite"),
        el(
            "details",
            el("summary", "Numbers", el("span", f" of {panel.title}", class_="unseen")),
            el("div", class_="scroll numbers", tabindex="0", role="region", aria_label=f"Numbers: {panel.title}"),
            el("button", "Save the plot as SVG", type="button", class_="save"),
        ),
        class_="panel",
        data_panel=panel.name,
    )


def _select(name: str, options: dict[str, str], default: str) -> Html:
    items = [el("option", text, value=value, selected=value == default) for value, text in options.items()]
    return el("select", *items, name=name, id=name, autocomplete="off")


def _token_view(view: examples.View) -> Html:
    if not view.records:
        return story.absent("examples.json", "the token view")
    return Html(_static("tokens.html"))


def _palette_css() -> str:
    def rules(theme: str) -> str:
        return "".join(f"--{name.replace('_', '-')}:{getattr(tone, theme)};" for name, tone in PALETTE.items())

    return f":root{{{rules('light')}}}@media screen and (prefers-color-scheme: dark){{:root{{{rules('dark')}}}}}\n"


def _policy(scripts: list[str]) -> str:
    """Only these two scripts may run, nothing may be loaded; plotly writes styles and saves pictures as blobs."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs()
    if "</script" in script.lower() or "\r" in script:
        raise RunError("plotly.js cannot stand inside a page as it is; install a plotly of the range in pyproject.toml")
    return script


def _static(name: str) -> str:
    return files("safekey_interp.report").joinpath("static", name).read_text(encoding="utf-8")
