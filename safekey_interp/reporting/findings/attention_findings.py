"""Findings on attention from K and the token before it, beside the uniform and the distance-matched baseline.

Attention on X and on U, mean over heads, in the last layer: from the token before K, whose row decides, and from K (the
paper's measure). Whether it is more than chance is said by the number of layers in which it lies above both baselines,
and where the second reference of the distance-matched one gives another number, by that number, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from safekey_interp.data.conditions import FEW, Conditions
from safekey_interp.reporting.findings.finding import Estimate, Finding, estimate
from safekey_interp.reporting.findings.phrases import ROWS, Case, Table, and_list, capital, cases

_SPANS = ("understanding", "prompt")
_KEYS = {"prompt": "X", "understanding": "U"}
_OTHER = {"decision": "K", "key_sentence": "X"}
"""Whose rows are the second reference, by the span that looks."""


class Attending(NamedTuple):
    """A span that attends, in words."""

    who: str
    """Its name."""
    whose: str
    """Its attention."""
    keys: Mapping[str, str]
    """What it attends to, and its name."""
    references: tuple[str, str]
    """Whose rows are the two references of the distance-matched baseline."""


class _Last(NamedTuple):
    """K's attention in the last layer."""

    layer: int
    on: dict[str, Estimate]
    even: dict[str, Estimate]
    n: dict[str, int]


def looks(table: Table | None, conditions: Conditions, manifest: Mapping[str, Any]) -> list[Finding]:
    """How much of its attention the deciding row, and K, give to U and to X, for each case."""
    found: list[Finding] = []
    for from_span, who in ROWS.items():
        seen = [(case, last) for case, rows in cases_of(table, conditions, from_span) if (last := _last(rows))]
        told = [_told(case, last, who, manifest) for case, last in seen]
        if told and not any(finding.short for finding in found):
            where = _where(seen[0][1].layer, manifest)
            told[0] = replace(told[0], short=_short([(case.name, last) for case, last in seen], f"{where} {who}"))
        found += told
    return found


def beside_chance(table: Table | None, conditions: Conditions) -> list[Finding]:
    """In how many layers that attention lies above the uniform and above the distance-matched baseline."""
    found = [
        beside(
            cases_of(table, conditions, from_span),
            Attending(who, "K’s attention" if who == "K" else f"attention from {who}", _KEYS, ("U", _OTHER[from_span])),
        )
        for from_span, who in ROWS.items()
    ]
    return [finding for finding in found if finding is not None]


def _where(layer: int, manifest: Mapping[str, Any]) -> str:
    return f"in the last layer ({layer})" if is_last_layer(layer, manifest) else f"in layer {layer}, the last measured,"


def _told(case: Case, last: _Last, who: str, manifest: Mapping[str, Any]) -> Finding:
    on_u, on_x = (last.on[span] for span in _SPANS)
    if not (on_x.is_sure and on_u.is_sure):
        verdict, words = "too few", f"fewer than {FEW} prompts, so this says nothing about others"
    else:
        verdict = {"above": "U", "below": "X"}.get(on_u.lies(on_x), "unclear")
        words = "neither clearly gets more" if verdict == "unclear" else f"more to {verdict}"
    layer = _where(last.layer, manifest)
    start = f"{case.words}, " if case.words else ""
    text = f"{start}{layer} {who} gives {on_u.text('.0%')} of its attention to U and {on_x.text('.0%')} to X: {words}."
    control = f"uniform baseline {last.even['understanding'].value:.0%} on U and "
    control += f"{last.even['prompt'].value:.0%} on X; mean over heads{', as in the paper' * (who == 'K')}"
    if last.n["prompt"] != last.n["understanding"]:
        control += f" ({last.n['understanding']:,} traces have a U)"
    facts = {
        "row": who,
        "subset": case.subset,
        "layer": last.layer,
        "is_last_layer": is_last_layer(last.layer, manifest),
        "more_to": verdict,
    }
    facts |= {"U": on_u.listed(), "X": on_x.listed()}
    return Finding(
        question="what", text=capital(text), n=last.n["prompt"], control=control, facts=facts, **on_u.fields()
    )


