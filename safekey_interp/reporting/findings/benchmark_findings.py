"""Findings of benchmarks: a sentence a benchmark: each model's number, and the others minus the first.

A harness gives each model a mean over tasks and its standard error, not which task came out how, so a difference has

    (v₂ − v₁) ± 1.96 · √(se₁² + se₂²)

the interval of two independent means. Both models had the same tasks, hard ones for both among them, so a paired
interval would as a rule be narrower. Numbers of other versions of a harness, or of another count of tasks, are not
subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from safekey_interp.reporting.findings.effect_size import SHARE, size_in_words, smallest_of, verdict_of
from safekey_interp.reporting.findings.finding import Estimate
from safekey_interp.reporting.findings.summary_lines import Line, listed

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
CONTROL = "none; the number and its standard error over tasks are the harness's"
_IN_HEADLINE = 4
APART = "differences are between independent means, although the tasks were the same for both"


def difference(one: Any, two: Any) -> Estimate | None:
    """``two`` minus ``one``, rows of ``benchmarks``; None where they are not of the same tasks and harness."""
    same = ("benchmark", "task", "metric", "harness_version")
    if any(one[name] != two[name] for name in same) or size_of(one) != size_of(two):
        return None
    value = float(two["value"] - one["value"])
    if not all(math.isfinite(row["low"]) for row in (one, two)):
        return Estimate(value, math.nan, math.nan)
    low_one, low_two = (float(row["value"] - row["low"]) for row in (one, two))
    high_one, high_two = (float(row["high"] - row["value"]) for row in (one, two))
    # Newcombe 1998, Statistics in Medicine 17:873, method 10: from the two intervals.
    return Estimate(value, value - math.hypot(low_two, high_one), value + math.hypot(high_two, low_one))


def tell(
    table: Table,
    names: Sequence[str],
    left_out: Sequence[dict[str, Any]],
    limit: str = "",
) -> dict[str, Any]:
    """``headline``, ``summary``, ``findings``, ``left_out`` and ``notes``, as ``findings.json`` of any run has them.

    Args:
        table: ``benchmarks``.
        names: the models, in their order.
        left_out: what failed, with reasons.
        limit: how many responses the largest number of tokens cut, by model and benchmark
            (:func:`~safekey_interp.reporting.findings.summary_lines.cut`).
    """
    findings = []
    for benchmark, rows in table[table["is_main"]].groupby("benchmark", sort=False):
        of = {str(row["model"]): row for _, row in rows.iterrows()}
        there = [name for name in names if name in of]
        if there:
            findings.append(_finding(str(benchmark), [of[name] for name in there]))
    lead = [finding["short"] for finding in findings[:_IN_HEADLINE]]
    lead += [f"And {len(findings) - _IN_HEADLINE} more."] if len(findings) > _IN_HEADLINE else []
    failed = ", ".join(entry["what"] for entry in left_out)
    failed = f" Without a number, for the reasons of --details: {failed}." if failed else ""
    told = " ".join(finding["text"] for finding in findings[:_IN_HEADLINE])
    lines = [
        Line("Read", f"Benchmarks, as their harnesses score them: {len(findings):,}.{failed}"),
        Line("Cut", limit),
        Line("Scores", " ".join([told, *lead[_IN_HEADLINE:]])),
        Line("Control", f"{CONTROL}; {APART}." if len(names) > 1 else f"{CONTROL}."),
    ]
    return {
        "headline": " ".join(lead),
        "summary": listed(lines),
        "findings": findings,
        "left_out": list(left_out),
        "notes": [limit] if limit else [],
    }


def shown(row: Any) -> str:
    """``0.512 [0.468, 0.556]`` of a row of ``benchmarks``; in place of an interval, why there is none."""
    number = Estimate(float(row["value"]), float(row["low"]), float(row["high"]))
    if number.is_sure:
        return number.text(".3f")
    error = row["stderr"]
    why = "no standard error" if math.isnan(error) else "too few tasks" if error > 0 else "all tasks alike"
    return f"{number.value:.3f} [{why}]"


def shown_difference(number: Estimate) -> str:
    """``+0.090 [+0.032, +0.148]``."""
    return number.text("+.3f") if number.is_sure else f"{number.value:+.3f} [no interval]"


def size_of(row: Any) -> int | None:
    """How many tasks a row of ``benchmarks`` rests on; None where the harness does not say."""
    import pandas as pd

    return None if pd.isna(row["n"]) else int(row["n"])


def _each(rows: Sequence[Any], form: Callable[[Any], str]) -> str:
    return ", ".join(f"{row['model']} {form(row)}" for row in rows)


def _verdict(number: Estimate, rows: Sequence[Any]) -> str:
    """On a difference; a score outside [0, 1] is no share, and has no smallest effect of interest."""
    unit = SHARE if all(0 <= row["value"] <= 1 for row in rows) else ""
    clear = verdict_of(number, smallest_of(unit)) in ("above", "below")
    return "a clear difference" if clear else size_in_words(number, unit)


def _finding(benchmark: str, rows: list[Any]) -> dict[str, Any]:
    first = rows[0]
    what = f"{benchmark} ({first['metric']})"
    text = f"{what}: {_each(rows, shown)}."
    compared = False
    for row in rows[1:]:
        number = difference(first, row)
        if number is None:
            text += f" {row['model']} is not subtracted: other tasks, or another version of the harness."
            continue
        compared = True
        verdict = f", {_verdict(number, [first, row])}" if number.is_sure else ""
        text += f" {row['model']} minus {first['model']}: {shown_difference(number)}{verdict}."
    number = {name: float(first[name]) if len(rows) == 1 else math.nan for name in ("value", "low", "high")}
    return {
        "question": "benchmarks",
        "text": text,
        **{name: None if math.isnan(value) else value for name, value in number.items()},
        "n": size_of(first),
        "control": f"{CONTROL}; {APART}" if compared else CONTROL,
        "short": text,
    }
