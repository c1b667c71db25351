"""Best layers and places of probes: p and intervals of a probe that was picked because it is the best of several.

``p_value_over_layers`` holds each layer of a place against the best of all its layers under shuffled labels (maximum
statistic), ``auroc_*_over_layers`` are the layers' intervals at once. ``p_value_over_all`` is corrected for the layers
of all places together, by step-down over joint draws (:func:`safekey_interp.measures.step_down.step_down_upper`): a
shuffle of the labels is one of all places whose rows are the same. Places with other rows have other shuffles; p is
then multiplied by the number of such sets of places (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from safekey_interp.measures.auroc_intervals import auroc_interval, simultaneous
from safekey_interp.measures.intervals import Interval
from safekey_interp.measures.layer_scores import Cell, p_value
from safekey_interp.measures.step_down import step_down_upper


def best_of_layers(cells: list[Cell], alike: Sequence[str] = ("method",)) -> list[dict[str, Any]]:
    """Rows with p and interval of the best of the layers that share a split (so shuffles) and the columns ``alike``."""

    def family(cell: Cell) -> tuple[Any, ...]:
        return id(cell.plan), *(cell.row[name] for name in alike)

    families: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        families.setdefault(family(cell), []).append(cell)
    over_layers = {}
    for key, members in families.items():
        highest = np.max([cell.scored.null for cell in members], axis=0)
        level = simultaneous([cell.ranked.influence for cell in members], members[0].ranked.n_least, seed=0)
        over_layers[key] = highest, level
    rows = []
    for cell in cells:
        highest, level = over_layers[family(cell)]
        at_once: Interval = auroc_interval(cell.ranked, level)
        over = {"auroc_low_over_layers": at_once.low, "auroc_high_over_layers": at_once.high}
        rows.append(cell.row | {"p_value_over_layers": p_value(cell.scored.observed, highest)} | over)
    return rows


class AmongAll(NamedTuple):
    """AUROC of one layer at one place, and its null."""

    family: str
    """What it is corrected with: all of one family."""
    drawn: str
    """Which shuffles the null is of (:attr:`~safekey_interp.measures.folds.Plan.draws`)."""
    observed: float
    """AUROC under the true labels."""
    null: Float[np.ndarray, " n_permutations"]
    """Under each shuffle."""

    @classmethod
    def of(cls, cell: Cell, family: str) -> AmongAll:
        """A cell's, without its scores, which are many."""
        return cls(family, cell.drawn.draws, cell.scored.observed, cell.scored.null.copy())


def over_all_places(tested: Sequence[AmongAll]) -> list[float]:
    """``p_value_over_all`` of each layer and place; NaN without a null."""
    found = np.full(len(tested), np.nan)
    sets: dict[str, dict[str, list[int]]] = {}
    for at, one in enumerate(tested):
        if len(one.null) and np.isfinite(one.observed):
            sets.setdefault(one.family, {}).setdefault(one.drawn, []).append(at)
    for joint in sets.values():
        for members in joint.values():
            observed, null = zip(*((tested[at].observed, tested[at].null) for at in members), strict=True)
            found[members] = np.minimum(1.0, len(joint) * step_down_upper(np.array(observed), np.array(null).T))
    return found.tolist()
