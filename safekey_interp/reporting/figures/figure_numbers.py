"""Numbers of figures: selections of rows, short numbers for the page, and numbers in words."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_style import Table, escape


def select(table: Table, name: str, **wanted: Any) -> Table:
    """The rows whose columns hold the wanted values.

    Raises:
        RunError: none do; the message says which values are there.
    """
    holds = {column: (table[column] == value).to_numpy(bool, na_value=False) for column, value in wanted.items()}
    rows = table[np.logical_and.reduce([np.ones(len(table), bool), *holds.values()])]
    if rows.empty:
        left = np.ones(len(table), bool)
        for column, value in wanted.items():
            if not (left & holds[column]).any():
                there = ", ".join(sorted({str(v) for v in table[column][left].unique()})[:12]) or "nothing"
                raise RunError(f"{name}: no row with {column} {value!r}; there are: {there}")
            left &= holds[column]
    return rows


def highest(rows: Table, column: str) -> Table | None:
    """The row with the largest number in a column; None where the column has none."""
    numbers = rows[column].astype(float)
    return rows.loc[numbers.idxmax()] if numbers.notna().any() else None


def number(value: Any, digits: int = 4) -> float | int | None:
    """``value`` short enough to embed; None where it is no finite number."""
    value = float(value)
    if not np.isfinite(value):
        return None
    short = round(value, digits) if abs(value) < 100 else float(f"{value:.4g}")
    return int(short) if short == int(short) else short


def with_interval(value: float, low: float, high: float) -> str:
    """``0.412 [0.380, 0.447]``; the value alone where it has no interval."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(low) and np.isfinite(high) else f"{value:.3f}"


def counts(values: Table) -> str:
    """``60``, or ``54 to 60`` where rows differ."""
    unique = sorted({int(value) for value in values.dropna()})
    if not unique:
        return "unknown"
    return f"{unique[0]:,}" if unique[0] == unique[-1] else f"{unique[0]:,} to {unique[-1]:,}"


def sizes(rows: Table, what: str = "traces ") -> str:
    """``n = 60 traces in 30 groups``."""
    return f"n = {counts(rows['n'])} {what}in {counts(rows['n_groups'])} groups"


def named(names: Mapping[str, str], key: object) -> str:
    """The word for a value of a table, escaped."""
    return escape(names.get(str(key), str(key)))


@functools.lru_cache(maxsize=4096)
def hover_text(trace_id: str, label: str, text: str) -> str:
    """A trace on hover: id, class, and its text in at most four short lines, escaped."""
    lines = textwrap.wrap(textwrap.shorten(text, 240, placeholder=" …"), 60)
    return "<br>".join([f"<b>{escape(trace_id)}</b> · {escape(label)}", *(escape(line) for line in lines)])
