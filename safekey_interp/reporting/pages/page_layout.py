"""Layout of a page: one file with its styles, plotly, its figures as JSON, and a content security policy.

A page opens with a strip of figures, and sections follow; a figure is a panel, drawn by the page's script from the JSON
element.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

from safekey_interp.data.class_labels import HARM, ClassPair
from safekey_interp.data.conditions import conditions_in
from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.findings.effect_size import smallest_effects
from safekey_interp.reporting.pages.figure_embedding import embed
from safekey_interp.reporting.pages.page_sections import Registered, sections_of
from safekey_interp.reporting.pages.page_strip import StripFigure, strip_group
from safekey_interp.reporting.pages.probe_page_figures import Group, Panel
from safekey_interp.reporting.pages.rendering import Html, island, part, render, static, style_sheet
from safekey_interp.reporting.probe_rows import LOGISTIC

_SCRIPTS = ("tables.js", "plots.js", "tools.js", "token_text.js", "tokens.js")
"""Scripts of every page, in the order in which they run."""


class Page:
    """The page of a run while it is drawn: what its sections read, and what they leave for those that follow."""

    strip: Sequence[StripFigure] = ()
    """The record of the figures that it opens with."""

    def __init__(self, kind: str, run: Any, manifest: dict[str, Any]) -> None:
        self.kind = kind
        """Which sections it has."""
        self.run = run
        """The run's tables."""
        self.manifest = manifest
        """``run.json`` as the page may show it."""
        self.conditions = conditions_in(manifest)
        """Conditions that the run tells apart."""
        self.classes: ClassPair = HARM
        """The two classes that probes tell apart."""
        self.probe = LOGISTIC
        """What the probe is called."""
        self.is_plain = False
        """Whether spans and metrics are called as they were typed, and by no word of the built-in question."""
        self.groups: list[Group] = []
        """Figures of the sections so far."""
        self.left_out: list[dict[str, Any]] = []
        """Rows of what was left out, beside those of the run's findings."""
        self.notes: list[str] = []
        """What the page itself leaves away, in words."""
        self._drawn: dict[Registered, Html | str | None] = {}

    @property
    def findings(self) -> dict[str, Any]:
        """Headline and findings of the run, as ``findings.json`` has them."""
        return self.run.findings

    @property
    def shown(self) -> dict[str, Spec]:
        """What each panel of the sections so far shows at first, by its name."""
        panels = ((panel, group.shown(panel)) for group in self.groups for panel in group.panels)
        return {panel.name: spec for panel, spec in panels if spec is not None}

    def figures(self, group: Group | None, file: str, what: str) -> Html:
        """A group's select boxes and panels; without a panel, the line that says what is missing.

        Args:
            group: drawn figures.
            file: the table that they come from.
            what: the figures in words.
        """
        if group is None or not any(panel.variants for panel in group.panels):
            return part("absent", file, what)
        self.groups.append(group)
        self.notes += [group.note] if group.note else []
        boxes = [choice for choice in group.choices if len(choice.options) > 1]
        return part("figures", group, boxes, _captioned(group), what)

    @classmethod
    def drawn(cls, run: Any) -> Self:
        """The page of a run with its sections; of a kind of page, which is made from its run alone."""
        make: Any = cls
        page = make(run)
        page.draw()
        return page

    def draw(self, *names: str) -> None:
        """Draw the sections and the strip, which shows some of their figures; or draw these sections again."""
        with smallest_effects(self.manifest.get("smallest_effects")):
            for section in sections_of(self.kind):
                if not names or section.name in names:
                    self._drawn[section] = section.draw(self)
        if not names:
            self.groups.insert(0, strip_group(self.strip, self, self.findings.get("findings") or []))

    def text(self, *, title: str, header: Html, notices: Iterable[str] = (), islands: Iterable[Html] = ()) -> str:
        """The whole page.

        Args:
            title: of the browser's window.
            header: what stands above the strip.
            notices: what a reader must know of the whole run.
            islands: JSON elements beside that of the figures.
        """
        plotly, script, strip = _plotly(), "".join(map(static, _SCRIPTS)), self.groups[0]
        whole = render(
            "page",
            "page",
            title=f"{title} · safekey-interp",
            css=Html(style_sheet()),
            header=header,
            strip=part("strip", strip, _captioned(strip)) if strip.panels else "",
            notices=notices,
            sections=[(section, inner) for section, inner in self._drawn.items() if inner is not None],
            islands=Html("").join([self._figures_data, *islands]),
            plotly=Html(plotly),
            script=Html(script),
            version=self.manifest.get("safekey_interp", ""),
            csp=_policy([plotly, script]),
        )
        return f"{whole}\n"

    @functools.cached_property
    def _figures_data(self) -> Html:
        return island("figures-data", embed(self.groups))


def _captioned(group: Group) -> list[tuple[Panel, str]]:
    """The panels of a group that have a figure, each with its first caption."""
    shown = [(panel, group.shown(panel)) for panel in group.panels if panel.variants]
    return [(panel, spec["layout"]["meta"]["caption"] if spec else "Not measured.") for panel, spec in shown]


def filled(table: Table | None) -> Table | None:
    """The table, or None where it has no row."""
    return None if table is None or table.empty else table


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
