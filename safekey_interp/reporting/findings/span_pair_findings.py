"""Findings on attention between a user's own spans, beside the uniform and the distance-matched baseline.

From each query to each key, mean over heads, in the last layer; whether it is more than chance is said by the number of
layers in which it lies above both baselines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.capture.measured_spans import MeasuredSpans
from safekey_interp.data.conditions import Conditions
from safekey_interp.reporting.findings.attention_findings import Attending, beside, cases_of, is_last_layer
from safekey_interp.reporting.findings.finding import Finding, estimate
from safekey_interp.reporting.findings.phrases import Case, Table, and_list, capital

_CONTROLS = {"uniform_mass": "uniform baseline", "matched_mass": "distance-matched baseline"}
_REFERENCES = ("the tokens before it", "the prompt")
_OF_KEY_SENTENCE = {"key_sentence": ("understanding", "prompt"), "decision": ("understanding", "key_sentence")}
"""References of the baseline (:mod:`safekey_interp.capture.reference_rows`)."""


def pair_looks(
    table: Table | None, conditions: Conditions, manifest: Mapping[str, Any], spans: MeasuredSpans
) -> list[Finding]:
    """How much of its attention each query gives to each key, for each case."""
    if spans.pairs is None:
        return []
    return [
        found
        for query in spans.pairs.queries
        for case, rows in cases_of(table, conditions, query)
        if (found := _told(query, case, rows, spans.pairs.keys, manifest)) is not None
    ]


def pairs_beside_chance(table: Table | None, conditions: Conditions, spans: MeasuredSpans) -> list[Finding]:
    """In how many layers that attention lies above the uniform and above the distance-matched baseline."""
    if spans.pairs is None:
        return []
    keys = {key: key for key in spans.pairs.keys}
    found = []
    for query in spans.pairs.queries:
        references = _OF_KEY_SENTENCE.get(query, _REFERENCES)
        attending = Attending(query, f"attention from {query}", keys, references)
        found.append(beside(cases_of(table, conditions, query), attending))
    return [finding for finding in found if finding is not None]


def _told(query: str, case: Case, rows: Table, keys: tuple[str, ...], manifest: Mapping[str, Any]) -> Finding | None:
    layer = int(rows["layer"].max())
    at = rows.loc[rows["layer"] == layer].set_index(["to_span", "measure"])
    there = [key for key in keys if (key, "mass") in at.index]
    if not there:
        return None
    mass = {key: estimate(at.loc[(key, "mass")]) for key in there}
    shares = [f"{number.text('.0%')}{' of its attention' * (key == there[0])} to {key}" for key, number in mass.items()]
    where = f"in the last layer ({layer})" if is_last_layer(layer, manifest) else f"in layer {layer}"
    start = f"{case.words}, " if case.words else ""
    controls = []
    for measure, name in _CONTROLS.items():
        values = [(key, at.loc[(key, measure), "value"]) for key in there if (key, measure) in at.index]
        controls += [f"{name} {and_list([f'{value:.0%} on {key}' for key, value in values])}"] if values else []
    first = there[0]
    facts = {"row": query, "subset": case.subset, "layer": layer, "on": {key: mass[key].listed() for key in there}}
    return Finding(
        question="what",
        text=capital(f"{start}{where} {query} gives {and_list(shares)}."),
        n=int(at.loc[(first, "mass"), "n"]),
        control="; ".join([*controls, "mean over heads"]),
        facts=facts,
        **mass[first].fields(),
    )
