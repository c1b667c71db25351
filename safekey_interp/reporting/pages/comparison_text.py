"""What does the page of a comparison say in words, tables and worked examples?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safekey_interp.data.conditions import Conditions
from safekey_interp.models.organism import is_organism
from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.findings.finding import Estimate, estimate
from safekey_interp.reporting.findings.phrases import ROWS
from safekey_interp.reporting.labels import AUROCS, LOOKS, POSITIONS_COMPARED, SPAN_LETTERS, SUBSETS, VERDICTS, title_of
from safekey_interp.reporting.pages import page_text
from safekey_interp.reporting.pages.html import Html, data, el, join, table

QUESTIONS = {
    "did": "What did they do?",
    "what": "Where do they decide, and what do they look at?",
    "knew": "What did they know?",
}
KEPT = (
    "All models were given the same responses, so what they would have done is not in this comparison: only what they "
    "look at and know differs."
)
_PROVENANCE = {"data": "Data", "settings": "Settings", "versions": "Versions", "timings": "Seconds"}
_OF_MODEL = ("name", "spec", "revision", "adapter", "architecture", "n_layers", "n_heads", "dtype", "weights_sha256")
_OF_SUITE = ("title", "judge", "asked", "citation")


def header(manifest: Mapping[str, Any], names: Sequence[str]) -> Html:
    """Title, what the page is, and the facts of the run in one list."""
    source = manifest.get("data") or {}
    shown = join(*(join(", " if at else "", data(name)) for at, name in enumerate(names))) if names else "models"
    sources = ", ".join(page_text.file_names(source.get("sources"))) or "an unnamed source"
    facts = [
        ("Models", shown),
        ("Prompts", join(f"{source.get('n_read', '?')} from ", data(sources))),
    ]
    models = manifest.get("models") or []
    return page_text.opening(
        manifest,
        eyebrow="safekey-interp comparison",
        title=el("h1", shown, " on the same prompts"),
        facts=facts,
        lead=(
            "The same prompts went through each model. ",
            "; the next sentence, ",
            ", decides. This page shows what the models did, what they look at where they decide, what their hidden "
            "states know before, and which of the differences prompts alone would give.",
        ),
        is_toy=any(is_organism(str((model.get("model") or {}).get("spec"))) for model in models),
    )


def tick(words: str, measure: str) -> str:
    """A subset's words where there is little room."""
    short = words.replace(" prompts", "")
    return short if measure in ("aha", "names_harm") else short.rpartition(", ")[0] or short


def everything(comparison: Table | None, names: Sequence[str], conditions: Conditions) -> Html:
    """One table: a row a measure, a column a model and a column a pair of models."""
    if comparison is None or comparison.empty:
        return page_text.absent("comparison.parquet", "the table of differences")
    rows: list[list[object]] = []
    keys = ["measure", "subset", "position", "to_span"]
    pairs = [(one, two) for at, one in enumerate(names) for two in names[at + 1 :]]
    for key, part in comparison.groupby(keys, sort=False, dropna=False):
        about = {name: None if value is None else str(value) for name, value in _given(keys, key)}
        as_share = about["position"] is None
        single = {str(row["model"]): row for _, row in part[part["other"].isna()].iterrows()}
        both = {(row["model"], row["other"]): row for _, row in part[part["other"].notna()].iterrows()}
        cells = [_number(single.get(name), as_share) for name in names]
        rows.append(
            [data(_title(about, conditions)), *cells, *(_difference(both.get(pair), as_share) for pair in pairs)]
        )
    heads = ["Measure", *names, *(f"{two} less {one}" for one, two in pairs)]
    note = el(
        "p",
        "Brackets: 95 % intervals over prompts. Differences of shares are in percentage points; one in bold has an "
        "interval without 0. p: exact, signs flipped by prompt, for shares; for the best layer, against shuffled "
        "labels over all layers. Nothing is corrected for the number of rows, so of twenty without any difference one "
        "may be bold.",
        class_="muted",
    )
    return join(note, table(heads, rows, caption="Each model, and differences on the same prompts"))


