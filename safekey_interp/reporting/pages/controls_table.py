"""Which of the numbers would chance give too? Each beside its controls, with a verdict from the intervals."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from safekey_interp.data.conditions import FEW, Conditions
from safekey_interp.reporting.figures.figure_style import Table, with_interval
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS, LEVEL, Estimate, estimate
from safekey_interp.reporting.labels import POSITIONS, SPANS, position_name
from safekey_interp.reporting.pages.html import Html, data, el, join, table

_SHUFFLED = "shuffled labels"
_NULL = ("null_auroc_mean", "null_auroc_low", "null_auroc_high")
_CONTROLS = {
    "uniform_mass": "uniform baseline",
    "random_mass": "random key sets",
    "matched_mass": "distance-matched baseline",
    "matched_mass_other": "distance-matched, second reference",
}


class Row(NamedTuple):
    """One number beside its controls."""

    name: str
    """What was measured."""
    where: str
    """In which layer, at which step, or of which traces."""
    measured: Estimate
    """The number."""
    controls: dict[str, Estimate]
    """What it is held against, by name."""
    tone: str
    """One of the palette's tones."""
    beats_shuffled: bool | None = None
    """Whether the p-value over all layers says so; None where shuffled labels are no control."""


def paper_measure(by_layer: Table, subsets: dict[str, str]) -> Html:
    """SafeKey's own figure (last layer, mean over heads, sum over the span, mean over K's rows), for each subset."""
    every = by_layer[(by_layer["from_span"] == "key_sentence") & by_layer["to_span"].isin(["prompt", "understanding"])]
    rows = every[every["measure"] == "mass"].dropna(subset=["value"])
    if rows.empty:
        return el("p", "The paper’s measure needs attention from K, which this run does not have.", class_="absent")
    last = int(rows["layer"].max())
    rows, even = rows[rows["layer"] == last], every[(every["layer"] == last) & (every["measure"] == "uniform_mass")]
    body: list[list[object]] = []
    for subset in [name for name in subsets if name in set(rows["subset"])]:
        part, evenly = (table[table["subset"] == subset].set_index("to_span") for table in (rows, even))
        on_x, on_u = (estimate(part.loc[name]) if name in part.index else None for name in ("prompt", "understanding"))
        ratio = f"{on_x.value / on_u.value:.2f}" if on_x and on_u and on_u.value > 0 else "n/a"
        shares = [f"{evenly.loc[name, 'value']:.3f}" if name in evenly.index else "n/a" for name in part.index]
        by_span = dict(zip(part.index, shares, strict=True))
        cells = [
            cell
            for on, name in ((on_x, "prompt"), (on_u, "understanding"))
            for cell in (_text(on), by_span.get(name, "n/a"))
        ]
        body.append([data(subsets[subset]), *cells, ratio, f"{int(part['n'].max()):,}"])
    caption = (
        f"The paper’s measure: layer {last} (the last with a pattern), mean over heads, summed over the span, "
        "mean over K’s tokens"
    )
    return join(
        table(
            ["Traces", "K on X", "uniform baseline", "K on U", "uniform baseline", "X : U", "n"], body, caption=caption
        ),
        el(
            "p",
            "Defined as in SafeKey (Zhou et al., 2025). It does not correct for how long or how near a span is: the "
            "uniform baseline corrects for length; the plots above have the distance-matched baseline, too.",
            class_="muted",
        ),
    )


