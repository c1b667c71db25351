"""Findings of a comparison: a sentence a measure: each model's number, and the others minus the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from safekey_interp.data.conditions import Conditions
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.effect_size import (
    AUROC_GAIN,
    SHARE,
    TIMES,
    size_in_words,
    smallest_of,
    verdict_of,
)
from safekey_interp.reporting.findings.finding import Estimate, estimate
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.findings.summary_lines import Line, cut, listed, trust, with_control
from safekey_interp.reporting.labels import MEASURES, POSITIONS_COMPARED, SPAN_LETTERS, title_of

JUDGED = "the judge `refusal` reads the answer alone"
BY_SUITES = "the judge that the suite's authors use, or the nearest of its kind here"
_TOLD = (
    *("attack_success", "suite_attack_success", "strongreject_score", "over_refusal", "refusal", "aha"),
    "dormant_signal",
)
_CONTROL_OF = {"aha": "aha", "dormant_signal": "names_harm"}
"""What a share of key sentences or understandings is held against: the same of benign prompts."""
LABELS = {"did": "Did", "what": "Looks", "knew": "Knows"}
"""A line of the summary for each question."""
_ALPHA = 0.05
"""p above it keeps a difference from being called clear."""


def tell(
    table: Table,
    names: Sequence[str],
    conditions: Conditions,
    *,
    kept: bool,
    counted: Mapping[str, Mapping[str, Any] | None] = MappingProxyType({}),
    finder: object = "",
) -> dict[str, Any]:
    """``headline``, ``summary``, ``findings``, ``left_out`` and ``notes``, as ``findings.json`` of any run has them.

    Args:
        table: ``comparison``.
        names: the models, in their order.
        conditions: those that are told apart.
        kept: whether all models were given the same responses, so that these tell nothing of them.
        counted: ``finder_trust`` of each model's own run.
        finder: the finder's name.
    """
    findings = [] if kept else _outcomes(table, names, conditions)
    findings += _looks(table, names)
    findings += _knew(table, names)
    lead = [finding["short"] for finding in findings if finding["short"]]
    limit = cut(cut_by_model(table, names))
    lines = [Line("Read", _read(counted, finder)), Line("Cut", limit)]
    lines += [Line(label, line_of(findings, question)) for question, label in LABELS.items()]
    return {
        "headline": " ".join(lead),
        "summary": listed(lines),
        "findings": findings,
        "left_out": without_verdict(table, names),
        "notes": [limit] if limit else [],
    }


def _read(counted: Mapping[str, Mapping[str, Any] | None], finder: object) -> str:
    """How far the finder can be trusted on each model's responses."""
    told = {name: trust(record, finder, None) for name, record in counted.items()}
    return " ".join(f"{name}: {text}" for name, text in told.items() if text)


def line_of(findings: Sequence[dict[str, Any]], question: str) -> str:
    """What leads, else the first finding of a question, with its n and control."""
    there = [finding for finding in findings if finding["question"] == question]
    return " ".join(with_control(finding) for finding in [one for one in there if one["short"]] or there[:1])