def side_by_side(examples: Sequence[Mapping[str, Any]] | None) -> list[Html | None]:
    """Worked examples: a prompt, and what each model made of it."""
    if not examples:
        return [page_text.absent("side_by_side.json", "worked examples")]
    lead = "Prompts drawn by the seed, those first on which the models differ; no choice by hand."
    return [el("p", lead), *(_example(example) for example in examples)]


def provenance(manifest: Mapping[str, Any]) -> list[Html]:
    """The models and everything else that run.json says."""
    rows: list[list[object]] = []
    for one in manifest.get("models") or []:
        model = {**(one.get("model") or {}), "name": one.get("name")}
        rows.append([data(_short(model.get(name))) for name in _OF_MODEL])
    models = table(list(_OF_MODEL), rows, caption="Models")
    suites: list[list[object]] = [
        [data(str(suite.get(name, ""))) for name in _OF_SUITE]
        for suite in (manifest.get("data") or {}).get("suites") or []
    ]
    cited = [table(list(_OF_SUITE), suites, caption="Suites, as their authors publish them")] if suites else []
    return [models, *cited, page_text.provenance(dict(manifest), _PROVENANCE)]


def _example(example: Mapping[str, Any]) -> Html:
    about = ", ".join(str(example[name]) for name in ("label", "condition") if example.get(name))
    return el(
        "article",
        el(
            "p",
            page_text.mark("prompt", "X"),
            " ",
            data(example.get("prompt", "")),
            el("span", " ", data(about), class_="muted") if about else None,
        ),
        el("div", *(_side(side) for side in example.get("sides") or []), class_="sides"),
        class_="example",
    )


def _side(side: Mapping[str, Any]) -> Html:
    verdict = VERDICTS.get(str(side.get("judged")), f"no verdict: {side.get('reason')}")
    notes = [verdict, *(["cut"] if side.get("cut") else [])]
    notes += [f"K {side['aha']}"] if side.get("aha") else []
    notes += ["U names the harm"] if side.get("hint") else []
    parts: list[Html | None] = [el("h4", data(side.get("model", "")))]
    for role, letter in (("understanding", "U"), ("key_sentence", "K")):
        text = side.get(role)
        shown = data(text) if text else el("span", "not found", class_="muted")
        parts.append(el("p", page_text.mark(role, letter), " ", shown, class_=role.replace("_", "-")))
    answer = side.get("answer")
    parts.append(el("p", data(answer) if answer else el("span", "no answer", class_="muted"), class_="answer-text"))
    parts.append(el("p", data("; ".join(notes)), class_="evidence"))
    return el("div", *parts, class_="side")


def _given(names: Sequence[str], values: Any) -> list[tuple[str, Any]]:
    import pandas as pd

    return [(name, None if pd.isna(value) else value) for name, value in zip(names, values, strict=True)]


def _title(about: Mapping[str, str | None], conditions: Conditions) -> str:
    measure, position = str(about["measure"]), about["position"]
    if position is None:
        return title_of(measure, str(about["subset"]), conditions)
    if about["to_span"] is not None:
        subset = "" if about["subset"] == "all" else f" ({SUBSETS.get(str(about['subset']), about['subset'])})"
        return f"Attention of {ROWS[position]} on {SPAN_LETTERS[about['to_span']]}, {LOOKS[measure]}{subset}"
    return f"AUROC {POSITIONS_COMPARED[position]}, {AUROCS[measure]}"


def _number(row: Any, as_share: bool) -> Html | str:
    if row is None:
        return "n/a"
    return join(_text(estimate(row), as_share), _sizes(row))


def _difference(row: Any, as_share: bool) -> Html | str:
    if row is None:
        return "n/a"
    number = estimate(row)
    text = _text(number, as_share, sign="+")
    is_clear = number.is_sure and number.low * number.high > 0
    shown = el("strong", text) if is_clear else text
    return join(shown, _sizes(row))


def _sizes(row: Any) -> Html:
    p = f"; p = {row['p']:.2g}" if math.isfinite(row["p"]) else ""
    return el("span", f" n = {int(row['n']):,}{p}", class_="muted")


def _text(number: Estimate, as_share: bool, sign: str = "") -> str:
    form = f"{sign}.0%" if as_share else f"{sign}.2f"
    return number.text(form) if number.is_sure else f"{number.value:{form}}"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text.rstrip("/").rsplit("/", 1)[-1] if text.startswith("/") else text[:40]
