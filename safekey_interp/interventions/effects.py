"""How large is an effect over traces, how sure, and how large is its control's?

Mean over traces of what an intervention changes, with a 95 % percentile bootstrap over groups; the control's mean in
the same way, of each trace's mean over the control's draws; and ``excess``, tested less control, trace by trace, so
that what a trace has in common with its control cancels. With several draws (random directions),

    p_value = (1 + #{draws: |mean of the draw| >= |mean|}) / (1 + draws)       Phipson & Smyth 2010

and for the best of many places ``p_value_over_all``, with the largest |mean| of each draw (Westfall & Young 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from safekey_interp.conditions import SUBSETS
from safekey_interp.errors import NothingMeasured
from safekey_interp.stats import bootstrap_weights, ratio_of_means


def joined(tables: Sequence[pd.DataFrame], left_out: dict[str, str], why: str) -> pd.DataFrame:
    """The tables of the traces that were measured as one, the others' reasons in ``attrs["left_out"]``.

    Raises:
        NothingMeasured: there is none; ``why`` says so in words.
    """
    if not tables:
        raise NothingMeasured(why, left_out)
    table = pd.concat(tables, ignore_index=True)
    table.attrs["left_out"] = left_out
    return table


def summarise_effects(
    table: pd.DataFrame,
    by: Sequence[str],
    *,
    value: str = "effect",
    over: str | None = None,
    joint: bool = False,
    n_draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means over traces with intervals, beside the control's.

    Args:
        table: one row per trace, place and draw: trace_id, group, label, control (bool), draw, the columns of ``by``.
        by: what tells the rows of the result apart.
        value: the column that is averaged.
        over: a column whose mean the mean is divided by (ratio of means); none when None.
        joint: also compare each mean with the largest of each draw's.
        n_draws: bootstrap draws.
        seed: of the bootstrap.

    Returns:
        ``by``, subset (all, harmful, benign; those that have traces), value, low, high, control, control_low,
        control_high, excess, excess_low, excess_high, p_value (and
        ``p_value_over_all`` where asked for), n (traces), n_groups, n_controls (draws). NaN where nothing is defined.
        ``p_value`` = (1 + draws as far from the mean of all as the value is) / (1 + draws), two-sided.
    """
    names = list(by)
    about = table.drop_duplicates("trace_id").set_index("trace_id")
    tested = _wide(table.loc[~table["control"]], names, value, about.index)
    control = _wide(table.loc[table["control"]], names, value, about.index).reindex(columns=tested.columns)
    below = np.ones(tested.shape) if over is None else _wide(table.loc[~table["control"]], names, over, about.index)
    below = np.asarray(below, np.float64)
    by_draw = [
        _wide(part, names, value, about.index).reindex(columns=tested.columns).to_numpy(np.float64)
        for _, part in table.loc[table["control"]].groupby("draw", sort=True)
    ]
    places = [place if isinstance(place, tuple) else (place,) for place in tested.columns]
    rows = []
    for subset in SUBSETS:
        chosen = (
            np.ones(len(about), bool) if subset == "all" else (about["label"] == subset).to_numpy(bool, na_value=False)
        )
        if not chosen.any():
            continue
        groups = about["group"].to_numpy()[chosen]
        weights = bootstrap_weights(list(groups), n_draws, seed)
        top, side, bottom = (np.asarray(part, np.float64)[chosen] for part in (tested, control, below))
        parts = {"value": top, "control": side, "excess": top - side}
        figures = {name: ratio_of_means(part, bottom, weights) for name, part in parts.items()}
        draws = np.full((len(by_draw), len(places)), np.nan)
        for number, part in enumerate(by_draw):
            draws[number] = ratio_of_means(part[chosen], bottom, weights[:1]).value
        n_controls = (~np.isnan(draws)).sum(0)
        # From the mean of all of them, which the value that is tested has no other part in than each draw.
        everyone = np.vstack([figures["value"].value, draws])
        away = np.abs(everyone - np.nanmean(np.where(np.isnan(everyone).all(0), 0.0, everyone), axis=0))
        beyond = np.sum(away[1:] >= away[0], axis=0)
        largest = np.nan_to_num(away[1:]).max(1, initial=0.0, keepdims=True)
        beyond_all = np.sum(largest >= away[0], axis=0)
        for i, place in enumerate(places):
            row: dict[str, Any] = dict(zip(names, place, strict=True)) | {"subset": subset}
            for name, figure in figures.items():
                bounds = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
                row |= dict(zip((name, *bounds), (figure.value[i], figure.low[i], figure.high[i]), strict=True))
            defined = ~(np.isnan(top[:, i]) | np.isnan(bottom[:, i]))
            n = int(n_controls[i])
            counts = {"n": int(defined.sum()), "n_groups": len(set(groups[defined])), "n_controls": n}
            p_value = (1 + int(beyond[i])) / (1 + n) if n and defined.any() else np.nan
            row["p_value"] = p_value
            if joint:
                row["p_value_over_all"] = (1 + int(beyond_all[i])) / (1 + n) if n and defined.any() else np.nan
            rows.append(row | counts)
    return pd.DataFrame(rows)


def _wide(table: pd.DataFrame, by: list[str], value: str, index: pd.Index) -> pd.DataFrame:
    """A row a trace and a column a place; the mean over whatever else tells rows apart."""
    means: Any = table.groupby(["trace_id", *by], sort=False, dropna=False, observed=True)[value].mean()
    return means.unstack(by).reindex(index)
