"""Strip of figures that a page opens with: at most four of its kind's record that the run has numbers for.

A figure of the strip is drawn by a function of the page, and read by one finding: the first that answers its question
and has its word in it; without one, by the first sentence of its own caption that has a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_style import Spec
from safekey_interp.reporting.pages.probe_page_figures import Group, Panel

NAME = "strip"
MOST = 4
"""Figures of a strip."""
_OWN = ("title", "height")
"""Layout that the page's own heading and style sheet set instead."""


class StripFigure(NamedTuple):
    """One figure of a kind of page's record."""

    name: str
    """Unique in the page."""
    title: str
    """Its heading."""
    draw: Callable[[Any], Spec | None]
    """Its figure, of the page; None, or a :class:`RunError`, where the run has no numbers for it."""
    question: str = ""
    """The question of the finding that reads it; empty: its caption does."""
    word: str = ""
    """What that finding's sentence has in it."""


def strip_group(record: Sequence[StripFigure], page: Any, findings: Iterable[Mapping[str, Any]]) -> Group:
    """The strip of a page: the first figures of its record that can be drawn, each with its reading."""
    told, panels = list(findings), []
    for figure in record:
        if len(panels) < MOST and (spec := _drawn(figure, page)) is not None:
            reading = _reading(figure, told) or _first_number(spec["layout"]["meta"]["caption"])
            variants = {"": {"data": spec["data"], "layout": _low(spec["layout"])}}
            panels.append(Panel(name=figure.name, title=figure.title, uses=(), variants=variants, reading=reading))
    return Group(name=NAME, choices=(), panels=tuple(panels))


def default_of(panel: str) -> Callable[[Any], Spec | None]:
    """Draws what a panel of the page's sections shows at first."""
    return lambda page: page.shown.get(panel)


def _low(layout: Spec) -> Spec:
    """A layout for less height: the style sheet sets it, and the y axis's title is smaller."""
    y = layout["yaxis"]
    title = {"title": y["title"] | {"font": {"size": 11}}} if "title" in y else {}
    return {name: value for name, value in layout.items() if name not in _OWN} | {"yaxis": y | title}


def _drawn(figure: StripFigure, page: Any) -> Spec | None:
    try:
        return figure.draw(page)
    except RunError:
        return None


def _first_number(caption: str) -> str:
    sentences = [f"{sentence.removesuffix('.')}." for sentence in caption.split(". ")]
    return next((sentence for sentence in sentences if re.search("[0-9]", sentence)), sentences[0])


def _reading(figure: StripFigure, findings: Iterable[Mapping[str, Any]]) -> str:
    texts = (str(finding.get("text", "")) for finding in findings if finding.get("question") == figure.question)
    return next((text for text in texts if figure.word in text), "")