def against_chance(
    by_layer: Table | None, separability: Table | None, transfer: Table | None, conditions: Conditions
) -> Html:
    """Lists: what was measured, what each control gives, and whether their intervals part."""
    parts: list[Html] = []
    rows = _attention_rows(by_layer, conditions)
    if rows:
        top = max(
            value
            for row in rows
            for estimate in (row.measured, *row.controls.values())
            for value in estimate
            if np.isfinite(value)
        )
        parts.append(
            comparison(
                rows, f"Attention mass, mean over heads, beside its controls (bars from 0 to {top:.2f})", 0.0, top
            )
        )
    rows = _separability_rows(separability)
    if rows:
        parts.append(comparison(rows, "AUROC of the logistic probe beside its controls (bars from 0.3 to 1)", 0.3, 1.0))
    rows = _transfer_rows(transfer)
    if rows:
        title = "AUROC across conditions, at the position before K, beside its controls (bars from 0 to 1)"
        parts.append(comparison(rows, title, 0.0, 1.0))
    if not parts:
        return el("p", "Nothing to compare: this run has neither attention by layer nor separability.", class_="absent")
    note = (
        "“Above” and “below” mean that the two 95 % intervals do not touch. The highest layer was picked after looking "
        "at all of them: a probe’s interval there is that of all layers at once, and its verdict against shuffled "
        "labels the p-value of the best of all layers (of the ridge classifier, corrected for the number of positions)."
    )
    return join(*parts, el("p", note, class_="muted"))


def verdict(measured: Estimate, controls: dict[str, Estimate], beats_shuffled: bool | None = None) -> str:
    """In words, which controls the measured number lies above, below or cannot be told from."""
    if not measured.is_sure:
        return f"Fewer than {FEW} prompts: this says nothing about others"
    groups: dict[str, list[str]] = {"above": [], "not told apart from": [], "below": []}
    for name, control in controls.items():
        if not np.isfinite(control.value):
            continue
        low, high = (control.low, control.high) if control.is_sure else (control.value, control.value)
        above = measured.low > high if name != _SHUFFLED or beats_shuffled is None else beats_shuffled
        groups["above" if above else "below" if measured.high < low else "not told apart from"].append(name)
    words = "; ".join(f"{relation} {', '.join(names)}" for relation, names in groups.items() if names)
    return words[:1].upper() + words[1:] or "No control"


def _attention_rows(by_layer: Table | None, conditions: Conditions) -> list[Row]:
    """All traces at the highest and the last layer; each condition at the last, from K."""
    if by_layer is None or by_layer.empty:
        return []
    rows = []
    spans = itertools.product(("key_sentence", "decision"), ("understanding", "prompt"))
    for from_span, to_span in spans:
        part = _of(by_layer, "all", from_span, to_span)
        mass = part[part["measure"] == "mass"].dropna(subset=["value"])
        if mass.empty:
            continue
        peak, last = int(mass.loc[mass["value"].idxmax(), "layer"]), int(mass["layer"].max())
        for layer, why in ((peak, "highest"), (last, "last")) if peak != last else ((last, "highest and last"),):
            rows.append(_attention_row(part, from_span, to_span, layer, why))
    for name, to_span in itertools.product(conditions.names, ("understanding", "prompt")):
        part = _of(by_layer, conditions.subset(name), "key_sentence", to_span)
        mass = part[part["measure"] == "mass"].dropna(subset=["value"])
        if len(mass):
            rows.append(_attention_row(part, "key_sentence", to_span, int(mass["layer"].max()), f"last, {name}"))
    return rows


def _of(by_layer: Table, subset: str, from_span: str, to_span: str) -> Table:
    return by_layer[
        (by_layer["subset"] == subset) & (by_layer["from_span"] == from_span) & (by_layer["to_span"] == to_span)
    ]


def _attention_row(part: Table, from_span: str, to_span: str, layer: int, why: str) -> Row:
    at = part[part["layer"] == layer].drop_duplicates("measure").set_index("measure")
    whose = f"{SPANS[from_span].partition(',')[0]} on {SPANS[to_span].partition(',')[0]}"
    whose = whose.removeprefix("the ").capitalize()
    controls = {text: estimate(at.loc[name]) for name, text in _CONTROLS.items() if name in at.index}
    return Row(f"{whose[:-1]}{whose[-1].upper()}", f"layer {layer}, {why}", estimate(at.loc["mass"]), controls, to_span)


