"""Report of a run: ``report.html``, one file, no network, under 8 MB; and its figures one by one, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from safekey_interp.errors import RunError
from safekey_interp.runs.run_folder import Run, open_run
from safekey_interp.runs.storage import remove_leftovers, write_aside

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from safekey_interp.reporting.figures.figure_style import Spec

__all__ = ["Report", "RunFigures", "write_report"]

PAGE = "report.html"


def write_report(run_dir: Path) -> Path:
    """Draw the page of a run folder; the page names what the folder lacks.

    Args:
        run_dir: a folder that ``safekey-interp probe``, ``train``, ``intervene``, ``compare`` or ``eval`` wrote.

    Returns:
        The page's path, ``run_dir/report.html``. It is complete or absent.

    Raises:
        RunError: no run in the folder, a table that cannot be read, or a folder that cannot be written.
    """
    run = open_run(run_dir)
    file = run.path / PAGE
    text = _page_of(run).render(run)
    try:
        remove_leftovers(run.path)
        write_aside(file, lambda page: page.write_text(text, encoding="utf-8", newline="\n"))
    except OSError as error:
        why = f"{error.strerror or error}; free the place or choose another folder"
        raise RunError(f"{file}: cannot be written ({why})") from error
    return file


class Report(PathLike[str]):
    """The page of a run: a path, which a notebook shows as the page itself."""

    def __init__(self, run: Run, *, redraw: bool = False) -> None:
        """Draw the page unless it is there.

        Args:
            run: of any kind.
            redraw: draw it anew in any case.

        Raises:
            RunError: as for :func:`write_report`.
        """
        self.path = run.path / PAGE
        """Where it lies."""
        if redraw or not self.path.is_file():
            write_report(run.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"))
        # A frame of its own: the page's styles stay inside, and its scripts reach nothing outside.
        look = 'style="width:100%;height:80vh;border:0"'
        return f'<iframe sandbox="allow-scripts allow-downloads" {look} title="report" srcdoc="{page}"></iframe>'


class RunFigures(Mapping[str, "go.Figure"]):
    """The figures of a run's page by name, drawn when the first is asked for.

    A figure with choices is drawn for the page's own; ``choices(name)`` names the others, and ``name|choice|choice``
    has each.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, name: str) -> go.Figure:
        from safekey_interp.reporting.figures.figure_style import figure_of

        variants, default = self._panels[name.partition("|")[0]]
        spec = variants[name.partition("|")[2] or default]
        return figure_of(spec)

    def __iter__(self) -> Iterator[str]:
        return iter(self._panels)

    def __len__(self) -> int:
        return len(self._panels)

    def __repr__(self) -> str:
        return f"RunFigures({', '.join(self)})"

    def choices(self, name: str) -> list[str]:
        """All that a figure can be drawn for, as names of their own."""
        return [f"{name}|{choice}" if choice else name for choice in self._panels[name][0]]

    @cached_property
    def _panels(self) -> dict[str, tuple[dict[str, Spec], str]]:
        """Per panel of the page, its variants and the key of the one that the page shows first."""
        panels: dict[str, tuple[dict[str, Spec], str]] = {}
        for group in _page_of(self._run).drawn(self._run).groups:
            for panel in group.panels:
                key = "|".join(group.defaults[name] for name in panel.uses)
                titled = {
                    variant: spec | {"layout": spec["layout"] | {"title": {"text": panel.title}}}
                    for variant, spec in panel.variants.items()
                }
                if titled:
                    panels[panel.name] = titled, key if key in titled else next(iter(titled))
        return panels


def _page_of(run: Run) -> ModuleType:
    from safekey_interp.reporting.pages import (
        benchmark_page,
        comparison_page,
        intervention_page,
        probe_page,
        training_page,
    )

    pages = {
        "training": training_page,
        "intervention": intervention_page,
        "comparison": comparison_page,
        "benchmarks": benchmark_page,
    }
    return pages.get(run.manifest.get("kind", ""), probe_page)
