"""Figures of transfer between conditions: by pair and layer, and one pair beside its controls."""

from __future__ import annotations

import numpy as np

from safekey_interp.reporting.figures.figure_numbers import counts, highest, select, sizes, with_interval
from safekey_interp.reporting.figures.figure_parts import LayerAxis, finish, heatmap, line, probe_controls
from safekey_interp.reporting.figures.figure_style import AUROC_SCALE, Drawing, Spec, Table, escape
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS
from safekey_interp.reporting.labels import Names, layer_name, names_of_positions, of_probe

_PRINTED = 8  # layers up to which a map prints its numbers: more do not fit a telephone


@Drawing
def transfer_map(transfer: Table, *, position: str = "decision", names: Names | None = None) -> Spec:
    """Pair of conditions by layer: AUROC on one of a probe fitted on another, beside the words alone (first column).

    Args:
        transfer: the run's ``transfer``.
        position: which states.
        names: words for positions; None: those of the built-in question, where all are of it.

    Returns:
        A heat map from chance (0.5, and all below it) to 1; the last column is the final norm.

    Raises:
        RunError: no row for the position.
    """
    rows = select(transfer, "transfer", position=position)
    probe, words = of_probe(rows), rows[rows["method"] == "text_tfidf"]
    is_printed = probe.groupby(["layer", "site"]).ngroups <= _PRINTED
    axis = LayerAxis(probe, sparse=not is_printed)
    pairs = list(dict.fromkeys(zip(probe["fitted_on"], probe["tested_on"], strict=True)))
    places = axis.beside_words(2 if is_printed else 3)
    grid = []
    for pair in pairs:
        here, text = (_of_pair(part, *pair) for part in (probe, words))
        grid.append(axis.row_beside_words(here, "auroc", text["auroc"].iloc[0] if len(text) else np.nan))
    rows_named = [f"{escape(fitted)} → {escape(tested)}" for fitted, tested in pairs]
    hover = "%{y}<br>layer %{x}<br>%{z:.3f}"
    trace = heatmap(places, rows_named, grid, (0.5, 1), AUROC_SCALE, hover=hover, ygap=2)
    if is_printed:
        trace |= {"texttemplate": "%{z:.2f}", "textfont": {"size": 10}, "xgap": 2, "showscale": False}
    across = probe[(probe["fitted_on"] != probe["tested_on"]) & probe["auroc"].notna()]
    ends = "No layer has a number."
    if len(across):
        top, low = across.loc[across["auroc"].idxmax()], across.loc[across["auroc"].idxmin()]
        ends = f"Across conditions, highest: {_told(top)}; lowest: {_told(low)}."
    place = (names or names_of_positions(transfer["position"])).position(position)
    caption = (
        f"AUROC at the position “{place}”, fitted on → tested on; the column “words” is the same "
        f"from the words alone. {ends} n = {counts(probe['n'])} tested, in the same folds for every pair."
    )
    title, height = "Fitted on one condition, tested on another", 120 + 38 * len(pairs)
    spec = finish([trace], caption, table="grid", title=title, x="layer", y=None, height=height, unit="AUROC")
    axis.name_beside_words(spec, places)
    return spec


@Drawing
def transfer_by_layer(
    transfer: Table, *, fitted_on: str, tested_on: str, position: str = "decision", names: Names | None = None
) -> Spec:
    """One pair of conditions by layer, beside a probe fitted where it is tested, shuffled labels, and the words alone.

    Args:
        transfer: the run's ``transfer``.
        fitted_on: condition that the probe was fitted on.
        tested_on: condition that it is tested on.
        position: which states.
        names: words for positions; None: those of the built-in question, where all are of it.

    Returns:
        Lines over layers; the last place is the final norm.

    Raises:
        RunError: no row for the selection.
    """
    rows = of_probe(select(transfer, "transfer", position=position))
    axis = LayerAxis(rows)
    there = select(rows, "transfer", fitted_on=fitted_on, tested_on=tested_on)
    remarks = ["No layer has a number."]
    if (top := highest(there, "auroc")) is not None:
        remarks = [f"Highest: {_told(top, pair=False)}."]
    pair = _of_pair(transfer[(transfer["position"] == position)], fitted_on, tested_on)
    data, controls = probe_controls(there, pair[pair["method"] == "text_tfidf"], axis)
    remarks += controls
    lines = [(there, f"fitted on {fitted_on}", "prompt", "solid")]
    if fitted_on != tested_on:
        lines.insert(0, (_of_pair(rows, tested_on, tested_on), f"fitted on {tested_on} itself", "key_sentence", "dash"))
    for part, name, tone, dash in lines:
        data += line(part, axis.of(part), AUROC, name=name, tone=tone, dash=dash)
    words = names or names_of_positions(transfer["position"])
    caption = (
        f"Tested on {escape(tested_on)}, at the position “{words.position(position)}”. {' '.join(remarks)} Fitted on "
        f"n = {counts(there['n_fitted'])}, tested on {sizes(there, '')}; no group is on both sides."
    )
    title = f"Fitted on {escape(fitted_on)}, tested on {escape(tested_on)}"
    spec = finish(data, caption, table="lines", title=title, x="layer", y="AUROC")
    axis.name_ticks(spec)
    lowest = min(0.3, float(there["auroc_low"].min()) - 0.02) if there["auroc_low"].notna().any() else 0.3
    spec["layout"]["yaxis"] |= {"range": [lowest, 1.02]}
    return spec


def _of_pair(rows: Table, fitted_on: str, tested_on: str) -> Table:
    return rows[(rows["fitted_on"] == fitted_on) & (rows["tested_on"] == tested_on)]


def _told(row: Table, *, pair: bool = True) -> str:
    whose = f"{escape(row['fitted_on'])} → {escape(row['tested_on'])}, " if pair else ""
    return f"{whose}layer {layer_name(row)}, {with_interval(*(row[name] for name in AUROC_OVER_LAYERS))}"
