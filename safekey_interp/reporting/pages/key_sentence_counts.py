"""Counts of key sentences for the page of a probe run, by label and condition."""

from __future__ import annotations

import itertools

from safekey_interp.data.conditions import Conditions
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import share


def in_words(traces: Table) -> str:
    """How many key sentences were found, what they decide, and how sure the finder was."""
    found = traces["key_sentence"].notna() & (traces["key_sentence"].astype(str) != "")
    outcomes, confidence = traces.loc[found, "aha"].value_counts(), traces.loc[found, "confidence"].dropna()
    n_of_answers = int((traces.loc[found, "region"] == "answer").sum())
    kinds = ": " * bool(len(outcomes)) + ", ".join(f"{int(n):,} {kind}" for kind, n in outcomes.items())
    sentences = [f"A key sentence was found in {int(found.sum()):,} of {len(traces):,} traces{kinds}"]
    if len(confidence):
        low = f"{(confidence < 0.5).mean():.0%} lie below 0.5"
        sentences.append(f"The finder’s confidence has median {confidence.median():.2f}; {low}")
    families = ", ".join(f"{name} ({n:,})" for name, n in traces["family"].value_counts().items())
    without = f"; {n_of_answers:,} without reasoning, where U and K come from the answer" * bool(n_of_answers)
    unmarked = int((traces.loc[traces["region"] == "reasoning", "marks"] == "none").sum()) if "marks" in traces else 0
    by_form = f"; {unmarked:,} with no marked reasoning, read as reasoning by the form of the text" * bool(unmarked)
    return ". ".join([*sentences, f"Reasoning format: {families}{without}{by_form}."])


def outcome_rows(traces: Table | None, conditions: Conditions) -> list[list[str]]:
    """What K decides and whether U names the harm, by label and condition; no row where neither is known."""
    if traces is None or traces.empty or "condition" not in traces.columns:
        return []
    decided = traces[traces["aha"].notna() & (traces["status"] == "measured")]
    rows = []
    for name, label in itertools.product(conditions.names or (None,), ("harmful", "benign")):
        part = decided[decided["label"] == label]
        part = part if name is None else part[part["condition"] == name]
        if part.empty:
            continue
        stated = part[(part["aha"] != "safe") & part["hint"].notna()]
        named = _share(stated["hint"].astype(bool), stated["group"]) if len(stated) else "n/a"
        shares = [_share(part["aha"] == aha, part["group"]) for aha in ("safe", "unsafe", "neutral")]
        whose = f"{label} prompts" if name is None else f"{name}, {label} prompts"
        rows.append([whose, f"{len(part):,}", *shares, named])
    return rows


def _share(flags: Table, groups: Table) -> str:
    number = share(flags, groups)
    return number.text(".0%") if number.is_sure else f"{number.value:.0%}"
