"""Which changes between the first and the last look would chance give too? Each beside its controls."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from safekey_interp.reporting.figures.aha_figures import WHOSE
from safekey_interp.reporting.figures.attention_snapshot_figures import ends_of, name_of_look, over_layers
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import AUROC_OVER_LAYERS, LEVEL, Estimate, estimate
from safekey_interp.reporting.labels import POSITIONS, SPANS, position_name
from safekey_interp.reporting.pages.controls_table import Row, comparison, probe_row
from safekey_interp.reporting.pages.html import Html, el, join

_HEADS = {"key_sentence": "K", "decision": "Decision row"}


class Changes(NamedTuple):
    """What the last look measured, beside the first look and the other controls; the first look comes first."""

    aha: list[Row]
    """Safe key sentences less go-aheads, nats per token."""
    attention: list[Row]
    """Attention over all layers, × distance-matched baseline."""
    probes: list[Row]
    """AUROC of the probe in one layer."""


def changes(aha: Table | None, by_layer: Table | None, separability: Table | None) -> Changes:
    """The numbers of the last look beside those of the first; none from a table with a single look."""
    return Changes(
        _aha_rows(aha) if _has_two_looks(aha) else [],
        _attention_rows(by_layer) if _has_two_looks(by_layer) else [],
        _probe_rows(separability) if _has_two_looks(separability) else [],
    )


def against_chance(found: Changes) -> Html:
    """Lists: the last look, the first, each control, and whether their intervals part."""
    if not any(found):
        return el("p", "Nothing to compare: this run has no two looks with the probes.", class_="absent")
    parts = []
    if found.aha:
        low, high = _range(found.aha)
        title = "Safe key sentences less go-aheads at the last look, nats per token"
        parts.append(comparison(found.aha, f"{title} (bars from {low:.1f} to {high:.1f})", low, high))
    if found.attention:
        _, high = _range(found.attention)
        title = "Attention over all layers at the last look, × distance-matched baseline"
        parts.append(comparison(found.attention, f"{title} (bars from 0 to {high:.1f})", 0.0, high))
    if found.probes:
        title = "AUROC of the logistic probe at the last look (bars from 0.3 to 1)"
        parts.append(comparison(found.probes, title, 0.3, 1.0))
    note = (
        "“Above” and “below” mean that the two 95 % intervals do not touch. Both looks are at the same traces, so that "
        "this is a careful test: a change that it cannot tell may still be there. Layers were picked after looking at "
        "all of them, by the mean of both looks; against shuffled labels the verdict of a probe is therefore the "
        "p-value of the best of all layers at the last look, corrected for the number of positions."
    )
    losses = (
        "One run says what changed, not what changed it. Whether a loss did it is told by a run of the same seed "
        "without it: head_weight or query_mask_weight at 0, the head with shuffled_labels, or key_weight in place of "
        "query_mask_weight. Losses have no interval here and no verdict: they are means over the held-out traces."
    )
    return join(*parts, el("p", note, class_="muted"), el("p", losses, class_="muted"))


def look_of(table: Table) -> str:
    """What the first look of a table is called."""
    return name_of_look(int(table["step"].min()))


def _has_two_looks(table: Table | None) -> bool:
    return table is not None and table["step"].nunique() > 1


def _aha_rows(aha: Table) -> list[Row]:
    difference = aha[aha["measure"] == "difference"].dropna(subset=["value"])
    first, last = ({row["subset"]: row for _, row in part.iterrows()} for part in ends_of(difference))
    there = [name for name in ("harmful", "benign") if name in first and name in last]
    rows = []
    for subset in there or [name for name in ("all",) if name in first and name in last]:
        controls = {look_of(aha): estimate(first[subset])}
        if subset == "harmful" and "benign" in there:
            controls["benign prompts"] = estimate(last["benign"])
        name = WHOSE[subset].capitalize()
        rows.append(Row(name, _sizes(last[subset]), estimate(last[subset]), controls, "understanding"))
    return rows


def _attention_rows(by_layer: Table) -> list[Row]:
    rows = []
    every = by_layer[by_layer["subset"] == "all"]
    for from_span, to_span in itertools.product(_HEADS, ("understanding", "prompt")):
        part = over_layers(every[(every["from_span"] == from_span) & (every["to_span"] == to_span)])
        if len(part) < 2:
            continue
        first, last = part.iloc[0], part.iloc[-1]
        controls = {look_of(part): estimate(first), "distance-matched baseline": Estimate(1.0, np.nan, np.nan)}
        name = f"{_HEADS[from_span]} on {SPANS[to_span].partition(',')[0]}"
        rows.append(Row(name, f"all layers, {_sizes(last)}", estimate(last), controls, to_span))
    return rows


def _probe_rows(separability: Table) -> list[Row]:
    probes = separability[separability["method"] == "logistic"].dropna(subset=["auroc"])
    before_k = separability[~separability["after_the_fact"].astype(bool)]
    level = LEVEL / max(1, before_k["position"].nunique())
    there = [str(name) for name in probes["position"].unique()]
    rows = []
    for position in [name for name in POSITIONS if name in there]:
        mine = probes[probes["position"] == position]
        first, last = (part.set_index(["layer", "site"]) for part in ends_of(mine))
        both = first.index.intersection(last.index)
        if mine["step"].nunique() < 2 or both.empty:
            continue
        place = (first.loc[both, "auroc"] + last.loc[both, "auroc"]).idxmax()
        best, words = last.loc[place], separability[separability["position"] == position]
        name = position_name(position)
        site = "after the final norm" if place[1] == "ln_final" else f"layer {int(place[0])}"
        late = ", after the fact" * bool(best["after_the_fact"])
        where = f"{site}{late}, {_sizes(best)}"
        row = probe_row(f"{name[0].upper()}{name[1:]}", where, best, ends_of(words).last, level)
        rows.append(
            row._replace(controls={look_of(mine): estimate(first.loc[place], *AUROC_OVER_LAYERS)} | row.controls)
        )
    return rows


def _sizes(row: Table) -> str:
    return f"n = {int(row['n']):,} in {int(row['n_groups']):,} groups"


def _range(rows: list[Row]) -> tuple[float, float]:
    numbers = [value for row in rows for one in (row.measured, *row.controls.values()) for value in one]
    finite = [value for value in numbers if np.isfinite(value)]
    return min(0.0, *finite), max(0.0, *finite)
