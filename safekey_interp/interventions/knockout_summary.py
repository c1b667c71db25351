"""Mean effects of a knockout, their dose-response, and what another request's span does in place.

Of each trace, place and metric, with e(d) the mean effect over the draws of dose d and e(1) that of the whole span:

    dose_slope       = least-squares slope of e(.25), e(.5), e(.75), e(1) over d       nats per token, per whole span
    dose_curvature   = e(1) − 4 · e(.25)                                               0 where keys add up
    other_minus_same = effect of the other label's span in place − of the same label's

The first two are summarised like the effect itself: the mean over traces with an interval over groups. What another
request's span does has an interval over the groups of traces and of donors (:mod:`.crossed`): one donor stands in
several traces' places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from safekey_interp.data.conditions import subsets_by_label
from safekey_interp.interventions.donors import OTHER, SAME
from safekey_interp.interventions.effects import P_VALUES, TESTED, summarise_effects, tested_rows, with_units
from safekey_interp.interventions.knockout_plan import DOSE, DOSES, OUTSIDE
from safekey_interp.measures.crossed_intervals import two_way_interval

EFFECT, SLOPE, CURVATURE, CONTRAST = "effect", "dose_slope", "dose_curvature", "other_minus_same"
"""Measures of a summary."""
_PLACE = ["from_span", "to_span", "layer", "n_layers", "head", "metric"]
_BY = [*_PLACE, "measure", "dose"]


def summarise_knockout(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of :func:`~safekey_interp.interventions.attention_knockout.knockout`, beside their controls'.

    Args:
        table: from ``knockout``.

    Returns:
        from_span, to_span, layer, n_layers, head, metric, unit (where the table has it), measure (``effect``;
        ``dose_slope``, ``dose_curvature`` and ``other_minus_same`` as above), dose, and the columns of
        :func:`~safekey_interp.interventions.effects.summarise_effects`; with n_with_control (traces that have the
        control of the row: excess and p are theirs alone), n_k and n_pool (medians over traces: keys of the span in
        sight, and keys that random ones can be drawn from). Of the effect at dose 1 the first row of a place is that
        beside ``outside_spans``, or ``none`` where no trace has it; rows beside the resampled spans follow, without a
        p. Over harmful and benign traces together ``other_minus_same`` adds two opposite changes up: read it by label.
        NaN where nothing is defined.
    """
    table = table.assign(measure=EFFECT)
    rows = tested_rows(table)
    kind: Any = table["control"]
    parts = [summarise_effects(table.loc[kind.isin([TESTED, OUTSIDE])], _BY)]
    if kind.isin([SAME, OTHER]).any():
        beside = summarise_effects(table.loc[kind.isin([TESTED, SAME, OTHER])], _BY, kinds=(SAME, OTHER))
        beside = beside.loc[beside["control_kind"] != TESTED].assign(**dict.fromkeys(P_VALUES, np.nan))
        parts += _resampled(table, beside)
    derived = [table.loc[kind == DOSE].assign(control=TESTED), *_derived(table)]
    if sum(map(len, derived)):
        parts.append(summarise_effects(pd.concat(derived, ignore_index=True), _BY))
    summary: Any = pd.concat([part for part in parts if len(part)], ignore_index=True)
    place = summary.groupby([*_BY, "subset"], sort=False, dropna=False).ngroup()
    summary = summary.iloc[np.argsort(place.to_numpy(), kind="stable")]
    summary = summary.merge(_n_with_control(table), how="left", on=[*_BY, "subset", "control_kind"])
    summary["n_with_control"] = summary["n_with_control"].fillna(0).astype(int)
    sizes: Any = rows.groupby(_PLACE, sort=False, observed=True)[["n_k", "n_pool"]].median().reset_index()
    return with_units(summary.merge(sizes, how="left", on=_PLACE), table)


def _derived(table: Any) -> list[pd.DataFrame]:
    """Rows a trace of the slope, the curvature and the contrast."""
    about = ["trace_id", "group", "label", *_PLACE]

    def wide(kinds: list[str], columns: str) -> Any:
        chosen = table.loc[table["control"].isin(kinds)].astype({"label": object})
        means = chosen.groupby([*about, columns], sort=False, dropna=False, observed=True)["effect"].mean()
        return means.unstack(columns)

    def of(values: Any, measure: str) -> pd.DataFrame:
        rows = values.rename("effect").reset_index()
        return rows.assign(control=TESTED, draw=-1, dose=1.0, measure=measure)

    derived = []
    kinds = set(table["control"])
    if DOSE in kinds:
        doses = [*DOSES, 1.0]
        by_dose = wide([TESTED, DOSE], "dose").reindex(columns=doses)
        away = np.array(doses) - np.mean(doses)
        derived.append(of((by_dose * away).sum(axis=1, skipna=False) / (away**2).sum(), SLOPE))
        derived.append(of(by_dose[1.0] - 4 * by_dose[DOSES[0]], CURVATURE))
    return derived


