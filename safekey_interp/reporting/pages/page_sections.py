"""Registry of the sections of pages: a section is a function of a page that returns HTML.

Every module of :mod:`safekey_interp.reporting.pages.sections` is imported before a page is drawn, and so is what an
installed package names as an entry point of the group ``safekey_interp.page_sections``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from safekey_interp.reporting.pages.rendering import Html

GROUP = "safekey_interp.page_sections"
Draw = Callable[[Any], "Html | str | None"]
"""Draws a section of a page; a string is escaped, None leaves the section out."""


class Registered(NamedTuple):
    """A section of a kind of page."""

    name: str
    """Its anchor, unique in the page."""
    title: str
    """Its heading."""
    order: int
    """Sections stand in this order; those of the package have multiples of 10."""
    draw: Draw
    """Its content."""


_SECTIONS: dict[str, dict[str, Registered]] = {}


def page_section(*kinds: str, name: str, title: str, order: int) -> Callable[[Draw], Draw]:
    """Decorator: register a function as a section of pages; an earlier one of that name is replaced.

    Args:
        *kinds: of runs, as ``run.json`` has them: ``probe``, ``training``, ``intervention``, ``comparison``,
            ``benchmarks``; ``spans`` is that of a probe of a user's own spans, whose words are its expressions, and
            ``series`` that of a comparison of checkpoints.
        name: the section's anchor.
        title: its heading.
        order: its place; the summary has 0, "What was left out" 80, "How to read this page" 90, the last 100.
    """

    def register(draw: Draw) -> Draw:
        for kind in kinds:
            _SECTIONS.setdefault(kind, {})[name] = Registered(name, title, order, draw)
        return draw

    return register


def sections_of(kind: str) -> Iterator[Registered]:
    """The sections of a kind of page, in order."""
    folder = import_module("safekey_interp.reporting.pages.sections")
    for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
        import_module(module.name)
    for entry in entry_points(group=GROUP):
        entry.load()
    yield from sorted(_SECTIONS.get(kind, {}).values(), key=lambda section: section.order)
