"""Words for p over the draws of a control, and for the number of draws that a small p takes."""

from __future__ import annotations

import numpy as np

from safekey_interp.data.conditions import FEW
from safekey_interp.measures.control_directions import least_groups
from safekey_interp.measures.step_down import LEVEL, least_draws
from safekey_interp.reporting.findings.intervention_terms import Row

N_FOLDS = 5
"""Folds that directions are fitted in by default."""
_SHUFFLED = "shuffled_labels"


def is_beyond_draws(row: Row) -> bool:
    """Whether an effect is beyond those of control directions, corrected for all places."""
    return bool(row["n_groups"] >= FEW and row["p_value_over_all"] <= LEVEL)


def beside_draws(row: Row, n_places: int) -> str:
    """Whether an effect is beyond the draws, with p, as the end of a sentence."""
    if row["n_groups"] < FEW:
        return f"on fewer than {FEW} prompts, which says nothing about others"
    if not np.isfinite(row["p_value_over_all"]):
        return "without enough draws for a p"
    verdict = "beyond" if is_beyond_draws(row) else "not told apart from"
    return f"{verdict} the {int(row['n_controls'])} draws ({p_in_words(row, n_places)})"


def p_in_words(row: Row, n_places: int) -> str:
    """``p = 0.048, corrected for 30 places``; with what a smaller p takes where the draws are too few for it."""
    p, needed = float(row["p_value_over_all"]), draws_needed(int(row["n_controls"]), str(row["control_kind"]))
    text = f"p = {p:.2g}" + f", corrected for {n_places} places" * (n_places > 1)
    return f"{text}; {needed}" if needed else text


def draws_needed(n_draws: int, kind: str) -> str:
    """What p at the level takes, in words, where it cannot be as small with so many draws; else empty.

    Args:
        n_draws: of the control.
        kind: of control.
    """
    needed = least_draws()
    if n_draws >= needed:
        return ""
    text = f"p of {LEVEL:g} takes {needed} draws (n_random)"
    if kind != _SHUFFLED:
        return text
    return (
        f"{text}; so many of shuffled labels take at least {least_groups(needed)} requests, or "
        f"{least_groups(needed, N_FOLDS)} in {N_FOLDS} folds"
    )
