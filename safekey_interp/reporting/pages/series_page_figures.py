"""Figures of the page of checkpoints: every measure against the step of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safekey_interp.data.conditions import NO_CONDITIONS
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.findings.series_findings import SHARES
from safekey_interp.reporting.labels import POSITIONS_COMPARED, title_of
from safekey_interp.reporting.pages.probe_page_figures import Choice, Group, panel_of

_SHOWS = {"estimate": "at each step", "change": "minus the first step"}
_SCALES = {"linear": "linear", "log": "logarithmic"}


def share_steps(series: Table) -> Group:
    """Shares of traces, a panel a measure."""
    panels = {
        f"step-{measure.replace('_', '-')}-{subset}": (
            title_of(measure, subset, NO_CONDITIONS),
            lambda about, measure=measure, subset=subset: figures.share_by_checkpoint.spec(
                series, measure=measure, subset=subset, **about
            ),
        )
        for measure, subset in SHARES
    }
    return _group("did", panels)


def attention_steps(series: Table) -> Group:
    """Attention on U and X over the distance-matched baseline, a panel a row that looks."""
    panels = {
        f"step-looks-{row.replace('_', '-')}": (
            f"Attention of {words}, all layers and heads",
            lambda about, row=row: figures.attention_by_checkpoint.spec(series, position=row, **about),
        )
        for row, words in ROWS.items()
    }
    return _group("looks", panels)


def auroc_steps(series: Table) -> Group:
    """AUROC of the states beside its controls, a panel a position."""
    panels = {
        f"step-auroc-{position}": (
            f"A probe {where}",
            lambda about, position=position: figures.auroc_by_checkpoint.spec(series, position=position, **about),
        )
        for position, where in reversed(POSITIONS_COMPARED.items())
    }
    return _group("knew", panels)


def _group(name: str, panels: dict[str, tuple[str, Callable[[dict[str, Any]], Spec]]]) -> Group:
    choices = (
        Choice(name="shows", label="Shown", options=_SHOWS),
        Choice(name="scale", label="Steps", options=_SCALES),
    )
    drawn = tuple(panel_of(panel, title, choices, draw) for panel, (title, draw) in panels.items())
    return Group(name=name, choices=choices, panels=tuple(panel for panel in drawn if panel.variants))
