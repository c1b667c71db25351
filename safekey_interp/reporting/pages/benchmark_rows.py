"""Rows of benchmarks on a page of their own and on a comparison's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from safekey_interp.evaluation.benchmarks.catalogue import NAMED
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Spec, Table
from safekey_interp.reporting.figures.overview_figures import difference_unit
from safekey_interp.reporting.findings.benchmark_findings import difference, shown, shown_difference, size_of
from safekey_interp.reporting.pages.probe_page_figures import Group, panel_of
from safekey_interp.reporting.pages.rendering import Cell

_PREFILLED = {benchmark.name for benchmark in NAMED if benchmark.is_prefilled}


def names_in(rows: Table | None, first: Sequence[str]) -> list[str]:
    """The models that have numbers, those of ``first`` in their order before the others."""
    there = [] if rows is None else list(dict.fromkeys(map(str, rows["model"])))
    return [name for name in first if name in there] + [name for name in there if name not in first]


def group(rows: Table | None, names: Sequence[str]) -> Group | None:
    """The panel of the benchmarks; None without numbers."""
    if rows is None or rows.empty:
        return None
    panel = panel_of(
        "benchmark-scores", "Score by benchmark", (), lambda _: figures.score_by_benchmark.spec(rows, names=names)
    )
    return Group(name="benchmarks", choices=(), panels=(panel,)) if panel.variants else None


def differences_figure(rows: Table | None, names: Sequence[str]) -> Spec | None:
    """Differences from the first model, of the number that stands for each benchmark; None without another model."""
    if rows is None or len(names) < 2:
        return None
    main = rows[rows["is_main"]]
    table = [
        {"place": str(benchmark), "series": f"{name} minus {names[0]}", **number._asdict()}
        for benchmark, part in main.groupby("benchmark", sort=False)
        for name in names[1:]
        if (of := {str(row["model"]): row for _, row in part.iterrows()}).keys() >= {names[0], name}
        and (number := difference(of[names[0]], of[name])) is not None
    ]
    if not table:
        return None
    caption = (
        f"Differences from {names[0]}. Lines: 95 % intervals of two independent means; none where a harness gives no "
        "standard error."
    )
    unit = difference_unit(row["series"] for row in table)
    about = {"title": "Differences", "x": unit, "caption": caption, "across_at": 0}
    return figures.estimates_as_forest.spec(pd.DataFrame(table), **about)


def notes(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What must be known beside the numbers: ``limit`` of tasks, benchmarks whose answers the harness begins."""
    limit = (manifest.get("settings") or {}).get("limit")
    asked = [str(benchmark.get("name")) for benchmark in manifest.get("benchmarks") or []]
    prefilled = ", ".join(name for name in asked if name in _PREFILLED)
    return {"limit": f"{limit:,}" if isinstance(limit, int) else "", "prefilled": prefilled}


def benchmark_rows(rows: Table, names: Sequence[str]) -> list[list[Cell | str]]:
    """A row a number, a column a model and a column a pair of models."""
    body = []
    for (benchmark, task, metric), part in rows.groupby(["benchmark", "task", "metric"], sort=False):
        of = {str(row["model"]): row for _, row in part.iterrows()}
        versions = list(dict.fromkeys(map(str, part["harness_version"])))
        about = [*([] if str(benchmark).endswith(str(task)) else [str(task)]), str(metric), *versions]
        what = Cell(str(benchmark), ", ".join(about), is_strong=bool(part["is_main"].any()))
        cells = [_number(of.get(name), with_version=len(versions) > 1) for name in names]
        pairs = [_difference(of.get(one), of.get(two)) for one, two in itertools.combinations(names, 2)]
        body.append([what, *cells, *pairs])
    return body


def sources_of(manifest: Mapping[str, Any]) -> list[tuple[list[str], list[list[Cell | str]], str]]:
    """Tables of the benchmarks with who made them, and of the models: head, rows and caption."""
    benchmarks = [
        [entry.get(name, "") for name in ("name", "harness", "task", "cites")]
        for entry in manifest.get("benchmarks") or []
    ]
    longest = (manifest.get("settings") or {}).get("max_new_tokens")
    models = [
        [
            entry.get("name", ""),
            _marks(entry),
            str(longest or entry.get("longest_answer")),
            Cell(str(entry.get("fingerprint"))[:16], is_code=True),
        ]
        for entry in manifest.get("models") or []
    ]
    tables = [
        (["Name", "Harness", "Task", "Made by"], benchmarks, "Benchmarks"),
        (["Model", "Marks of its reasoning", "Most new tokens", "Fingerprint"], models, "Models"),
    ]
    return [table for table in tables if table[1]]


def _marks(model: Mapping[str, Any]) -> str:
    thinking = model.get("thinking") or {}
    marks = " … ".join(map(str, thinking.get("marks") or [])) or "none known"
    return marks if thinking.get("chat_template") else f"{marks}; no chat template, so prompts were plain text"


def _number(row: Any, *, with_version: bool) -> Cell | str:
    if row is None:
        return "n/a"
    n = size_of(row)
    version = f"; {row['harness_version']}" if with_version else ""
    return Cell(shown(row), f"n = {'unknown' if n is None else format(n, ',')}{version}")


def _difference(one: Any, two: Any) -> Cell | str:
    number = None if one is None or two is None else difference(one, two)
    if number is None:
        return "n/a"
    return Cell(shown_difference(number), is_strong=number.is_sure and number.low * number.high > 0)