def _resampled(table: Any, beside: Any) -> list[pd.DataFrame]:
    """The rows beside other requests' spans, and those of the contrast, with intervals over traces and donors."""
    if beside.empty:
        return []
    pairs = table.loc[table["control"].isin([SAME, OTHER]) & table["effect"].notna()]
    hidden: Any = tested_rows(table).set_index(["trace_id", *_PLACE])["effect"]
    pairs = pairs.join(hidden.rename("hidden"), on=["trace_id", *_PLACE])
    per_trace = pairs.groupby([*_PLACE, "control", "trace_id"], observed=True)["effect"].transform("size")
    pairs = pairs.assign(weight=1.0 / per_trace)
    summary = beside.set_index([*_PLACE, "subset", "control_kind"])
    contrasts = []
    for subset in subsets_by_label(table["label"].unique()):
        for place, part in _of_subset(pairs, subset).groupby(_PLACE, sort=False, observed=True):
            for kind, rows in part.groupby("control", observed=True):
                where = (*place, subset, kind)
                numbers = {"control": rows["effect"], "excess": rows["hidden"] - rows["effect"]}
                for name, number in numbers.items():
                    value, errors = _mean(number, rows["weight"])
                    bounds = two_way_interval(value, errors, rows["group"], rows["donor_group"])
                    summary.loc[where, [name, f"{name}_low", f"{name}_high"]] = (value, *bounds)
            contrasts.append(dict(zip(_PLACE, place, strict=True)) | {"subset": subset} | _contrast(part))
    rows = pd.DataFrame(contrasts).assign(measure=CONTRAST, dose=1.0, control_kind=TESTED, n_controls=0)
    return [summary.reset_index()[list(beside.columns)], rows.loc[rows["n"] > 0]]


def _contrast(pairs: Any) -> dict[str, float]:
    """The other label's effect minus the same label's, of the traces that have both."""
    both = pairs.groupby("trace_id", observed=True)["control"].nunique()
    pairs = pairs.loc[pairs["trace_id"].isin(both.index[both == 2])]
    if pairs.empty:
        return {"value": np.nan, "low": np.nan, "high": np.nan, "n": 0, "n_groups": 0}
    parts = [pairs.loc[pairs["control"] == kind] for kind in (OTHER, SAME)]
    (other, of_other), (same, of_same) = (_mean(part["effect"], part["weight"]) for part in parts)
    rows: Any = pd.concat(parts)
    value, errors = other - same, np.concatenate([of_other, -of_same])
    low, high = two_way_interval(value, errors, rows["group"], rows["donor_group"])
    counts = {"n": pairs["trace_id"].nunique(), "n_groups": pairs["group"].nunique()}
    return {"value": value, "low": low, "high": high} | counts


def _mean(numbers: Any, weights: Any) -> tuple[float, np.ndarray]:
    """A weighted mean, and each number's share of its error."""
    share = (weights / weights.sum()).to_numpy(float)
    value = float(share @ numbers.to_numpy(float))
    return value, share * (numbers.to_numpy(float) - value)


def _of_subset(table: Any, subset: str) -> Any:
    return table if subset == "all" else table.loc[table["label"].eq(subset).fillna(False).astype(bool)]


def _n_with_control(table: Any) -> pd.DataFrame:
    """Traces that have each control, by place and subset."""
    measured = table.loc[table["control"].isin([OUTSIDE, SAME, OTHER]) & table["effect"].notna()]
    counts = []
    for subset in subsets_by_label(table["label"].unique()):
        n: Any = (
            _of_subset(measured, subset).groupby([*_BY, "control"], sort=False, observed=True)["trace_id"].nunique()
        )
        counts.append(n.rename("n_with_control").reset_index().assign(subset=subset))
    return pd.concat(counts, ignore_index=True).rename(columns={"control": "control_kind"})
