"""Mean effects over traces with intervals, beside those of each kind of control.

The column ``control`` of an intervention's table says what a row is: ``none`` for what was tested, else the kind of
control (``shuffled_labels``, ``random_keys`` …). A summary has the mean over traces, with a 95 % interval over
groups; the control's mean in the same way, of each trace's mean over the control's draws; and ``excess``, tested
minus control, trace by trace, so that what a trace has in common with its control cancels. With several draws

    p_value = (1 + #{draws: |draw − mean of all| >= |value − mean of all|}) / (1 + draws)       Phipson & Smyth 2010

and ``p_value_over_all`` of the same, corrected for all places of a family (:mod:`safekey_interp.measures.step_down`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from safekey_interp.data.conditions import subsets_by_label
from safekey_interp.errors import InputError, RunError
from safekey_interp.measures.intervals import (
    NOTHING,
    RatioOfMeans,
    difference_of_shares,
    ratio,
    ratio_of_means,
    share_interval,
)
from safekey_interp.measures.step_down import step_down_p_values

P_VALUES = ["p_value", "p_value_over_all"]
"""Columns of a summary that compare a mean with the draws of its control."""
TESTED = "none"
"""The control of a row that is no control, and of a summary's row that has none beside it."""
_IN_MODEL = ("layer", "n_layers", "head")
"""Columns that say where in the model: places that differ in these alone are one family."""


def tested_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of an intervention's table that are no control.

    Raises:
        InputError: there is none, or no column ``control``.
    """
    kinds = sorted(set(table["control"].astype(str))) if "control" in table.columns else "no such column"
    if TESTED not in kinds:
        raise InputError(
            f"column control of the table: got {kinds}, expected {TESTED!r} for the tested rows and a kind for the "
            "others; measure again with this version"
        )
    return table.loc[table["control"] == TESTED]


def about_first(table: pd.DataFrame, about: Mapping[str, object]) -> pd.DataFrame:
    """A trace's rows, with the columns that say which trace it is before the others."""
    columns = {name: pd.Series([value] * len(table), index=table.index, dtype=object) for name, value in about.items()}
    return pd.DataFrame(columns | dict(table.items()))


def control_kinds(table: pd.DataFrame, first: Sequence[str] = ()) -> list[str]:
    """Kinds of control in an intervention's table: those of ``first`` in its order, then the others as they come."""
    kinds = [str(kind) for kind in table["control"].unique() if kind != TESTED]
    return [*(kind for kind in first if kind in kinds), *(kind for kind in kinds if kind not in first)]


