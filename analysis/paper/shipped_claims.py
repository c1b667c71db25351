"""Measured claims that ship: a table of each kind of models, and CLAIMS.md from all of them.

The organisms and the trained SmolLM2s are asked different prompts in a command of their own each. ``--write`` replaces
the table of the kind that was asked (``claims-organism.csv``, ``claims-smollm2.csv``, rows of ``claims.csv``) and makes
CLAIMS.md anew from both. Rows that both have, those of training runs, stand once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.paper import claims_page
from analysis.paper.export import write_text
from analysis.paper.verdicts import COLUMNS, place_of
from safekey_interp.errors import InputError

KINDS = ("organism", "smollm2")
_PAGE = "CLAIMS.md"
_NUMBERS = ("value", "low", "high", "p", "p_holm", "smallest")
_FOLDER = Path(__file__).parents[1]


def kind_of(models: Sequence[str]) -> str:
    """The kind that all of these models are of.

    Raises:
        InputError: they are of several kinds, or of none that ships.
    """
    kinds = {model.partition(":")[0] for model in models}
    if len(kinds) != 1 or not kinds <= set(KINDS):
        raise InputError(f"--write: got {', '.join(models)}, expected models of one kind, {' or '.join(KINDS)}")
    return kinds.pop()


def in_csv(table: pd.DataFrame) -> str:
    """``claims.csv``."""
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def ship(table: pd.DataFrame, kind: str, folder: Path = _FOLDER) -> None:
    """Replace the rows of one kind, and write CLAIMS.md from all.

    Args:
        table: as :func:`analysis.paper.verdicts.as_table` makes it.
        kind: of :data:`KINDS`.
        folder: where CLAIMS.md is; the tables are in its folder ``paper``.
    """
    write_text(_file(kind, folder), in_csv(table))
    claims_page.write_claims(folder / _PAGE, shipped(folder))


def shipped(folder: Path = _FOLDER) -> pd.DataFrame:
    """Rows of all kinds that ship, claims in order, the strongest evidence of each first."""
    files = [file for kind in KINDS if (file := _file(kind, folder)).is_file()]
    table: Any = pd.concat(map(_read, files), ignore_index=True)
    places = list(map(place_of, table["claim"], table["evidence"]))
    order = sorted(range(len(table)), key=places.__getitem__)
    return table.iloc[order].drop_duplicates(["claim", "evidence", "model"]).reset_index(drop=True)


def _file(kind: str, folder: Path) -> Path:
    return folder / "paper" / f"claims-{kind}.csv"


def _read(file: Path) -> pd.DataFrame:
    # A text may be empty, or read as a number that is none.
    table: Any = pd.read_csv(
        file, keep_default_na=False, na_values={name: [""] for name in _NUMBERS}, dtype={"toy": bool}
    )
    return table[list(COLUMNS)]
