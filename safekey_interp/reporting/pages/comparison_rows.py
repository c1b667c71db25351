"""Rows of the page of a comparison: every measure by model and by pair of models, and examples side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from safekey_interp.data.conditions import Conditions
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import Estimate, estimate
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.labels import AUROCS, LOOKS, POSITIONS_COMPARED, SPAN_LETTERS, SUBSETS, VERDICTS, title_of
from safekey_interp.reporting.pages.rendering import Cell

_OF_MODEL: tuple[str, ...] = (
    "name",
    "spec",
    "revision",
    "adapter",
    "architecture",
    "n_layers",
    "n_heads",
    "dtype",
    "weights_sha256",
)
_OF_SUITE: tuple[str, ...] = ("title", "judge", "asked", "citation")


def tick(words: str, measure: str) -> str:
    """A subset's words where there is little room."""
    short = words.replace(" prompts", "")
    return short if measure in ("aha", "names_harm") else short.rpartition(", ")[0] or short


def head_of(first: str, names: Sequence[str]) -> list[str]:
    """Names of the columns: what a row is, the models, and the pairs of models."""
    return [first, *names, *(f"{two} minus {one}" for one, two in itertools.combinations(names, 2))]


def comparison_rows(comparison: Table, names: Sequence[str], conditions: Conditions) -> list[list[str | Cell]]:
    """A row a measure, a column a model and a column a pair of models."""
    rows = []
    keys = ["measure", "subset", "position", "to_span"]
    for key, part in comparison.groupby(keys, sort=False, dropna=False):
        about = {name: None if pd.isna(value) else str(value) for name, value in zip(keys, key, strict=True)}
        as_share = about["position"] is None
        single = {str(row["model"]): row for _, row in part[part["other"].isna()].iterrows()}
        both = {(row["model"], row["other"]): row for _, row in part[part["other"].notna()].iterrows()}
        cells = [number_cell(single.get(name), as_share) for name in names]
        cells += [difference_cell(both.get(pair), as_share) for pair in itertools.combinations(names, 2)]
        rows.append([measure_title(about, conditions), *cells])
    return rows


def examples_of(examples: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Worked examples: a prompt, and what each model made of it."""
    return [
        {
            "prompt": example.get("prompt", ""),
            "about": ", ".join(str(example[name]) for name in ("label", "condition") if example.get(name)),
            "sides": [_side(side) for side in example.get("sides") or []],
        }
        for example in examples or []
    ]


def sources_of(manifest: Mapping[str, Any]) -> list[tuple[list[str], list[list[str]], str]]:
    """Tables of the models and of the suites: head, rows and caption."""
    models = [
        [_short(({**(entry.get("model") or {}), "name": entry.get("name")}).get(name)) for name in _OF_MODEL]
        for entry in manifest.get("models") or []
    ]
    suites = [
        [str(suite.get(name, "")) for name in _OF_SUITE] for suite in (manifest.get("data") or {}).get("suites") or []
    ]
    tables = [(list(_OF_MODEL), models, "Models"), (list(_OF_SUITE), suites, "Suites, as their authors publish them")]
    return tables if suites else tables[:1]


def _side(side: Mapping[str, Any]) -> dict[str, Any]:
    notes = [VERDICTS.get(str(side.get("judged")), f"no verdict: {side.get('reason')}")]
    notes += ["cut"] * bool(side.get("cut")) + [f"K {side.get('aha')}"] * bool(side.get("aha"))
    notes += ["U names the harm"] * bool(side.get("hint"))
    texts = {name: side.get(name) or "" for name in ("model", "understanding", "key_sentence", "answer")}
    return texts | {"notes": "; ".join(notes)}


def measure_title(about: Mapping[str, str | None], conditions: Conditions) -> str:
    """What a row of ``comparison`` is a number of, by its ``measure``, ``subset``, ``position`` and ``to_span``."""
    measure, position = str(about["measure"]), about["position"]
    if position is None:
        return title_of(measure, str(about["subset"]), conditions)
    if about["to_span"] is not None:
        subset = "" if about["subset"] == "all" else f" ({SUBSETS.get(str(about['subset']), about['subset'])})"
        return f"Attention of {ROWS[position]} on {SPAN_LETTERS[about['to_span']]}, {LOOKS[measure]}{subset}"
    return f"AUROC {POSITIONS_COMPARED[position]}, {AUROCS[measure]}"


def number_cell(row: Any, as_share: bool) -> Cell | str:
    """A number with its interval and sizes; ``n/a`` without a row."""
    return "n/a" if row is None else Cell(_text(estimate(row), as_share), _sizes(row))


def difference_cell(row: Any, as_share: bool) -> Cell | str:
    """A difference likewise, bold where its interval leaves 0 out."""
    if row is None:
        return "n/a"
    number = estimate(row)
    is_clear = number.is_sure and number.low * number.high > 0
    return Cell(_text(number, as_share, sign="+"), _sizes(row), is_strong=is_clear)


def _sizes(row: Any) -> str:
    return f"n = {int(row['n']):,}" + (f"; p = {row['p']:.2g}" if math.isfinite(row["p"]) else "")


def _text(number: Estimate, as_share: bool, sign: str = "") -> str:
    form = f"{sign}.0%" if as_share else f"{sign}.2f"
    return number.text(form) if number.is_sure else f"{number.value:{form}}"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text.rstrip("/").rsplit("/", 1)[-1] if text.startswith("/") else text[:40]
