"""Rows of the page of checkpoints: a row a measure or control, a column a step, and the change to the last step."""

from __future__ import annotations

import pandas as pd

from safekey_interp.data.conditions import Conditions
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.pages.comparison_rows import difference_cell, measure_title, number_cell
from safekey_interp.reporting.pages.rendering import Cell

_KEYS = ("measure", "subset", "position", "to_span", "control")
_CHANGE = {"change": "value", "change_low": "low", "change_high": "high", "change_p": "p"}


def series_head(series: Table) -> list[str]:
    """Names of the columns."""
    first, *_, last = steps = _steps(series)
    return ["Measure", *(f"Step {step:,}" for step in steps), f"Step {last:,} minus step {first:,}"]


def series_rows(series: Table, conditions: Conditions) -> list[list[str | Cell]]:
    """Every number of ``series``."""
    rows = []
    steps, sizes = _steps(series), ["n", "n_groups"]
    estimates = series[["step", *_KEYS, "estimate", "low", "high", *sizes]].rename(columns={"estimate": "value"})
    changes = series[["step", *_KEYS, *_CHANGE, *sizes]].rename(columns=_CHANGE)
    for key, part in estimates.assign(p=float("nan")).groupby(list(_KEYS), sort=False, dropna=False):
        about = {name: None if pd.isna(value) else str(value) for name, value in zip(_KEYS, key, strict=True)}
        as_share, control = about["position"] is None, about.pop("control")
        at = {int(row["step"]): row for _, row in part.iterrows()}
        cells = [number_cell(at.get(step), as_share) for step in steps]
        moved = changes.loc[part.index[-1:]].dropna(subset=["value"])
        change = moved.iloc[0] if len(moved) and int(moved["step"].iloc[0]) == steps[-1] else None
        title = measure_title(about, conditions)
        rows.append([f"{title}: {control}" if control else title, *cells, difference_cell(change, as_share)])
    return rows


def _steps(series: Table) -> list[int]:
    return sorted({int(step) for step in series["step"]})
