"""Tables of RESULTS.md, written by scripts.

Each has a name and is between ``<!-- name -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.runs.storage import write_aside

RESULTS = Path(__file__).with_name("RESULTS.md")


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""
    head = f"| {' | '.join(map(str, table.columns))} |\n|{'---|' * len(table.columns)}"
    return "\n".join([head, *(f"| {' | '.join(map(str, row))} |" for row in table.itertuples(index=False))])


def interval(row: Any, name: str = "value", form: str = ".2f") -> str:
    """``0.41 [0.38, 0.45]``: a row's number and its interval, of ``low`` and ``high`` or ``NAME_low``."""
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    if not np.isfinite([row[low], row[high]]).all():
        return f"{row[name]:{form}}"
    return f"{row[name]:{form}} [{row[low]:{form}}, {row[high]:{form}}]"


def where(table: Any, **wanted: Any) -> Any:
    """The rows of a data frame whose columns hold these values; it may have none."""
    for column, value in wanted.items():
        table = table[(table[column] == value).fillna(False)]
    return table


def rows_of(table: Any) -> list[Any]:
    """Its rows, one after the other."""
    return [row for _, row in table.iterrows()]


def check_places(names: Iterable[str]) -> None:
    """Say before long work that its tables have a place.

    Raises:
        InputError: RESULTS.md has no such marks, so that the table would be lost.
    """
    text = RESULTS.read_text(encoding="utf-8")
    for name in names:
        if len(re.findall(rf"<!-- {name} -->\n.*?<!-- end -->", text, re.DOTALL)) != 1:
            raise InputError(f"{RESULTS}: no place for {name}, expected <!-- {name} --> … <!-- end --> once")


def publish(tables: Mapping[str, str], *, write: bool, is_part: bool = False) -> None:
    """Print the tables; with ``write`` put them between their marks in RESULTS.md, too.

    Args:
        tables: by name.
        write: change RESULTS.md.
        is_part: the tables have some of their rows only: those of RESULTS.md that they lack stay there.

    Raises:
        InputError: RESULTS.md has no such marks, or other columns between them: nothing is written.
    """
    for name, table in tables.items():
        print(f"\n## {name}\n\n{table}")
    if not write:
        return
    check_places(tables)
    text = RESULTS.read_text(encoding="utf-8")
    for name, table in tables.items():
        mark = re.compile(rf"(<!-- {name} -->\n)(.*?)\n?<!-- end -->", re.DOTALL)

        def placed(match: re.Match[str], table: str = table) -> str:
            return f"{match[1]}{with_rows_of(match[2], table) if is_part else table}\n<!-- end -->"

        text = mark.sub(placed, text)
    write_aside(RESULTS, lambda aside: aside.write_text(text, encoding="utf-8"))


def with_rows_of(old: str, new: str) -> str:
    """A table as Markdown in which the rows of another take the places of those that begin alike, or follow them all.

    Raises:
        InputError: the columns differ, so that the rows do not fit.
    """
    (head, rows), (head_of_new, rows_of_new) = _head_and_rows(old), _head_and_rows(new)
    if rows and head.splitlines()[-2:] != head_of_new.splitlines()[-2:]:
        raise InputError(
            f"columns: got {head_of_new.splitlines()[-2]}, expected {head.splitlines()[-2]}; "
            "delete the table, and write the rows of all models anew"
        )
    return "\n".join([head_of_new, *(line for some in (rows | rows_of_new).values() for line in some)])


def _head_and_rows(table: str) -> tuple[str, dict[str, list[str]]]:
    """The lines up to the rows, and the rows by their first cell."""
    lines = table.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("|---")), len(lines)) + 1
    rows: dict[str, list[str]] = {}
    for line in lines[first:]:
        rows.setdefault(line.split(" | ", 1)[0], []).append(line)
    return "\n".join(lines[:first]), rows
