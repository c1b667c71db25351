"""Numbers beside their controls for the pages: lists of lines with a verdict from the intervals."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from safekey_interp.data.conditions import FEW, Conditions
from safekey_interp.reporting.figures.figure_numbers import with_interval
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import AUROC, AUROC_OVER_LAYERS, LEVEL, Estimate, estimate
from safekey_interp.reporting.findings.phrases import capital
from safekey_interp.reporting.labels import BUILT_IN_NAMES, Names, known_first
from safekey_interp.reporting.probe_rows import probe_rows, probe_words

_SHUFFLED = "shuffled labels"
_NULL = ("null_auroc_mean", "null_auroc_low", "null_auroc_high")
BesideControls = tuple[str, list[dict[str, Any]]]
"""A title, and the numbers under it as the template ``beside_controls`` reads them."""
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
    place: str
    """In which layer, at which step, or of which traces; may be empty."""
    measured: Estimate
    """The number."""
    controls: dict[str, Estimate]
    """What it is compared with, by name."""
    tone: str
    """One of the palette's tones."""
    beats_shuffled: bool | None = None
    """Whether the p-value over all layers says so; None where shuffled labels are no control."""
    n: str = ""
    """Traces and groups, where the line says them."""

    @property
    def where(self) -> str:
        """Place and n."""
        return ", ".join(filter(None, [self.place, f"n = {self.n}" if self.n else ""]))


def paper_measure(by_layer: Table, subsets: dict[str, str]) -> dict[str, Any] | None:
    """SafeKey's own figure (last layer, mean over heads, sum over the span, mean over K's rows), for each subset.

    Args:
        by_layer: the run's ``attention_by_layer``.
        subsets: those that get a row, with their words.

    Returns:
        ``layer`` and ``rows``; None without attention from K.
    """
    of_k = by_layer[(by_layer["from_span"] == "key_sentence") & by_layer["to_span"].isin(["prompt", "understanding"])]
    rows = of_k[of_k["measure"] == "mass"].dropna(subset=["value"])
    if rows.empty:
        return None
    last = int(rows["layer"].max())
    rows, uniform = rows[rows["layer"] == last], of_k[(of_k["layer"] == last) & (of_k["measure"] == "uniform_mass")]
    body = []
    for subset in [name for name in subsets if name in set(rows["subset"])]:
        part, baseline = (table[table["subset"] == subset].set_index("to_span") for table in (rows, uniform))
        on_x, on_u = (estimate(part.loc[name]) if name in part.index else None for name in ("prompt", "understanding"))
        ratio = f"{on_x.value / on_u.value:.2f}" if on_x and on_u and on_u.value > 0 else "n/a"
        cells = []
        for mass, name in ((on_x, "prompt"), (on_u, "understanding")):
            is_there = name in part.index and name in baseline.index
            cells += [_text(mass), f"{baseline.loc[name, 'value']:.3f}" if is_there else "n/a"]
        body.append([subsets[subset], *cells, ratio, f"{int(part['n'].max()):,}"])
    return {"layer": last, "rows": body}


def beside_controls(
    by_layer: Table | None,
    separability: Table | None,
    transfer: Table | None,
    conditions: Conditions,
    names: Names = BUILT_IN_NAMES,
) -> list[BesideControls]:
    """What was measured, what each control gives, and whether their intervals part: attention, probes, transfer."""
    attention = _attention_rows(by_layer, conditions, names)
    place = "the position before K" if names.is_built_in else names.main
    values = [value for row in attention for number in (row.measured, *row.controls.values()) for value in number]
    top = max(filter(np.isfinite, values), default=1.0)
    probe = "probe" if separability is None else probe_words(separability).name
    lists = [
        (attention, "Attention mass, mean over heads, beside its controls", 0.0, top),
        (_separability_rows(separability, names), f"AUROC of the {probe} beside its controls", 0.3, 1.0),
        (
            _transfer_rows(transfer, names),
            f"AUROC across conditions, at {place}, beside its controls",
            0.0,
            1.0,
        ),
    ]
    return [comparison(rows, f"{title} ({_scale(low, high)})", low, high) for rows, title, low, high in lists if rows]


def _scale(low: float, high: float) -> str:
    return f"bars from {low:.1g} to {high:.2f}" if high != 1 else f"bars from {low:.1g} to 1"


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
    return capital(words) or "No control"


def _attention_rows(by_layer: Table | None, conditions: Conditions, names: Names) -> list[Row]:
    """All traces at the highest and the last layer; each condition at the last, from the first span that attends."""
    if by_layer is None or by_layer.empty:
        return []
    rows = []
    queries, keys = ("key_sentence", "decision"), ("understanding", "prompt")
    if not names.is_built_in:
        queries, keys = (tuple(by_layer[name].unique()) for name in ("from_span", "to_span"))
    for from_span, to_span in itertools.product(queries, keys):
        part = _of(by_layer, "all", from_span, to_span)
        mass = part[part["measure"] == "mass"].dropna(subset=["value"])
        if mass.empty:
            continue
        peak, last = int(mass.loc[mass["value"].idxmax(), "layer"]), int(mass["layer"].max())
        for layer, why in ((peak, "highest"), (last, "last")) if peak != last else ((last, "highest and last"),):
            rows.append(_attention_row(part, _whose(from_span, to_span, names), layer, why))
    for name, to_span in itertools.product(conditions.names, keys):
        part = _of(by_layer, conditions.subset(name), queries[0], to_span)
        mass = part[part["measure"] == "mass"].dropna(subset=["value"])
        if len(mass):
            whose = _whose(queries[0], to_span, names)
            rows.append(_attention_row(part, whose, int(mass["layer"].max()), f"last, {name}"))
    return rows


