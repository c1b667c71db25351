"""What does a page say of benchmarks in words and tables? The same in a page of their own and in a comparison's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.evaluation.benchmarks.catalogue import known_benchmarks
from safekey_interp.models.organism import is_organism
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.benchmark_findings import difference, shown, shown_difference, size_of
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.html import Html, data, el, join, table
from safekey_interp.reporting.pages.page_layout import figures_of
from safekey_interp.reporting.pages.probe_page_figures import Group, panel_of
from safekey_interp.runs.run_folder import Run

QUESTIONS = {"benchmarks": "What do benchmarks say?"}
HOW = (
    "Benchmarks of others, run by their own harnesses on the same checkpoints; the numbers are the harnesses’. A "
    "model’s reasoning is told from its answer by the mark that ends it, and the answer alone is scored."
)
_APART = (
    "Brackets: 95 % normal intervals from the harness’s standard error over tasks; none where it gives no error, all "
    "tasks came out alike, or there are fewer than ten. Differences are between independent means: the models had the "
    "same tasks, but a harness tells only how many came out well, so paired intervals would as a rule be narrower. One "
    "in bold has an interval without 0."
)
_LIMITED = "Only the first {n:,} tasks of each benchmark were asked: a number of so few says little of the benchmark."
_PREFILLED = "{names}: the harness begins the answer itself, so no model thinks before it."
PROVENANCE = {"settings": "How benchmarks were asked", "versions": "Versions", "timings": "Seconds"}


class Beside(NamedTuple):
    """What the page of a comparison shows of the benchmarks that were run in its folder."""

    group: Group | None
    """The panel."""
    shown: list[Html | None]
    """What stands under its heading, around the panel."""
    numbers: list[Html | None]
    """The table."""
    left_out: list[dict[str, Any]]
    """What failed."""
    provenance: list[Html | None]
    """Where the numbers come from."""


def beside(run: Run | None, first: Sequence[str]) -> Beside:
    """The benchmarks of a comparison of the models ``first``; all empty for None."""
    if run is None:
        return Beside(None, [], [], [], [])
    rows, manifest, findings = run.benchmarks, run.manifest, run.findings or {}
    names = names_in(rows, first)
    found = group(rows, names)
    said = el("ul", *(el("li", data(one.get("text", ""))) for one in findings.get("findings") or []))
    shown = [el("p", HOW), notes(manifest), figures_of(found, "benchmarks.parquet", "scores by benchmark"), said]
    told = [el("h3", "Of the benchmarks"), *provenance(manifest)]
    return Beside(found, shown, [everything(rows, names)], findings.get("left_out") or [], told)


def header(manifest: Mapping[str, Any], names: Sequence[str]) -> Html:
    """Title, what the page is, and the facts of the run in one list."""
    whose = join(*(join(", " if at else "", data(name)) for at, name in enumerate(names))) if names else "models"
    benchmarks = ", ".join(str(one.get("name")) for one in manifest.get("benchmarks") or [])
    return page_text.opening(
        manifest,
        eyebrow="safekey-interp benchmarks",
        title=el("h1", whose, " on benchmarks"),
        facts=[("Models", whose), ("Benchmarks", data(benchmarks or "none"))],
        lead=(
            "",
            "; the next sentence, ",
            ", decides. This page shows what such models are able to do: how their answers do on benchmarks of "
            "others, their reasoning not counted.",
        ),
        is_toy=any(is_organism(str(one.get("spec"))) for one in manifest.get("models") or []),
    )


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


def notes(manifest: Mapping[str, Any]) -> Html | None:
    """What must be known beside the numbers; None for nothing."""
    said = []
    limit = (manifest.get("settings") or {}).get("limit")
    if isinstance(limit, int):
        said.append(_LIMITED.format(n=limit))
    asked = [str(one.get("name")) for one in manifest.get("benchmarks") or []]
    known = known_benchmarks()
    prefilled = [name for name in asked if name in known and known[name].is_prefilled]
    if prefilled:
        said.append(_PREFILLED.format(names=", ".join(prefilled)))
    return el("ul", *(el("li", data(one)) for one in said)) if said else None


def everything(rows: Table | None, names: Sequence[str]) -> Html:
    """One table: a row a number, a column a model and a column a pair of models."""
    if rows is None or rows.empty:
        return page_text.absent("benchmarks.parquet", "the table of benchmarks")
    pairs = [(one, two) for at, one in enumerate(names) for two in names[at + 1 :]]
    listed: list[list[object]] = []
    keys = ["benchmark", "task", "metric"]
    for (benchmark, task, metric), part in rows.groupby(keys, sort=False):
        of = {str(row["model"]): row for _, row in part.iterrows()}
        versions = list(dict.fromkeys(map(str, part["harness_version"])))
        about = [*([] if str(benchmark).endswith(str(task)) else [str(task)]), str(metric), *versions]
        name = el("strong", data(benchmark)) if part["is_main"].any() else data(benchmark)
        what = join(name, el("span", " ", data(", ".join(about)), class_="muted"))
        cells = [_number(of.get(name), with_version=len(versions) > 1) for name in names]
        apart = [_difference(of.get(one), of.get(two)) for one, two in pairs]
        listed.append([what, *cells, *apart])
    heads = ["Benchmark: task, metric, harness", *names, *(f"{two} less {one}" for one, two in pairs)]
    return join(el("p", _APART, class_="muted"), table(heads, listed, caption="Benchmarks, every number"))


def sources(manifest: Mapping[str, Any]) -> Html | None:
    """Which benchmarks they are, and who made them; None without any."""
    listed: list[list[object]] = [
        [data(one.get("name", "")), data(one.get("harness", "")), data(one.get("task", "")), data(one.get("cites", ""))]
        for one in manifest.get("benchmarks") or []
    ]
    return table(["Name", "Harness", "Task", "Made by"], listed, caption="Benchmarks") if listed else None


def provenance(manifest: Mapping[str, Any]) -> list[Html | None]:
    """The benchmarks, the models and everything else that run.json says."""
    models: list[list[object]] = [
        [
            data(one.get("name", "")),
            data(_marks(one)),
            str((manifest.get("settings") or {}).get("max_new_tokens") or one.get("longest_answer")),
            el("code", data(str(one.get("fingerprint"))[:16])),
        ]
        for one in manifest.get("models") or []
    ]
    return [
        sources(manifest),
        table(["Model", "Marks of its reasoning", "Most new tokens", "Fingerprint"], models, caption="Models")
        if models
        else None,
        page_text.provenance(dict(manifest), PROVENANCE),
    ]


def _marks(model: Mapping[str, Any]) -> str:
    thinking = model.get("thinking") or {}
    marks = " … ".join(map(str, thinking.get("marks") or [])) or "none known"
    return marks if thinking.get("chat_template") else f"{marks}; no chat template, so prompts were plain text"


def _number(row: Any, *, with_version: bool) -> Html | str:
    if row is None:
        return "n/a"
    n = size_of(row)
    about = f" n = {'unknown' if n is None else format(n, ',')}"
    about += f"; {row['harness_version']}" if with_version else ""
    return join(shown(row), el("span", data(about), class_="muted"))


def _difference(one: Any, two: Any) -> Html | str:
    number = None if one is None or two is None else difference(one, two)
    if number is None:
        return "n/a"
    text = shown_difference(number)
    return el("strong", text) if number.is_sure and number.low * number.high > 0 else text
