"""Changes from the first to the last snapshot of a training run, each beside its controls."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from safekey_interp.reporting.figures.aha_figures import WHOSE
from safekey_interp.reporting.figures.attention_snapshot_figures import ends_of, over_layers, snapshot_name
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import AUROC_OVER_LAYERS, Estimate, estimate
from safekey_interp.reporting.findings.phrases import capital
from safekey_interp.reporting.labels import POSITIONS, SPANS, known_first, position_name
from safekey_interp.reporting.pages.controls_table import BesideControls, Row, comparison, probe_row
from safekey_interp.reporting.probe_rows import probe_rows

_HEADS = {"key_sentence": "K", "decision": "Decision row"}
_BUILT_IN: list[tuple[str, str]] = [*itertools.product(_HEADS, ("understanding", "prompt"))]


class Changes(NamedTuple):
    """What the last snapshot measured, beside the first and the other controls; the first comes first."""

    aha: list[Row]
    """Safe minus compliant key sentences, nats per token."""
    attention: list[Row]
    """Attention over all layers, × distance-matched baseline."""
    probes: list[Row]
    """AUROC of the probe in one layer."""


def changes(aha: Table | None, by_layer: Table | None, separability: Table | None) -> Changes:
    """The numbers of the last snapshot beside those of the first; none from a table with a single one."""
    return Changes(
        _aha_rows(aha) if _has_two_snapshots(aha) else [],
        _attention_rows(by_layer) if _has_two_snapshots(by_layer) else [],
        _probe_rows(separability) if _has_two_snapshots(separability) else [],
    )


def lists_of(measured: Changes) -> list[BesideControls]:
    """Lists for the page: the last snapshot, the first, each control, and whether their intervals part."""
    low, high = _range(measured.aha)
    _, top = _range(measured.attention)
    likelihood = "Safe minus compliant key sentences at the last snapshot, nats per token"
    attention = "Attention over all layers at the last snapshot, × distance-matched baseline"
    lists = [
        (measured.aha, f"{likelihood} (bars from {low:.1f} to {high:.1f})", low, high),
        (measured.attention, f"{attention} (bars from 0 to {top:.1f})", 0.0, top),
        (measured.probes, "AUROC of the logistic probe at the last snapshot (bars from 0.3 to 1)", 0.3, 1.0),
    ]
    return [comparison(rows, title, low, high) for rows, title, low, high in lists if rows]


def first_name(table: Table) -> str:
    """What the first snapshot of a table is called."""
    return snapshot_name(int(table["step"].min()))


def _has_two_snapshots(table: Table | None) -> bool:
    return table is not None and table["step"].nunique() > 1


def _aha_rows(aha: Table) -> list[Row]:
    difference = aha[aha["measure"] == "difference"].dropna(subset=["value"])
    first, last = ({row["subset"]: row for _, row in part.iterrows()} for part in ends_of(difference))
    there = [name for name in ("harmful", "benign") if name in first and name in last]
    rows = []
    for subset in there or [name for name in ("all",) if name in first and name in last]:
        controls = {first_name(aha): estimate(first[subset])}
        if subset == "harmful" and "benign" in there:
            controls["benign prompts"] = estimate(last["benign"])
        name = WHOSE[subset].capitalize()
        measured = estimate(last[subset])
        rows.append(Row(name, "", measured, controls, "understanding", n=_sizes(last[subset])))
    return rows


def _attention_rows(by_layer: Table) -> list[Row]:
    rows = []
    every = by_layer[by_layer["subset"] == "all"]
    for from_span, to_span in _pairs(every):
        part = over_layers(every[(every["from_span"] == from_span) & (every["to_span"] == to_span)])
        if len(part) < 2:
            continue
        first, last = part.iloc[0], part.iloc[-1]
        controls = {first_name(part): estimate(first), "distance-matched baseline": Estimate(1.0, np.nan, np.nan)}
        name, tone = f"{from_span} on {to_span}", "prompt"
        if (from_span, to_span) in _BUILT_IN:
            name, tone = f"{_HEADS[from_span]} on {SPANS[to_span].partition(',')[0]}", to_span
        rows.append(Row(name, "all layers", estimate(last), controls, tone, n=_sizes(last)))
    return rows


def _pairs(by_layer: Table) -> list[tuple[str, str]]:
    """Of the built-in question K and the token before it, on U and X; of own queries all that were measured."""
    spans = [[str(name) for name in by_layer[side]] for side in ("from_span", "to_span")]
    there = list(dict.fromkeys(zip(*spans, strict=True)))
    return _BUILT_IN if set(_BUILT_IN) & set(there) else there


def _probe_rows(separability: Table) -> list[Row]:
    probes = probe_rows(separability).dropna(subset=["auroc"])
    there = [str(name) for name in probes["position"].unique()]
    rows = []
    for position in known_first(there, POSITIONS):
        of_position = probes[probes["position"] == position]
        first, last = (part.set_index(["layer", "site"]) for part in ends_of(of_position))
        both = first.index.intersection(last.index)
        if of_position["step"].nunique() < 2 or both.empty:
            continue
        place = (first.loc[both, "auroc"] + last.loc[both, "auroc"]).idxmax()
        best, words = last.loc[place], separability[separability["position"] == position]
        name = capital(position_name(position)) if position in POSITIONS else position
        site = "after the final norm" if place[1] == "ln_final" else f"layer {int(place[0])}"
        late = ", after the fact" * bool(best["after_the_fact"])
        row = probe_row(name, f"{site}{late}", best, ends_of(words).last)
        before = {first_name(of_position): estimate(first.loc[place], *AUROC_OVER_LAYERS)}
        rows.append(row._replace(controls=before | row.controls, n=_sizes(best)))
    return rows


def _sizes(row: Table) -> str:
    return f"{int(row['n']):,} in {int(row['n_groups']):,} groups"


def _range(rows: list[Row]) -> tuple[float, float]:
    numbers = [value for row in rows for number in (row.measured, *row.controls.values()) for value in number]
    finite = [value for value in numbers if np.isfinite(value)]
    return min([0.0, *finite]), max([0.0, *finite])
