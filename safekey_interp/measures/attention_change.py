"""Change of a lift between two models, split into its numerator and its denominator.

Does the mass change, or the baseline that it is divided by? With lift = Σ mass / Σ matched_mass over traces, layers and
heads, and two models A and B that read the same traces,

    log(lift_B / lift_A) = log(mass_B / mass_A) − log(matched_B / matched_A)

so a lift may rise because a model attends more to a span, or because the reference rows attend less to tokens as far
away. Intervals are 95 % over groups: the log changes are linearised by group (u_g = Σ_g mass_B / Σ mass_B - Σ_g mass_A
/ Σ mass_A, minus the same of the baseline), so that both models' traces of a group count together
(:mod:`safekey_interp.measures.intervals`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.measures.intervals import group_codes, ratio_of_means

PARTS = ("lift", "mass", "matched")
"""The lift, its numerator and its denominator."""
_KEYS = ["from_span", "to_span", "trace_id"]


class RatioChange(NamedTuple):
    """How one part differs between two models."""

    first: float
    """The first model's: a lift, or a mean over traces of sums over layers and heads."""
    second: float
    """The second model's."""
    log_change: float
    """log(second / first), natural; NaN where one of them is 0."""
    low: float
    """Lower end of its 95 % interval; NaN below ten groups."""
    high: float
    """Upper end."""
    n: int
    """Traces that both models have."""
    n_groups: int
    """Groups of these traces."""


def split_lift_change(
    first: pd.DataFrame, second: pd.DataFrame, groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Change of attention over the distance-matched baseline between two models, split into mass and baseline.

    Args:
        first: one model's table from :func:`~safekey_interp.measures.attention.measure_attention`, over the layers and
            heads that count: filter it to one layer for that layer's change.
        second: the other model's, of the same traces.
        groups: group of each trace id, for the intervals; each trace its own when None.

    Returns:
        Three rows per pair of spans, ``part`` being lift, mass and matched: from_span, to_span, part, first, second,
        log_change (natural log of second / first), low, high (95 %), n, n_groups. The log change of the lift is that of
        the mass minus that of the baseline.

    Raises:
        InputError: no trace id in common.
    """
    sums = [_sums(table, groups) for table in (first, second)]
    shared = sums[0].index.intersection(sums[1].index)
    if not len(shared):
        raise InputError(
            "first, second: got tables that have no pair of spans of one trace in common, expected tables of the same "
            "traces"
        )
    rows: list[dict[str, Any]] = []
    for place in shared.droplevel("trace_id").unique():
        parts = split_change(*(table.xs(place, level=_KEYS[:2]) for table in sums))
        rows += [
            {"from_span": place[0], "to_span": place[1], "part": part, **change._asdict()}
            for part, change in parts.items()
        ]
    return pd.DataFrame(rows)


def split_change(first: Any, second: Any) -> dict[str, RatioChange]:
    """The same from sums by trace.

    Args:
        first: ``top`` (mass), ``bottom`` (matched mass) and ``group`` by trace id, of one model.
        second: of the other; traces that one of them lacks do not count.

    Returns:
        By :data:`PARTS`.
    """
    shared = first.index.intersection(second.index)
    first_sums, second_sums = (table.loc[shared, ["top", "bottom"]].to_numpy(float) for table in (first, second))
    names = [str(name) for name in first.loc[shared, "group"]]
    codes = group_codes(names)
    n_groups = len(set(names))
    changes = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [
            np.stack([np.bincount(codes, column) for column in part.T], 1) / part.sum(0)
            for part in (first_sums, second_sums)
        ]
        mass, matched = (shares[1] - shares[0]).T
        sums = np.stack([first_sums.sum(0), second_sums.sum(0)])
        parts = {
            "lift": (sums[:, 0] / sums[:, 1], mass - matched),
            "mass": (sums[:, 0] / len(shared), mass),
            "matched": (sums[:, 1] / len(shared), matched),
        }
        for part, (values, influence) in parts.items():
            change = float(np.log(values[1] / values[0]))
            change = change if np.isfinite(change) else np.nan
            # Their mean is the change, and their spread that of its groups.
            spread = (change + n_groups * influence)[:, None]
            interval = ratio_of_means(spread, np.ones_like(spread), range(n_groups))
            bounds = float(interval.low[0]), float(interval.high[0])
            changes[part] = RatioChange(float(values[0]), float(values[1]), change, *bounds, len(shared), n_groups)
    return changes


def _sums(table: pd.DataFrame, groups: Mapping[str, str] | None) -> Any:
    """``top``, ``bottom`` and ``group`` by pair of spans and trace."""
    rows: Any = table[[*_KEYS, "mass", "matched_mass"]].dropna()
    rows = rows.astype(dict.fromkeys(_KEYS, str) | {"mass": float, "matched_mass": float})
    sums = rows.groupby(_KEYS).sum().rename(columns={"mass": "top", "matched_mass": "bottom"})
    ids = sums.index.get_level_values("trace_id")
    return sums.assign(group=[groups[name] if groups else name for name in ids])