def cut_by_model(table: Table, names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Responses of each model that the largest number of tokens cut, of those of which it is known."""
    rows = table[(table["measure"] == "cut") & table["other"].isna() & (table["subset"] == "all")]
    return [
        (str(row["model"]), round(row["value"] * row["n"]), int(row["n"]))
        for _, row in rows.iterrows()
        if row["model"] in names
    ]


def _outcomes(table: Table, names: Sequence[str], conditions: Conditions) -> list[dict[str, Any]]:
    findings = []
    for measure in _TOLD:
        rows = table[table["measure"] == measure]
        control = BY_SUITES if measure in ("suite_attack_success", "strongreject_score") else JUDGED
        if measure in _CONTROL_OF:
            benign = table[(table["measure"] == _CONTROL_OF[measure]) & (table["subset"] == "benign")]
            control = f"on benign prompts {MEASURES[_CONTROL_OF[measure]]}: {_each(benign, names, _percent) or 'none'}"
        for subset in dict.fromkeys(rows["subset"]):
            is_condition = subset in conditions.words()
            if (measure == "aha" and subset == "benign") or (
                is_condition and measure not in ("attack_success", "suite_attack_success")
            ):
                continue
            what = title_of(measure, subset, conditions)
            is_lead = measure in ("attack_success", "dormant_signal") and not is_condition
            about: dict[str, Any] = {"unit": " points", "control": control, "lead": is_lead}
            findings.append(_finding("did", what, rows[rows["subset"] == subset], names, _percent, **about))
    return list(filter(None, findings))


def _looks(table: Table, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = table[(table["measure"] == "lift_over_matched") & (table["subset"] == "all")]
    findings = []
    for place in rows[["position", "to_span"]].drop_duplicates().itertuples():
        of_place = rows[(rows["position"] == place.position) & (rows["to_span"] == place.to_span)]
        span = SPAN_LETTERS[str(place.to_span)]
        what = f"Attention of {ROWS[str(place.position)]} on {span}, × distance-matched baseline"
        control = "the distance-matched baseline of the same layers and heads, reference rows of U, gives 1"
        finding = _finding("what", what, of_place, names, _times, unit="", control=control, of_unit=TIMES)
        if finding:
            at = (table["position"] == place.position) & (table["to_span"] == place.to_span)
            split = table[at & (table["subset"] == "all") & (table["model"] == names[0])]
            findings.append(finding | {"text": finding["text"] + _split(split)})
    return findings


def _split(rows: Table) -> str:
    """How much of a change of the lift is of the mass, and how much of the baseline."""
    text = ""
    for other in dict.fromkeys(rows.loc[rows["measure"] == "log_lift_change", "other"]):
        part = rows[rows["other"] == other].set_index("measure")
        lift, mass, baseline = (
            estimate(part.loc[f"log_{name}_change"]).text("+.2f") for name in ("lift", "mass", "matched")
        )
        text += f" Log change of the lift, {other} over {rows['model'].iloc[0]}: {lift} = {mass} of the mass minus "
        text += f"{baseline} of the baseline."
    return text


def _knew(table: Table, names: Sequence[str]) -> list[dict[str, Any]]:
    findings = []
    for position, where in POSITIONS_COMPARED.items():
        here = table[table["position"] == position]
        states, words, best = (here[here["measure"] == name] for name in ("auroc", "auroc_words", "auroc_best"))
        controls = [f"the words alone {_each(words, names, _times)}"] if len(words) else []
        if len(best) and best["p"].notna().any():
            p = "; ".join(f"{row['model']} {row['p']:.2g}" for _, row in best.iterrows())
            controls.append(f"p of the best layer, over layers, against shuffled labels: {p}")
        what = f"AUROC of a probe {where}, median over layers"
        findings.append(
            _finding("knew", what, states, names, _times, unit="", control="; ".join(controls), of_unit=AUROC_GAIN)
        )
    return list(filter(None, findings))


def _finding(
    question: str,
    what: str,
    rows: Table,
    names: Sequence[str],
    form: Callable[[Estimate], str],
    *,
    unit: str,
    control: str | None,
    lead: bool = False,
    of_unit: str = "",
) -> dict[str, Any] | None:
    singles = rows[rows["other"].isna()]
    if singles.empty:
        return None
    text = f"{what}: {_each(singles, names, form)}."
    pairs = rows[rows["other"].notna() & (rows["model"] == names[0])]
    for _, row in pairs.iterrows():
        number = estimate(row)
        verdict = f", {difference_in_words(number, row['p'], SHARE if form is _percent else of_unit)}" * number.is_sure
        scaled = Estimate(*(100 * part for part in number)) if form is _percent else number
        shown = scaled.text("+.0f" if form is _percent else "+.2f")
        p = f", p = {row['p']:.2g}" if np.isfinite(row["p"]) else ""
        text += f" {row['other']} minus {row['model']}: {shown}{unit}{p}{verdict}."
    first = singles.iloc[0]
    short = text if lead else ""
    number = estimate(first)._asdict() if len(singles) == 1 else {"value": None, "low": None, "high": None}
    n = int(singles["n"].max())
    return {"question": question, "text": text, **number, "n": n, "control": control or "", "short": short}


def _each(rows: Table, names: Sequence[str], form: Callable[[Estimate], str]) -> str:
    of = {str(row["model"]): row for _, row in rows[rows["other"].isna()].iterrows()}
    return ", ".join(f"{name} {form(estimate(of[name]))}" for name in names if name in of)


def _percent(number: Estimate) -> str:
    return number.text(".0%")


def difference_in_words(number: Estimate, p: float, unit: str) -> str:
    """A difference that is not clear by its p is open, unless it is too small to matter."""
    verdict = verdict_of(number, smallest_of(unit))
    if verdict in ("above", "below"):
        return "open" if p > _ALPHA else "a clear difference"
    return size_in_words(number, unit)


def _times(number: Estimate) -> str:
    return number.text(".2f")


def without_verdict(table: Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """Responses without a verdict."""
    why = {
        "unjudged": "the judge has no verdict; in no share of answers",
        "suite_unjudged": "the suite's own judge has no verdict; in no share by that judge",
    }
    rows = table[table["measure"].isin(list(why)) & table["other"].isna() & (table["value"] > 0)]
    return [
        {"what": f"responses of {row['model']}", "why": why[str(row["measure"])], "n": round(row["value"] * row["n"])}
        for _, row in rows.iterrows()
        if row["model"] in names
    ]  # fmt: skip
