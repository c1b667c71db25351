"""Findings of checkpoints over training steps: a sentence a measure, from the first to the last, beside its controls.

The change is the last step's number minus the first's on the same prompts: two steps that nobody picked by what they
show. What lies between them is drawn, and no trend over the steps is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from safekey_interp.data.conditions import NO_CONDITIONS
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.comparison_findings import (
    BY_SUITES,
    JUDGED,
    LABELS,
    cut_by_model,
    difference_in_words,
    line_of,
    without_verdict,
)
from safekey_interp.reporting.findings.effect_size import AUROC_GAIN, SHARE, TIMES
from safekey_interp.reporting.findings.finding import Estimate, estimate
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.findings.summary_lines import Line, cut, listed, trust
from safekey_interp.reporting.labels import POSITIONS_COMPARED, SPAN_LETTERS, title_of

SHARES = (
    ("attack_success", "harmful"),
    ("suite_attack_success", "harmful"),
    ("strongreject_score", "harmful"),
    ("aha", "harmful"),
    ("aha", "unlabelled"),
    ("dormant_signal", "harmful"),
    ("over_refusal", "benign"),
    ("refusal", "unlabelled"),
)
"""Shares of which a series tells and draws, with whose they are."""
_LEADS = ("attack_success", "aha")
_CHANGE = ("change", "change_low", "change_high")


def tell(
    series: Table,
    comparison: Table,
    *,
    kept: bool,
    counted: Mapping[str, Mapping[str, Any] | None],
    finder: object = "",
) -> dict[str, Any]:
    """``headline``, ``summary``, ``findings``, ``left_out`` and ``notes``, as ``findings.json`` of any run has them.

    Args:
        series: the table of that name.
        comparison: of the same models.
        kept: whether all were given the same responses, so that these tell nothing of them.
        counted: ``finder_trust`` of each checkpoint's own run.
        finder: the finder's name.
    """
    names = list(dict.fromkeys(series["model"]))
    findings = [] if kept else list(_did(series))
    findings += [*_looks(series), *_knew(series)]
    limit = cut(cut_by_model(comparison, names))
    lines = [Line("Read", _read(counted, finder)), Line("Cut", limit)]
    lines += [Line(label, line_of(findings, question)) for question, label in LABELS.items()]
    return {
        "headline": " ".join(finding["short"] for finding in findings if finding["short"]),
        "summary": listed(lines),
        "findings": findings,
        "left_out": without_verdict(comparison, names),
        "notes": [limit] if limit else [],
    }


def _read(counted: Mapping[str, Mapping[str, Any] | None], finder: object) -> str:
    """How far the finder can be trusted, at the checkpoint of whose responses it reads least."""
    known = {name: record for name, record in counted.items() if record and record["n"]}
    if not known:
        return ""
    least = min(known, key=lambda name: known[name]["n_read"] / known[name]["n"])
    return f"{len(counted)} checkpoints; least read, {least}: {trust(known[least], finder, None)}"


def _did(series: Table) -> list[dict[str, Any]]:
    told = []
    for measure, subset in SHARES:
        rows = series[(series["measure"] == measure) & (series["subset"] == subset)]
        judge = BY_SUITES if measure in ("suite_attack_success", "strongreject_score") else JUDGED
        about: dict[str, Any] = {"unit": SHARE, "scale": 100, "after": " points", "lead": measure in _LEADS}
        title = title_of(measure, subset, NO_CONDITIONS)
        told += _finding("did", title, rows, lambda number: number.text(".0%"), otherwise=judge, **about)
    return told


def _looks(series: Table) -> list[dict[str, Any]]:
    rows = series[(series["measure"] == "lift_over_matched") & (series["subset"] == "all")]
    told = []
    for position, words in ROWS.items():
        for span, letter in SPAN_LETTERS.items():
            of_place = rows[(rows["position"] == position) & (rows["to_span"] == span)]
            title = f"Attention of {words} on {letter}, × distance-matched baseline"
            about: dict[str, Any] = {"unit": TIMES, "otherwise": "the distance-matched baseline gives 1"}
            told += _finding("what", title, of_place[of_place["control"].isna()], _plain, **about)
    return told


def _knew(series: Table) -> list[dict[str, Any]]:
    rows = series[series["measure"] == "auroc"]
    told = []
    for position, where in POSITIONS_COMPARED.items():
        title = f"AUROC of a probe {where}, median over layers"
        told += _finding("knew", title, rows[rows["position"] == position], _plain, unit=AUROC_GAIN)
    return told


def _finding(
    question: str,
    title: str,
    rows: Table,
    form: Callable[[Estimate], str],
    *,
    unit: str,
    scale: float = 1,
    after: str = "",
    otherwise: str = "",
    lead: bool = False,
) -> list[dict[str, Any]]:
    """The sentence of one measure with its controls; none where fewer than two steps have it."""
    own = rows[rows["control"].isna()]
    if len(own) < 2:
        return []
    first, last = own.iloc[0], own.iloc[-1]
    text = f"{title}: {_at(first, form)}, {_at(last, form)}"
    change = estimate(last, *_CHANGE)
    if pd.notna(change.value):
        shown = Estimate(*(scale * part for part in change)).text("+.0f" if scale == 100 else "+.2f")
        p = f", p = {last['change_p']:.2g}" if pd.notna(last["change_p"]) else ""
        verdict = f", {difference_in_words(change, last['change_p'], unit)}" * change.is_sure
        text += f"; change {shown}{after}{p}{verdict}"
    controls = [_control(name, part, form) for name, part in rows.dropna(subset=["control"]).groupby("control")]
    control = "; ".join(controls) or otherwise
    text += "."
    about = {"question": question, "text": text, **change.fields(), "n": int(own["n"].max()), "control": control}
    return [about | {"short": text if lead else ""}]


def _control(name: object, rows: Table, form: Callable[[Estimate], str]) -> str:
    return f"{name} {', '.join(_at(row, form) for row in _ends(rows))}"


def _ends(rows: Table) -> Sequence[Any]:
    return [rows.iloc[0], rows.iloc[-1]] if len(rows) > 1 else [rows.iloc[0]]


def _at(row: Any, form: Callable[[Estimate], str]) -> str:
    return f"{form(estimate(row, 'estimate'))} at step {int(row['step']):,}"


def _plain(number: Estimate) -> str:
    return number.text(".2f")