def _whose(from_span: str, to_span: str, names: Names) -> tuple[str, str]:
    """Whose attention on what, with the tone of its line."""
    if not names.is_built_in:
        return f"{from_span} on {to_span}", "prompt"
    whose = " on ".join(names.span(span).partition(",")[0] for span in (from_span, to_span))
    whose = whose.removeprefix("the ").capitalize()
    return f"{whose[:-1]}{whose[-1].upper()}", to_span


def _of(by_layer: Table, subset: str, from_span: str, to_span: str) -> Table:
    return by_layer[
        (by_layer["subset"] == subset) & (by_layer["from_span"] == from_span) & (by_layer["to_span"] == to_span)
    ]


def _attention_row(part: Table, whose: tuple[str, str], layer: int, why: str) -> Row:
    at = part[part["layer"] == layer].drop_duplicates("measure").set_index("measure")
    controls = {text: estimate(at.loc[name]) for name, text in _CONTROLS.items() if name in at.index}
    return Row(whose[0], f"layer {layer}, {why}", estimate(at.loc["mass"]), controls, whose[1])


def _transfer_rows(transfer: Table | None, names: Names) -> list[Row]:
    if transfer is None or transfer.empty:
        return []
    there = transfer[(transfer["position"] == names.main) & (transfer["fitted_on"] != transfer["tested_on"])]
    probes = probe_rows(there).dropna(subset=["auroc"])
    pairs = list(dict.fromkeys(zip(probes["fitted_on"], probes["tested_on"], strict=True)))
    rows = []
    for fitted, tested in pairs:
        part = there[(there["fitted_on"] == fitted) & (there["tested_on"] == tested)]
        probe = probe_rows(part).dropna(subset=["auroc"])
        best = probe.loc[probe["auroc"].idxmax()]
        where = f"layer {int(best['layer'])}, highest"
        rows.append(probe_row(f"{fitted} → {tested}", where, best, part))
    return rows


def probe_row(name: str, where: str, best: Table, part: Table) -> Row:
    """A probe in its best layer beside shuffled labels and the words alone."""
    controls = {}
    beats = None
    if np.isfinite(best["null_auroc_high"]):
        controls[_SHUFFLED] = estimate(best, *_NULL)
        beats = bool(best["p_value_over_all"] <= LEVEL)
    for _, text in part[part["method"] == "text_tfidf"].head(1).iterrows():
        controls["words alone"] = estimate(text, *AUROC)
    return Row(name, where, estimate(best, *AUROC_OVER_LAYERS), controls, "prompt", beats)


def _separability_rows(separability: Table | None, names: Names) -> list[Row]:
    if separability is None or separability.empty:
        return []
    rows = []
    order = list(known_first(separability["position"].dropna(), names.positions))
    groups = sorted(
        separability.groupby(["label_by", "position"], sort=False),
        key=lambda item: (item[0][0] != "label", order.index(item[0][1]) if item[0][1] in order else 99),
    )
    for (label_by, position), part in groups:
        probe = probe_rows(part).dropna(subset=["auroc"])
        if probe.empty:
            continue
        best = probe.loc[probe["auroc"].idxmax()]
        name = names.position(position)
        if names.is_built_in:
            name = name.capitalize().replace(" x", " X").replace(" u", " U").replace(" k", " K")
        late = ", after the fact" if best["after_the_fact"] and names.is_built_in else ""
        whose = {"label": "", "aha": ", by outcome"}.get(str(label_by), f", by {label_by}")
        rows.append(probe_row(name, f"layer {int(best['layer'])}, highest{late}{whose}", best, part))
    return rows


def comparison(rows: list[Row], title: str, low: float, high: float) -> BesideControls:
    """A list for the page: each number with its lines (measured first) and the verdict; bars run from low to high."""
    items = []
    for row in rows:
        lines = [("measured", row.measured, row.tone), *((*line, "control") for line in row.controls.items())]
        words = verdict(row.measured, row.controls, row.beats_shuffled)
        items.append(
            {
                "name": row.name,
                "where": row.where,
                "lines": [
                    {"name": name, "text": _text(number), "tone": tone.replace("_", "-")} | _bar(number, low, high)
                    for name, number, tone in lines
                    if name == "measured" or np.isfinite(number.value)
                ],
                "verdict": words,
                "is_clear": words.startswith("Above") and ";" not in words,
            }
        )
    return title, items


def _bar(estimate: Estimate, low: float, high: float) -> dict[str, str]:
    """Ends of the interval and the value on a scale from 0 to 100."""
    places = [100 * float(np.clip((value - low) / (high - low), 0, 1)) for value in estimate]
    at, left, right = places if np.isfinite(places).all() else (places[0],) * 3
    return {"at": f"{at:.1f}", "left": f"{left:.1f}", "right": f"{right:.1f}"}


def _text(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None or not np.isfinite(estimate.value) else with_interval(*estimate)
