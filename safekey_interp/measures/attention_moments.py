"""Mean and standard deviation of attention over any number of traces, by layer, from running sums.

Of each trace, averaged over heads, the value and its square are summed, and counted where they are defined:
mean = Σ x / n, sd² = (Σ x² - n · mean²) / (n - 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from safekey_interp.capture.capture_request import RECIPE, SpanPairs
from safekey_interp.measures.attention_summary import QUANTITIES, HeadSums

_SHOWN = ("mass", "uniform_mass", "random_mass", "matched_mass", "matched_mass_other", "entropy")


def with_squares(by_layer: np.ndarray) -> np.ndarray:
    """What is summed of a trace, (layer, pair, quantity, 2): its values by layer and their squares."""
    values = by_layer.astype(np.float64)
    return np.stack([values, values**2], axis=-1)


def moments_table(sums: HeadSums, layers: Sequence[int], spans: SpanPairs = RECIPE) -> pd.DataFrame:
    """Moments over traces.

    Args:
        sums: of :func:`with_squares`, for each subset.
        layers: the layers' numbers.
        spans: what the pairs are.

    Returns:
        subset, from_span, to_span, layer, measure, mean, sd (over traces; NaN of fewer than two), n.
    """
    rows = []
    for subset in sums.sums:
        total, square = np.moveaxis(sums.sums[subset], -1, 0)
        count = sums.counts[subset][..., 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / count
            sd = np.where(count > 1, np.sqrt(np.maximum(square - count * mean**2, 0) / (count - 1)), np.nan)
        for at, layer in enumerate(layers):
            for pair, (query, key) in enumerate(spans.names):
                for name in _SHOWN:
                    where = at, pair, QUANTITIES.index(name)
                    if count[where]:
                        row = {"subset": subset, "from_span": query, "to_span": key, "layer": layer, "measure": name}
                        rows.append(row | {"mean": mean[where], "sd": sd[where], "n": count[where]})
    return pd.DataFrame(rows)
