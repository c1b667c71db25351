"""Findings of responses under a direction: refusal, over-refusal and malformed answers by scale."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import Any

from safekey_interp.data.conditions import LABELS, PROMPTS_OF, TRACES_OF
from safekey_interp.interventions.effects import default_rows
from safekey_interp.interventions.intervention_parts import METRICS
from safekey_interp.reporting.findings import intervention_terms as terms
from safekey_interp.reporting.findings.finding import Finding, estimate
from safekey_interp.reporting.findings.intervention_terms import Row, Table
from safekey_interp.reporting.findings.phrases import and_list, capital

EVERY = "all"
"""The condition of all prompts."""


def find_shares(summary: Table) -> Iterator[Finding]:
    """What becomes of refusals by scale: on harmful prompts of each source, the one that is refused least first, then
    on benign ones; and of malformed answers.

    Of several layers the one is told of whose direction raises refusals of harmful prompts most over its control.
    """
    rows = default_rows(summary).dropna(subset=["value"])
    rows = rows.loc[rows["direction"] == _told(rows)]
    subsets = [label for label in LABELS if label in set(rows["subset"])] or ["all"]
    for metric, chosen in (("refused", subsets), ("malformed", ["all"])):
        for subset in chosen:
            of = rows.loc[(rows["metric"] == metric) & (rows["subset"] == subset)]
            apart = of.loc[of["condition"] != EVERY].sort_values("unedited", kind="stable")
            conditions = list(dict.fromkeys(apart["condition"])) or [EVERY]
            for condition in conditions if subset != "all" else [EVERY]:
                yield _by_scale(of.loc[of["condition"] == condition].sort_values("scale"), metric)


def _told(rows: Table) -> Any:
    """The direction that is told of."""
    of = rows.loc[(rows["metric"] == "refused") & (rows["condition"] == EVERY)]
    subset = "harmful" if (of["subset"] == "harmful").any() else "all"
    excess = of.loc[of["subset"] == subset].groupby("direction")["excess"].mean()
    return excess.idxmax() if excess.notna().any() else of["direction"].iloc[0]


def _by_scale(rows: Table, metric: str) -> Finding:
    last = rows.iloc[-1]
    condition, subset = str(last["condition"]), str(last["subset"])
    prompts = PROMPTS_OF.get(subset, TRACES_OF[subset].replace("traces", "prompts"))
    whose = prompts if condition == EVERY else f"{prompts} ({condition})"
    edited = [row for _, row in rows.iterrows() if row["scale"] != 0]
    told = edited or [last]
    shares = and_list([f"{estimate(row).text('.2f')} {_how(row)}" for row in told])
    where = "the final norm" if last["site"] == "ln_final" else f"layer {int(last['layer'])}"
    before = f"{last['unedited']:.2f} as the model is"
    text = f"{capital(METRICS[metric])}, of {whose}: {before}, {shares} (direction of {where})."
    beside = and_list([f"{estimate(row, *terms.CONTROL).text('.2f')} {_how(row)}" for row in told])
    kind = str(last["control_kind"])
    control = "none" if isnan(last["control"]) else f"{terms.control_name(kind)}: {beside}"
    short = text if metric == "refused" else ""
    return Finding(
        question="did", text=text, n=int(last["n"]), control=control, short=short, **estimate(told[-1]).fields()
    )


def _how(row: Row) -> str:
    return "with it ablated" if isnan(row["scale"]) else f"at scale {row['scale']:g}"