def default_rows(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per place and subset of a summary: beside the first kind of control that it has there.

    Raises:
        RunError: the summary has no column ``control_kind``.
    """
    columns = list(summary.columns)
    if "control_kind" not in columns:
        raise RunError("summary: no column control_kind, an earlier version wrote it; run the intervention again")
    return summary.drop_duplicates(columns[: columns.index("subset") + 1])


def with_units(summary: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A summary with the unit of each row's metric behind it, where the table that it is of says units."""
    if "unit" in table.columns:
        units = dict(zip(table["metric"], table["unit"], strict=True))
        summary.insert(
            list(summary.columns).index("metric") + 1,
            "unit",
            pd.Series([units[name] for name in summary["metric"]], index=summary.index, dtype=object),
        )
    return summary


def summarise_effects(
    table: pd.DataFrame,
    by: Sequence[str],
    *,
    value: str = "effect",
    over: str | None = None,
    kinds: Sequence[str] = (),
    joint: Sequence[str] | None = None,
    shares: bool = False,
) -> pd.DataFrame:
    """Means over traces with intervals, beside each kind of control's.

    Args:
        table: one row per trace, place and draw: trace_id, group, label, control (``none`` or a kind), draw, the
            columns of ``by``.
        by: what tells the places apart.
        value: the column that is averaged.
        over: a column whose mean the mean is divided by (ratio of means); none when None.
        kinds: order of the kinds of control, the default first; others follow as they come in the table.
        joint: columns in which the places of one family are alike (all places are one when empty), over which
            ``p_value_over_all`` is corrected, by the draws that all of these have; when None, ``by`` without the
            columns that say where in the model.
        shares: the values are in [0, 1], and intervals those of shares; not with ``over``.

    Returns:
        One row per place, subset and kind of control; where there is none, one with ``control_kind`` ``none`` and NaN.
        Columns: ``by``, subset (all, and each label where they are at most two), control_kind, value, low, high,
        control, control_low, control_high, excess, excess_low, excess_high, p_value, p_value_over_all, n (traces),
        n_groups, n_controls (draws of the kind). NaN where nothing is defined.
        ``p_value`` = (1 + draws as far from the mean of all as the value is) / (1 + draws), two-sided, of one place
        that was named beforehand; ``p_value_over_all`` by step-down max-T, of any place of its family.

    Raises:
        InputError: no row is tested.
    """
    names = list(by)
    about = table.drop_duplicates("trace_id").set_index("trace_id")
    tested = tested_rows(table)
    wide = _wide(tested, names, value, about.index)
    below = np.ones(wide.shape) if over is None else _wide(tested, names, over, about.index)
    top, bottom = np.asarray(wide, np.float64), np.asarray(below, np.float64)
    places = [place if isinstance(place, tuple) else (place,) for place in wide.columns]
    alike = [name for name in names if name not in _IN_MODEL] if joint is None else joint
    family = [tuple(str(place[names.index(one)]) for one in alike) for place in places]
    controls: list[_Control] = []
    for kind in control_kinds(table, kinds):
        rows = table.loc[table["control"] == kind]
        parts = (rows, *(part for _, part in rows.groupby("draw", sort=True)))
        mean, *draws = (_wide(part, names, value, about.index).reindex(columns=wide.columns) for part in parts)
        controls.append(_Control(kind, np.asarray(mean, np.float64), [np.asarray(draw, np.float64) for draw in draws]))
    found: list[dict[str, Any]] = []
    for subset in subsets_by_label(about["label"]):
        chosen = (
            np.ones(len(about), bool) if subset == "all" else (about["label"] == subset).to_numpy(bool, na_value=False)
        )
        if not chosen.any():
            continue
        groups = about["group"].to_numpy()[chosen]
        figure = (
            share_of_columns(top[chosen], groups) if shares else ratio_of_means(top[chosen], bottom[chosen], groups)
        )
        beside = [control.beside(top, bottom, chosen, groups, family, shares=shares) for control in controls]
        for i, place in enumerate(places):
            defined = ~(np.isnan(top[chosen, i]) | np.isnan(bottom[chosen, i]))
            head = dict(zip(names, place, strict=True)) | {"subset": subset}
            measured = {"value": figure.value[i], "low": figure.low[i], "high": figure.high[i]}
            counts = {"n": int(defined.sum()), "n_groups": len(set(groups[defined]))}
            there = [dict(side[i]) for side in beside if side[i]["n_controls"] > 0]
            for side in there or [_without()]:
                kind, n_controls = side.pop("control_kind"), int(side.pop("n_controls"))
                found.append(head | {"control_kind": kind} | measured | side | counts | {"n_controls": n_controls})
    return pd.DataFrame(found)


def share_of_columns(
    shares: Float[np.ndarray, "n columns"],
    groups: Sequence[str] | np.ndarray,
    minus: Float[np.ndarray, "n columns"] | None = None,
) -> RatioOfMeans:
    """Mean of each column of values in [0, 1], or that less the mean of another such, with its interval over groups."""
    names = np.asarray(groups)
    found = []
    for column in range(shares.shape[1]):
        value, other = shares[:, column], None if minus is None else minus[:, column]
        defined = ~np.isnan(value if other is None else value - other)
        value, own = value[defined], names[defined]
        bounds = NOTHING
        if len(value) and other is None:
            bounds = share_interval(value, own)
        elif len(value) and other is not None:
            bounds = difference_of_shares((other[defined], own), (value, own))
            value = value - other[defined]
        found.append((value.mean() if len(value) else np.nan, *bounds, len(value), len(set(own))))
    return RatioOfMeans(*np.array(found, np.float64).reshape(-1, 5).T)


class _Control(NamedTuple):
    """One kind of control, of all traces."""

    kind: str
    mean: Float[np.ndarray, "trace place"]
    """Over its draws."""
    draws: list[Float[np.ndarray, "trace place"]]
    """Each of them."""

    def beside(
        self,
        top: Float[np.ndarray, "trace place"],
        bottom: Float[np.ndarray, "trace place"],
        chosen: Bool[np.ndarray, " trace"],
        groups: np.ndarray,
        family: list[tuple[str, ...]],
        *,
        shares: bool,
    ) -> list[dict[str, Any]]:
        """Numbers a place, of the chosen traces."""
        over = bottom[chosen]
        numbers: dict[str, Any] = {"control_kind": self.kind}
        control, value = self.mean[chosen], top[chosen]
        if shares:
            figures = share_of_columns(control, groups), share_of_columns(value, groups, control)
        else:
            figures = ratio_of_means(control, over, groups), ratio_of_means(value - control, over, groups)
        for name, figure in zip(("control", "excess"), figures, strict=True):
            numbers |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        # From the mean of all of them, which the value that is tested has no other part in than each draw; of the
        # traces that have this control, as the excess is.
        tested = np.where(np.isnan(self.mean), np.nan, top)
        means = np.stack([ratio(each[chosen], over) for each in (tested, *self.draws)])
        away = np.abs(means - np.nanmean(np.where(np.isnan(means).all(0), 0.0, means), axis=0))
        n = (~np.isnan(means[1:])).sum(0)
        usable = (n > 0) & ~np.isnan(means[0])
        numbers["p_value"] = np.where(usable, (1 + np.sum(away[1:] >= away[0], axis=0)) / (1 + n), np.nan)
        over_all = np.full(len(family), np.nan)
        for one in set(family):
            alike = np.array([other == one for other in family])
            over_all[alike] = step_down_p_values(means[0, alike], means[1:, alike])
        numbers["p_value_over_all"] = over_all
        return pd.DataFrame(numbers | {"n_controls": n}).to_dict("records")


def _without() -> dict[str, Any]:
    """What stands beside a mean that has no control."""
    columns = [*(f"{name}{end}" for name in ("control", "excess") for end in ("", "_low", "_high")), *P_VALUES]
    return {"control_kind": TESTED} | dict.fromkeys(columns, np.nan) | {"n_controls": 0}


def _wide(table: pd.DataFrame, by: list[str], value: str, index: pd.Index) -> pd.DataFrame:
    """A row a trace and a column a place; the mean over whatever else tells rows apart."""
    means: Any = table.groupby(["trace_id", *by], sort=False, dropna=False, observed=True)[value].mean()
    return means.unstack(by).reindex(index)
