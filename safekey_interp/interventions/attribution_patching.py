"""Attribution patching: first-order estimates of all swaps of activations from one backward pass.

    effect ≈ Σ_positions  ∂ metric / ∂ x_target  ·  (x_source − x_target)

the gradient taken in the target's own run (attribution patching: Nanda 2023; Syed, Rager & Conmy 2023, arXiv
2310.10348). It is exact where the metric is linear between the two states, and costs one forward and one backward pass
a trace instead of one forward pass a swap; how far it can be trusted is its correlation with the exact effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.data.conditions import FEW
from safekey_interp.generation.continuation import Continuation
from safekey_interp.interventions.activation_swaps import Swap
from safekey_interp.interventions.first_order import gradients_at
from safekey_interp.measures.intervals import NOTHING, Groups, Interval, group_codes, student

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


def attribute(
    model: Model,
    rows: Sequence[Continuation],
    swaps: Sequence[Swap],
    weights: Float[np.ndarray, "row metric"] | None = None,
    *,
    backend: Backend = "hf",
    batch_size: int | None = None,
) -> Float[np.ndarray, "swap metric"]:
    """First-order change of each metric under each swap, nats per token.

    Args:
        model: the model.
        rows: the target's continuations.
        swaps: what would be put where.
        weights: what each row counts in each metric; each row is one when None.
        backend: ``hf`` or ``bridge``.
        batch_size: rows a forward pass; as many as fit when None.
    """
    by_metric = np.eye(len(rows)) if weights is None else weights
    places = list(dict.fromkeys(swap.place for swap in swaps))
    found = gradients_at(model, rows, by_metric, places, backend=backend, batch_size=batch_size)
    effects = np.zeros((len(swaps), by_metric.shape[1]))
    for number, swap in enumerate(swaps):
        for segment in found.segments:
            effects[number] += segment.weights * segment.along(swap.place, swap.states, swap.where)
    return effects


def compare_attribution(table: pd.DataFrame) -> pd.DataFrame:
    """How well attribution patching agrees with the exact effects: correlation over traces, layers and positions.

    Where components were asked for, each has its own rows, too.

    Args:
        table: from ``patch``, with both.

    Returns:
        One row per metric, control, component (where the table has it; and ``all``) and position (and ``all``):
        pearson, low, high (95 %, over groups), slope (of the attribution by the effect, through 0), n (effects),
        n_groups. NaN where either does not vary; no row where either was not measured.

    Raises:
        KeyError: a column of ``patch``'s table is not there.
    """
    rows = []
    both: Any = table.dropna(subset=["effect", "attribution"])
    axes = [*(["component"] if "component" in table.columns else []), "position"]
    for kind, part in both.groupby(["metric", "control"], sort=False):
        for place in product(*(("all", *dict.fromkeys(part[axis])) for axis in axes)):
            chosen = part
            for axis, value in zip(axes, place, strict=True):
                chosen = chosen if value == "all" else chosen.loc[chosen[axis] == value]
            if chosen.empty:
                continue
            x, y = (chosen[name].to_numpy(np.float64) for name in ("effect", "attribution"))
            pearson, (low, high) = correlation_interval(x, y, list(chosen["group"]))
            squares = float(x @ x)
            rows.append(
                dict(zip(("metric", "control"), kind, strict=True))
                | dict(zip(axes, place, strict=True))
                | {"pearson": pearson, "low": low, "high": high}
                | {"slope": float(x @ y) / squares if squares > 0 else np.nan}
                | {"n": len(x), "n_groups": len(set(chosen["group"]))}
            )
    return pd.DataFrame(rows)


def correlation_interval(x: np.ndarray, y: np.ndarray, groups: Groups) -> tuple[float, Interval]:
    """Correlation, and its interval on Fisher's scale by a jackknife that leaves out whole groups."""
    codes = group_codes(groups)
    sums = np.stack([np.bincount(codes, part) for part in (np.ones(len(x)), x, y, x * x, y * y, x * y)])
    value = float(_correlation(sums.sum(1)))
    n = sums.shape[1]
    if n < FEW or not abs(value) < 1:
        return value, NOTHING
    without = np.arctanh(np.clip(_correlation(sums.sum(1, keepdims=True) - sums), -1 + 1e-12, 1 - 1e-12))
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    half = float(student(n - 1) * error)
    return value, Interval(float(np.tanh(np.arctanh(value) - half)), float(np.tanh(np.arctanh(value) + half)))


def _correlation(sums: Float[np.ndarray, "six ..."]) -> np.ndarray:
    """Of the sums of 1, x, y, x², y² and xy; NaN where one side does not vary."""
    n, x, y, xx, yy, xy = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)
        return np.where(spread > 1e-300, (xy / n - x * y / n**2) / np.sqrt(spread), np.nan)
