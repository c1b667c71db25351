"""Figures of several models from runs of one each, and differences between the last two models."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.paper.export import Sheet
from analysis.paper.models import Bench
from analysis.paper.verdicts import Measured, unmeasured
from analysis.tables import where
from safekey_interp.errors import RunError
from safekey_interp.runs.run_folder import Run


def sheets_of(bench: Bench, draw: Callable[[Run], Sheet]) -> list[Sheet]:
    """The figure of each model's run; their files have the model's name where there are several.

    Raises:
        RunError: no run has what is drawn.
    """
    sheets, why = [], []
    for name, run in bench.probes.items():
        try:
            sheet = draw(run)
        except RunError as error:
            why.append(str(error))
            continue
        if len(bench.probes) > 1:
            short = re.sub(r"[^\w.]+", "-", name).strip("-")
            numbers = {f"{file}-{short}": table for file, table in sheet.numbers.items()}
            sheet = replace(sheet, name=f"{sheet.name}-{short}", numbers=numbers)
        sheets.append(sheet)
    if not sheets:
        raise RunError("; ".join(why) or "no model has anything to draw")
    return sheets


def claim_of_pair(bench: Bench, claim: str, evidence: str, **wanted: str) -> Measured:
    """A measure of ``comparison``, the last model's minus the one's before.

    Args:
        bench: with the comparison.
        claim: the claim's id.
        evidence: its name in ``claims.yaml``.
        **wanted: columns of ``comparison`` and their values; of all traces.
    """
    pair = bench.pair
    if pair is None:
        name = bench.names[0]
        why = "one model: nothing to compare it with"
        return unmeasured(claim, name, why, toy=bench.is_toy(name), evidence=evidence)
    toy = any(map(bench.is_toy, pair))
    words = f"{pair[1]} minus {pair[0]}"
    rows: Any = bench.comparison.comparison
    rows = where(rows, subset="all", **wanted)
    rows_of_pair = rows[(rows["model"] == pair[0]) & (rows["other"] == pair[1]).fillna(False)]
    if rows_of_pair.empty:
        return unmeasured(claim, words, "one of the two has no such measure", toy=toy, evidence=evidence)
    row = rows_of_pair.iloc[0]
    single = rows[rows["other"].isna()].set_index("model")["value"]
    return Measured(
        claim=claim,
        evidence=evidence,
        model=words,
        value=float(row["value"]),
        low=float(row["low"]),
        high=float(row["high"]),
        n=int(row["n"]),
        n_groups=int(row["n_groups"]),
        family=pair[1],
        control_value=", ".join(f"{name} {single[name]:.3f}" for name in pair if np.isfinite(single.get(name, np.nan))),
        note="each model on its own answers to the same prompts",
        toy=toy,
    )