def _transfer_rows(transfer: Table | None) -> list[Row]:
    if transfer is None or transfer.empty:
        return []
    there = transfer[(transfer["position"] == "decision") & (transfer["fitted_on"] != transfer["tested_on"])]
    probes = there[(there["method"] == "logistic") & there["auroc"].notna()]
    pairs = list(dict.fromkeys(zip(probes["fitted_on"], probes["tested_on"], strict=True)))
    rows = []
    for fitted, tested in pairs:
        part = there[(there["fitted_on"] == fitted) & (there["tested_on"] == tested)]
        probe = part[(part["method"] == "logistic") & part["auroc"].notna()]
        best = probe.loc[probe["auroc"].idxmax()]
        where = f"layer {int(best['layer'])}, highest"
        rows.append(probe_row(f"{fitted} → {tested}", where, best, part, LEVEL / len(pairs)))
    return rows


def probe_row(name: str, where: str, best: Table, part: Table, level: float) -> Row:
    """A probe in its best layer beside shuffled labels and the words alone."""
    controls = {}
    beats = None
    if np.isfinite(best["null_auroc_high"]):
        controls[_SHUFFLED] = estimate(best, *_NULL)
        beats = bool(best["p_value_over_layers"] <= level)
    for _, text in part[part["method"] == "text_tfidf"].head(1).iterrows():
        controls["words alone"] = estimate(text, *AUROC)
    return Row(name, where, estimate(best, *AUROC_OVER_LAYERS), controls, "prompt", beats)


def _separability_rows(separability: Table | None) -> list[Row]:
    if separability is None or separability.empty:
        return []
    rows = []
    order = list(POSITIONS)
    groups = sorted(
        separability.groupby(["label_by", "position"], sort=False),
        key=lambda item: (item[0][0] != "label", order.index(item[0][1]) if item[0][1] in order else 99),
    )
    before = separability[~separability["after_the_fact"].astype(bool)]
    level = LEVEL / max(1, before["position"].nunique())
    for (label_by, position), part in groups:
        probe = part[part["method"] == "logistic"].dropna(subset=["auroc"])
        if probe.empty:
            continue
        best = probe.loc[probe["auroc"].idxmax()]
        name = position_name(str(position)).capitalize().replace(" x", " X").replace(" u", " U").replace(" k", " K")
        late = ", after the fact" if best["after_the_fact"] else ""
        whose = "" if label_by == "label" else ", by outcome"
        rows.append(probe_row(name, f"layer {int(best['layer'])}, highest{late}{whose}", best, part, level))
    return rows


def comparison(rows: list[Row], title: str, low: float, high: float) -> Html:
    """One item a number: what it is, its lines (measured first), and the verdict in words."""
    items = []
    for row in rows:
        lines = [
            ("measured", row.measured, row.tone),
            *((name, value, "control") for name, value in row.controls.items() if np.isfinite(value.value)),
        ]
        listed = [
            el("li", el("span", name), el("span", _text(value)), _bar(value, low, high, tone))
            for name, value, tone in lines
        ]
        words = verdict(row.measured, row.controls, row.beats_shuffled)
        clear = "clear" if words.startswith("Above") and ";" not in words else None
        name = el("p", el("b", row.name), el("span", row.where, class_="muted where"))
        items.append(el("li", name, el("ul", *listed, class_="lines"), el("p", words, class_=clear)))
    return join(el("h3", title), el("ol", *items, class_="chances"))


def _bar(estimate: Estimate, low: float, high: float, tone: str) -> Html:
    """The interval as a bar and the value as a dot, on the table's scale; the numbers stand beside it."""
    places = [100 * float(np.clip((value - low) / (high - low), 0, 1)) for value in estimate]
    value, left, right = places if np.isfinite(places).all() else (places[0],) * 3
    drawn = (
        el("line", x1="0", x2="100", y1="5", y2="5", class_="axis"),
        el("line", x1=f"{left:.1f}", x2=f"{right:.1f}", y1="5", y2="5", class_="range"),
        el("line", x1=f"{value:.1f}", x2=f"{value:.1f}", y1="1", y2="9", class_="dot"),
    )
    return el(
        "svg",
        *drawn,
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
        class_=tone.replace("_", "-"),
    )


def _text(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None or not np.isfinite(estimate.value) else with_interval(*estimate)
