"""Parts that every page has: its header, the summary of findings, what was left out, and the provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any

from safekey_interp.models.organism import CAVEAT, is_organism
from safekey_interp.reporting.pages.rendering import Cell, Html, part

RUNNING = "This run is not complete: the numbers below cover what was measured so far."
PROVENANCE = {
    "model": "Model",
    "data": "Data",
    "settings": "Settings",
    "plan": "Batch plan",
    "versions": "Versions",
    "timings": "Seconds",
}
"""Parts of ``run.json`` that a page shows, with their captions."""


def notices_of(manifest: Mapping[str, Any], is_toy: bool, more: Sequence[str] = ()) -> list[str]:
    """What a reader of any page must know of its run: that the model is a toy, or that the run is not complete."""
    is_running = manifest.get("status") not in (None, "complete")
    return [*[CAVEAT] * is_toy, *[RUNNING] * is_running, *more]


def model_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The model as a header names it, and whether it is the organism."""
    model = manifest.get("model") or {}
    return {
        "name": model.get("name") or model.get("spec") or "the model",
        "n_layers": model.get("n_layers", "?"),
        "n_heads": model.get("n_heads", "?"),
        "is_toy": is_organism(str(model.get("spec"))),
    }


def file_names(sources: Iterable[Any] | None) -> list[str]:
    """Names of files without their folders, which a page for others does not show."""
    return [PurePath(str(name)).name for name in sources or ()]


def sources_of(manifest: Mapping[str, Any]) -> str:
    """The files that were read, by their names."""
    return ", ".join(file_names((manifest.get("data") or {}).get("sources"))) or "an unnamed source"


def public(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """``run.json`` for a page that may go to others: files by their names alone, the run's own folder not at all."""
    source, settings = dict(manifest.get("data") or {}), dict(manifest.get("settings") or {})
    settings.pop("out", None)
    for values, name in ((source, "sources"), (settings, "traces")):
        if values.get(name):
            values[name] = file_names([values[name]] if isinstance(values[name], str) else values[name])
    if settings.get("key_sentences"):
        settings["key_sentences"] = PurePath(str(settings["key_sentences"])).name
    return dict(manifest) | {"data": source, "settings": settings}


def summary(findings: Mapping[str, Any], questions: Mapping[str, str]) -> Html:
    """The headline, and the findings under the question that each answers, in their order."""
    if not (findings.get("findings") or findings.get("headline")):
        return absent("findings.json", "the summary in words")
    answers = [
        (question, [_answer(f) for f in findings.get("findings") or [] if f.get("question") == key])
        for key, question in questions.items()
    ]
    return part("summary", findings.get("headline"), answers, sum(len(told) for _, told in answers))


def left_out(items: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any], thinned: Iterable[str]) -> Html:
    """What was dropped and why, straddling tokens, layers without a pattern, and what the page itself leaves away."""
    rows = [(item.get("what", ""), item.get("why", ""), _count(item.get("n"))) for item in items]
    n_surrogates = (manifest.get("data") or {}).get("n_surrogates")
    replaced = f"Lone surrogates in the texts, replaced by U+FFFD one for one: {n_surrogates or 0:,}."
    return part("left_out", rows, [*[replaced] * bool(n_surrogates), *filter(None, thinned)])


def provenance(manifest: Mapping[str, Any], titles: Mapping[str, str] = PROVENANCE) -> Html:
    """Everything that run.json says under the names of ``titles``, as tables of names and values."""
    names = ("command", "safekey_interp", "created", "seed", "status")
    whole = {name: manifest[name] for name in names if name in manifest}
    if not isinstance(command := whole.get("command", ""), str):
        whole["command"] = shlex.join(map(str, command))
    tables = {"Run": whole} | {title: manifest.get(name) or {} for name, title in titles.items()}
    return part(
        "provenance",
        [
            (title, [(key, Cell(_shown(value), is_code=True)) for key, value in values.items()])
            for title, values in tables.items()
            if values
        ],
    )


def absent(file: str, what: str) -> Html:
    """The one line that stands where a table is missing."""
    return part("absent", file, what)


def date_of(text: object) -> dict[str, str]:
    """A moment in words and in ISO 8601; what is no moment, as it is."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return {"text": str(text or "unknown"), "iso": ""}
    zone = f" {when:%Z}" if when.tzinfo else ""
    return {"text": f"{when:%d %B %Y, %H:%M}".lstrip("0") + zone, "iso": str(text)}


def value_text(value: object) -> str:
    """A setting's value."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _answer(finding: Mapping[str, Any]) -> dict[str, Any]:
    value, low, high = (finding.get(key) for key in ("value", "low", "high"))
    evidence = []
    if value is not None:
        interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
        evidence.append(("value", f"{value:.3g}{interval}"))
    evidence += [("n", _count(finding["n"]))] if finding.get("n") is not None else []
    evidence += [("control", finding["control"])] if finding.get("control") else []
    return {"text": finding.get("text", ""), "evidence": evidence}


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        shown = ", ".join(_shown(item) for item in value[:40])
        return shown + (f", … ({len(value):,} in all)" if len(value) > 40 else "") or "none"
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
