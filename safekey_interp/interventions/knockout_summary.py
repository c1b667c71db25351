"""Mean effects of a knockout, their dose-response, and what another request's span does in place.

Of each trace, place and metric, with e(d) the mean effect over the draws of dose d and e(1) that of the whole span:

    dose_slope       = least-squares slope of e(.25), e(.5), e(.75), e(1) over d       nats a token, per whole span
    dose_curvature   = e(1) − 4 · e(.25)                                               0 where keys add up
    other_minus_same = effect of the other label's span in place − of the same label's

each summarised like the effect itself: the mean over traces with a bootstrap over groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from safekey_interp.conditions import SUBSETS
from safekey_interp.interventions.donors import OTHER, SAME
from safekey_interp.interventions.effects import TESTED, summarise_effects, tested_rows
from safekey_interp.interventions.knockout_rows import DOSE, DOSES, OUTSIDE

EFFECT, SLOPE, CURVATURE, CONTRAST = "effect", "dose_slope", "dose_curvature", "other_minus_same"
"""Measures of a summary."""
_PLACE = ["from_span", "to_span", "layer", "n_layers", "head", "metric"]
_BY = [*_PLACE, "measure", "dose"]


def summarise_knockout(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of :func:`~safekey_interp.interventions.attention_knockout.knockout`, beside their controls'.

    Args:
        table: from ``knockout``.

    Returns:
        from_span, to_span, layer, n_layers, head, metric, measure (``effect``; ``dose_slope``, ``dose_curvature`` and
        ``other_minus_same`` as above), dose, and the columns of
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
        parts.append(beside.loc[beside["control_kind"] != TESTED].assign(p_value=np.nan))
    derived = [table.loc[kind == DOSE].assign(control=TESTED), *_derived(table)]
    if sum(map(len, derived)):
        parts.append(summarise_effects(pd.concat(derived, ignore_index=True), _BY))
    summary: Any = pd.concat([part for part in parts if len(part)], ignore_index=True)
    place = summary.groupby([*_BY, "subset"], sort=False, dropna=False).ngroup()
    summary = summary.iloc[np.argsort(place.to_numpy(), kind="stable")]
    summary = summary.merge(_n_with_control(table), how="left", on=[*_BY, "subset", "control_kind"])
    summary["n_with_control"] = summary["n_with_control"].fillna(0).astype(int)
    sizes: Any = rows.groupby(_PLACE, sort=False, observed=True)[["n_k", "n_pool"]].median().reset_index()
    return summary.merge(sizes, how="left", on=_PLACE)


def _derived(table: Any) -> list[pd.DataFrame]:
    """Rows a trace of the slope, the curvature and the contrast."""
    about = ["trace_id", "group", "label", *_PLACE]

    def wide(kinds: list[str], columns: str) -> Any:
        mine = table.loc[table["control"].isin(kinds)].astype({"label": object})
        means = mine.groupby([*about, columns], sort=False, dropna=False, observed=True)["effect"].mean()
        return means.unstack(columns)

    def of(values: Any, measure: str) -> pd.DataFrame:
        rows = values.rename("effect").reset_index()
        return rows.assign(control=TESTED, draw=-1, dose=1.0, measure=measure)

    found = []
    kinds = set(table["control"])
    if DOSE in kinds:
        doses = [*DOSES, 1.0]
        by_dose = wide([TESTED, DOSE], "dose").reindex(columns=doses)
        away = np.array(doses) - np.mean(doses)
        found.append(of((by_dose * away).sum(axis=1, skipna=False) / (away**2).sum(), SLOPE))
        found.append(of(by_dose[1.0] - 4 * by_dose[DOSES[0]], CURVATURE))
    if {SAME, OTHER} <= kinds:
        by_kind = wide([SAME, OTHER], "control").reindex(columns=[SAME, OTHER])
        found.append(of(by_kind[OTHER] - by_kind[SAME], CONTRAST))
    return found


def _n_with_control(table: Any) -> pd.DataFrame:
    """Traces that have each control, by place and subset."""
    there = table.loc[table["control"].isin([OUTSIDE, SAME, OTHER]) & table["effect"].notna()]
    counts = []
    for subset in SUBSETS:
        mine = there if subset == "all" else there.loc[there["label"].eq(subset).fillna(False).astype(bool)]
        n: Any = mine.groupby([*_BY, "control"], sort=False, observed=True)["trace_id"].nunique()
        counts.append(n.rename("n_with_control").reset_index().assign(subset=subset))
    return pd.concat(counts, ignore_index=True).rename(columns={"control": "control_kind"})
