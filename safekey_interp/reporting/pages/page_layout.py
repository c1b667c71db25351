"""What holds every page together? One file: styles, plotly once, the figures as one island, and a policy over it all.

A page is sections; a figure in it is a panel, drawn by the page's script from the island.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import NamedTuple

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_style import PALETTE
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.html import Html, data, el, escape, join
from safekey_interp.reporting.pages.probe_page_figures import Group, Panel


class Section(NamedTuple):
    """One question of the page."""

    name: str
    """Its anchor, unique in the page."""
    title: str
    """Its heading."""
    inner: list[Html | None]
    """What stands under it."""


class Frame:
    """Everything of a page that does not depend on its sections."""

    def __init__(self, *, title: str, header: Html, scripts: Sequence[str], version: object) -> None:
        """Scripts are names of static files; they run in their order, after plotly."""
        parts = {
            "title": escape(title),
            "css": Html(_palette_css() + static("page.css")),
            "header": header,
            "plotly": _plotly(),
            "script": "".join(static(name) for name in scripts),
            "version": escape(version),
        }
        self._parts = parts | {"csp": _policy([parts["plotly"], parts["script"]])}

    def page(self, sections: Sequence[Section], islands: Html) -> str:
        """The whole page as text."""
        links = [el("li", el("a", title, href=f"#{name}")) for name, title, _ in sections]
        body = [
            el("section", el("h2", title, id=f"{name}-title"), *inner, id=name, aria_labelledby=f"{name}-title")
            for name, title, inner in sections
        ]
        return Template(static("page.html")).substitute(
            self._parts, nav=join(*links), sections=join(*body), islands=islands
        )


def figures_of(group: Group | None, file: str, what: str) -> Html:
    """A group's select boxes and panels; without it, the line that says what is missing.

    Args:
        group: drawn figures.
        file: the table that they come from.
        what: the figures in words.
    """
    if group is None:
        return page_text.absent(file, what)
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


def static(name: str) -> str:
    """A file that comes with the package."""
    return files("safekey_interp.reporting.pages").joinpath("static", name).read_text(encoding="utf-8")


def _panel(panel: Panel, group: Group) -> Html:
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