def _short(seen: list[tuple[str, _Last]], who: str) -> str:
    """All cases that rest on enough prompts, in one clause."""
    on = [(name, last) for name, last in seen if all(last.on[span].is_sure for span in _SPANS)]
    if not on:
        return ""
    numbers = []
    for name, last in on:
        of = f"{name}, " if name else ""
        even = " and ".join(f"{last.even[span].value:.0%}" for span in _SPANS)
        u, x = (last.on[span].text(".0%") for span in _SPANS)
        numbers.append(f"{u} and {x} ({of}n = {last.n['prompt']:,}; spread evenly {even})")
    clear = {last.on["understanding"].lies(last.on["prompt"]) for _, last in on}
    more = {"above": ", more to U", "below": ", more to X"}.get(clear.pop(), "") if len(clear) == 1 else ""
    return f"{capital(who)} gives U and X {and_list(numbers)} of its attention{more}."


def beside(there: list[tuple[Case, Table]], attending: Attending) -> Finding | None:
    """In how many layers a span's attention on each key lies above both baselines."""
    clauses, facts = [], {}
    sizes: dict[str, int] = {}
    first, other = attending.references
    for span, letter in attending.keys.items():
        counted: dict[tuple[int, int, int | None], list[str]] = {}
        for case, rows in there:
            ratios = rows.loc[(rows["to_span"] == span) & (rows["n_groups"] >= FEW)]
            lows = {
                measure: ratios.loc[ratios["measure"] == measure].set_index("layer")["low"]
                for measure in ("lift", "lift_over_matched", "lift_over_matched_other")
            }
            even, matched, second = (lows[measure] > 1 for measure in lows)
            layers = even.index.intersection(matched.index)
            if not len(layers):
                continue
            above = even[layers] & matched[layers]
            both = layers.intersection(second.index)
            by_other = int((even[both] & second[both]).sum()) if len(both) else None
            disagrees = by_other is not None and bool((matched[both] != second[both]).any())
            key = (int(above.sum()), len(layers), by_other if disagrees else None)
            counted.setdefault(key, []).append(case.name)
            facts.setdefault(letter, {})[case.name or "all"] = key
            sizes.setdefault(case.subset, int(ratios["n"].max()))
        parts = [
            f"{above} of {of} {'layer' if of == 1 else 'layers'}"
            f"{f' ({by_other} with rows of {other} as reference)' if by_other is not None else ''}{_among(names)}"
            for (above, of, by_other), names in counted.items()
        ]
        if parts:
            clauses.append(f"on {letter} in {and_list(parts)}")
    if not clauses:
        return None
    text = f"Above the uniform and the distance-matched baseline: {attending.whose} {', '.join(clauses)}."
    control = (
        "uniform baseline: attention spread evenly over the keys in sight; distance-matched baseline: a function of "
        f"distance alone, reference rows of {first}, second reference rows of {other}; 95 % intervals of the ratios"
    )
    facts = {"row": attending.who, "layers_above": facts}
    return Finding(question="chance", text=text, n=sum(sizes.values()), control=control, facts=facts)


def cases_of(table: Table | None, conditions: Conditions, from_span: str) -> list[tuple[Case, Table]]:
    """The rows of a span's attention, case by case."""
    if table is None or table.empty:
        return []
    rows = table.loc[(table["from_span"] == from_span) & np.isfinite(table["value"])]
    there = [(case, rows.loc[rows["subset"] == case.subset]) for case in cases(rows, conditions)]
    return [(case, mine) for case, mine in there if len(mine)]


def _last(rows: Table) -> _Last | None:
    layer = int(rows["layer"].max())
    at = rows.loc[rows["layer"] == layer].set_index(["to_span", "measure"])
    if not {(span, measure) for span in _SPANS for measure in ("mass", "uniform_mass")} <= set(at.index):
        return None
    on, even = ({span: estimate(at.loc[(span, measure)]) for span in _SPANS} for measure in ("mass", "uniform_mass"))
    return _Last(layer, on, even, {span: int(at.loc[(span, "mass"), "n"]) for span in _SPANS})


def is_last_layer(layer: int, manifest: Mapping[str, Any]) -> bool:
    """Whether it is the model's last."""
    return layer == (manifest.get("model") or {}).get("n_layers", 0) - 1


def _among(names: list[str]) -> str:
    """Which conditions a number is about; nothing when it is about all traces."""
    return f" ({and_list(names)})" if any(names) else ""
