"""Tables of RESULTS.md, written by scripts.

Each has a name and is between ``<!-- name -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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


def publish(tables: Mapping[str, str], *, write: bool) -> None:
    """Print the tables; with ``write`` put them between their marks in RESULTS.md, too.

    Raises:
        ValueError: RESULTS.md has no such marks, so that the table would be lost.
    """
    text = RESULTS.read_text(encoding="utf-8") if write else ""
    for name, table in tables.items():
        print(f"\n## {name}\n\n{table}")
        if write:
            mark = re.compile(rf"(<!-- {name} -->\n).*?(\n?<!-- end -->)", re.DOTALL)
            text, n = mark.subn(lambda match, table=table: f"{match[1]}{table}\n<!-- end -->", text)
            if n != 1:
                raise ValueError(f"{RESULTS}: got {n} places for {name}, expected <!-- {name} --> … <!-- end --> once")
    if write:
        RESULTS.write_text(text, encoding="utf-8")
