"""Findings of scores by token: each class before the point of alignment, and where the classes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from safekey_interp.measures.trajectory import trajectory_controls
from safekey_interp.reporting.findings.finding import Finding, estimate
from safekey_interp.reporting.findings.intervention_terms import (
    Table,
    classes_in,
    control_name,
    label_start,
    readers_in,
)
from safekey_interp.reporting.findings.phrases import and_list, capital

_AT = -1
"""The offset of the token before the point of alignment."""
_BEFORE = {"key_sentence": "before K", "reasoning_end": "before the reasoning’s end"}


def find_scores(summary: Table, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Each class at the token before the point of alignment."""
    before, names = summary.loc[summary["offset"] == _AT], readers_in(summary)
    for reader, rows in before.groupby("reader"):
        parts = [(str(row["label"]), estimate(row, "score"), row) for _, row in rows.iterrows()]
        scores = and_list([f"{label} {number.text('.2f')} (n = {int(row['n']):,})" for label, number, row in parts])
        positive = classes_in(summary).positive
        _, number, row = next((part for part in parts if part[0] == positive), parts[0])
        name, is_metric = names[int(reader)], "metric" in summary.columns
        which = f"{capital(name)}: a" if len(names) > 1 and not is_metric else "A"
        what = f"{name} ({rows['unit'].iloc[0]})" if is_metric else "score"
        where = _BEFORE.get(settings["align"], f"before {settings['align']}")
        text = f"{which}t the token {where} the mean {what} is {scores}."
        kinds = ((kind, row[f"{kind}_mean"], 1.96 * row[f"{kind}_sd"]) for kind in trajectory_controls(summary))
        controls = (f"{control_name(kind)}: {mean:.2f} ± {spread:.2f}" for kind, mean, spread in kinds)
        control = "; ".join(controls) or "none"
        yield Finding(question="did", text=text, n=int(row["n"]), control=control, short=text, **number.fields())


def find_gaps(summary: Table) -> Iterator[Finding]:
    """At how many offsets the classes differ, and whether they do at the token before the point of alignment."""
    pair, names = classes_in(summary), readers_in(summary)
    for reader, rows in summary.groupby("reader"):
        classes = {label: part.set_index("offset") for label, part in rows.groupby("label")}
        if not set(pair) <= set(classes):
            continue
        high, low = (classes[label] for label in pair)
        shared = sorted(set(high.index) & set(low.index))
        sides = {at: estimate(high.loc[at], "score").lies(estimate(low.loc[at], "score")) for at in shared}
        total, before = list(sides.values()), [side for at, side in sides.items() if at < 0]
        which = f" of {names[int(reader)]}" if len(names) > 1 or "metric" in summary.columns else ""
        text = (
            f"{label_start(pair.positive)} traces’ scores{which} lie above {pair.negative} ones’ at "
            f"{total.count('above')} of {len(total)} offsets, below at {total.count('below')}; before offset 0, above "
            f"at {before.count('above')} of {len(before)}; at offset {_AT}, {sides.get(_AT) or 'not told apart'}."
        )
        control = "intervals that do not touch; offsets of one trace are not independent"
        shown = bool(sides[_AT]) if _AT in sides else None
        yield Finding(question="chance", text=text, n=int(rows["n"].max()), control=control, is_shown=shown)
