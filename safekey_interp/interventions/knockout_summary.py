"""What does a knockout do on average, and more than hiding as many random keys does?

Means over traces, with bootstrap intervals over groups; ``beyond_random`` is the mean of each trace's difference
between the span and its control.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.stats import bootstrap_weights, ratio_of_means

_PLACE = ["from_span", "matched_to", "layer", "n_layers", "head"]
_MEASURES = ("effect", "aha_effect")


def summarise_knockout(table: pd.DataFrame, *, n_draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Means over traces of what :func:`~safekey_interp.interventions.attention_knockout.knockout` returned.

    Args:
        table: from ``knockout``.
        n_draws: bootstrap draws.
        seed: seed of the draws.

    Returns:
        One row per subset (all, harmful, benign; those that have traces), place (from_span, matched_to, layer,
        n_layers, head), measure (effect, aha_effect) and what: ``span``, ``random`` (its control) or ``beyond_random``
        (span − random, by trace); value, low, high (95 %, nats a token), n (traces), n_groups, and ``apart``: whether
        the interval of ``beyond_random`` leaves 0 out (else None).

    Raises:
        InputError: the table is empty.
    """
    if table.empty:
        raise InputError("knockout table: got no rows, expected what knockout returned")
    out = []
    measures = [name for name in _MEASURES if bool(np.isfinite(table[name].to_numpy(np.float64)).any())]
    places: Any = table.groupby(_PLACE, sort=False, observed=True)
    for place, part in places:
        by_trace: dict[bool, Any] = {
            bool(what): rows.set_index("trace_id") for what, rows in part.groupby(part["to_span"] == "random")
        }
        random, span = by_trace.get(True), by_trace.get(False)
        about = next(iter(by_trace.values()))[["group", "label"]]
        for measure in measures:
            columns = {}
            if span is not None:
                columns["span"] = span[measure]
            if random is not None:
                columns["random"] = random[measure]
            if len(columns) == 2:
                columns["beyond_random"] = columns["span"] - columns["random"]
            wide: Any = pd.DataFrame(columns).join(about)
            for subset in ("all", "harmful", "benign"):
                chosen = wide if subset == "all" else wide[wide["label"] == subset]
                if len(chosen):
                    rows = _means(chosen, list(columns), n_draws, seed)
                    out += [
                        {"subset": subset} | dict(zip(_PLACE, place, strict=True)) | {"measure": measure} | row
                        for row in rows
                    ]
    return pd.DataFrame(out)


def _means(wide: pd.DataFrame, names: list[str], n_draws: int, seed: int) -> list[dict[str, Any]]:
    values, groups = wide[names].to_numpy(np.float64), list(wide["group"])
    found = ratio_of_means(values, np.ones_like(values), bootstrap_weights(groups, n_draws, seed))
    rows = []
    for i, name in enumerate(names):
        low, high = found.low[i], found.high[i]
        apart = bool(low > 0 or high < 0) if name == "beyond_random" else None
        interval = {"what": name, "value": found.value[i], "low": low, "high": high}
        rows.append(interval | {"n": int(found.n[i]), "n_groups": len(set(groups)), "apart": apart})
    return rows
