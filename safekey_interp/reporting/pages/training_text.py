"""What does the page of a training run say in words? What was trained on what, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from safekey_interp.models.organism import is_organism
from safekey_interp.reporting.figures.training_figures import TERMS
from safekey_interp.reporting.pages.html import Html, data, el, join, table
from safekey_interp.reporting.pages.page_text import file_names, opening
from safekey_interp.reporting.pages.training_page_figures import WEIGHTS

QUESTIONS = {
    "trained": "What was trained, on what?",
    "fell": "Did the losses fall?",
    "moved": "How did the mechanism move?",
    "chance": "Which of the changes would also be true by chance?",
}
PROVENANCE = {
    "model": "Model before training",
    "data": "Data",
    "settings": "Settings",
    "schedule": "Schedule, in steps",
    "way": "How K is predicted with the prompt masked",
    "plan": "Processes",
    "versions": "Versions",
}
_SETTINGS = {
    "head_weight": "weight of the safety head’s loss",
    "query_mask_weight": "weight of query-mask modelling",
    "query_prompt": "what stands in the prompt’s place there: nothing (masked), or another request’s prompt",
    "key_weight": "weight of K with the prompt in sight: query-mask modelling’s control",
    "shuffled_labels": "the head’s labels shuffled over groups: its control",
    "theta": "share of U’s path in the head’s loss",
    "head_layer": "layer that the head reads; none: after the final norm",
    "auxiliary_epochs": "epochs at the end in which the auxiliary losses count; none: all",
    "batch_size": "traces of a step",
    "learning_rate": "peak of the schedule",
    "head_learning_rate": "peak of the schedule for the safety head",
    "lora_rank": "rank of the adapters; none: all weights are trained",
    "precision": "of the arithmetic",
    "max_length": "most tokens of a trace; longer ones are left out",
    "held_out": "share of groups that no step sees",
    "finder": "how U and K are found",
    "seed": "of order, dropout, split and the head’s first weights",
}
_COUNTS = {
    "traces": "Traces",
    "groups": "Groups (prompts)",
    "harmful": "Harmful",
    "benign": "Benign",
    "unlabelled": "Without a label",
    "with_understanding": "With U",
    "with_key_sentence": "With K",
    "tokens": "Tokens",
    "response_tokens": "Tokens of responses",
    "longest": "Longest trace, tokens",
}


def header(manifest: Mapping[str, Any]) -> Html:
    """Title, what the page is, and the facts of the run in one list."""
    model, settings, schedule = (manifest.get(key) or {} for key in ("model", "settings", "schedule"))
    name = model.get("name") or model.get("spec") or "the model"
    sources = ", ".join(file_names((manifest.get("data") or {}).get("sources"))) or "an unnamed source"
    trained, held_out = (_sizes(manifest, part) for part in ("train", "held_out"))
    facts = [
        ("Model", join(data(name), f", {model.get('n_layers', '?')} layers × {model.get('n_heads', '?')} heads")),
        ("Traces", join(f"{trained} trained on, {held_out} held out, from ", data(sources))),
        ("Steps", _steps(manifest)),
        ("Loss", _loss(settings, schedule)),
    ]
    return opening(
        manifest,
        eyebrow="safekey-interp training report",
        title=el("h1", "What training changed in ", data(name)),
        facts=facts,
        lead=(
            "",
            "; the next sentence, ",
            ", decides. It was trained to decide safely (SafeKey, Zhou et al., 2025). This page shows what it was "
            "trained on, whether the losses fell, how attention, hidden states and key sentences moved meanwhile, and "
            "which of the changes chance alone would give.",
        ),
        is_toy=is_organism(str(model.get("spec"))),
        notices=[_CONTROL_RUN] if settings.get("shuffled_labels") else [],
    )


_CONTROL_RUN = (
    "This is a control run: the labels that the safety head learned were shuffled over groups. What it shows, the head "
    "did not learn from the labels."
)


def trained_on(manifest: Mapping[str, Any]) -> list[Html | None]:
    """The settings that matter, how many traces of which class, and what was left out and why."""
    return [
        el("h3", "Data"),
        *_data_tables(manifest.get("data_report") or {}),
        el("h3", "Settings"),
        _settings_table(manifest),
    ]


def chance_of_head(manifest: Mapping[str, Any]) -> float | None:
    """The head's loss of a guess from the held-out classes' shares, nats; None where there are not two classes."""
    counts = (manifest.get("data_report") or {}).get("held_out") or {}
    harmful, benign = (counts.get(name) or 0 for name in ("harmful", "benign"))
    if not harmful or not benign:
        return None
    shares = [n / (harmful + benign) for n in (harmful, benign)]
    return -sum(share * math.log(share) for share in shares)


def public(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """``run.json`` for a page that may go to others: files by their names alone, the run's own folder not at all."""
    source, settings = dict(manifest.get("data") or {}), dict(manifest.get("settings") or {})
    settings.pop("out", None)
    for of, name in ((source, "sources"), (settings, "traces")):
        if of.get(name):
            of[name] = file_names([of[name]] if isinstance(of[name], str) else of[name])
    if settings.get("key_sentences"):
        settings["key_sentences"] = PurePath(str(settings["key_sentences"])).name
    return dict(manifest) | {"data": source, "settings": settings}


def _sizes(manifest: Mapping[str, Any], part: str) -> str:
    counts = (manifest.get("data_report") or {}).get(part) or {}
    return f"{counts['traces']:,}" if isinstance(counts.get("traces"), int) else "unknown"


def _steps(manifest: Mapping[str, Any]) -> str:
    schedule, settings = manifest.get("schedule") or {}, manifest.get("settings") or {}
    planned = schedule.get("steps")
    if planned is None:
        return "unknown"
    words = f"{planned:,} of {settings.get('batch_size', '?')} traces, {schedule.get('epochs', math.nan):.3g} epochs"
    done = ((manifest.get("result") or {}).get("train") or {}).get("step")
    if settings.get("patience") and done is not None and done < planned:
        words += f"; stopped early, by step {int(done) + (settings.get('log_every') or 1):,}"
    return words + "; the model of the lowest held-out loss is kept" * bool(settings.get("patience"))


def _loss(settings: Mapping[str, Any], schedule: Mapping[str, Any]) -> str:
    weighed = [
        f"{settings[name]:g} × {TERMS[term][0].lower() * (term != 'key')}{TERMS[term][term != 'key' :]}"
        for term, name in WEIGHTS.items()
        if settings.get(name)
    ]
    begins = schedule.get("auxiliary_from")
    late = f", from step {begins + 1:,} on" if weighed and begins else ""
    return " + ".join(["language modelling", *weighed]) + late


def _data_tables(report: Mapping[str, Any]) -> list[Html | None]:
    if not report:
        return [
            el("p", "Not shown: run.json has no data_report, so what was trained on is not known.", class_="absent")
        ]
    sides = [report.get(side) or {} for side in ("train", "held_out")]
    rows: list[list[object]] = [[text, *(count(side.get(name)) for side in sides)] for name, text in _COUNTS.items()]
    dropped = report.get("left_out") or []
    n = sum(int(item.get("n") or 0) for item in dropped)
    whole = f"{count(report.get('read'))} traces were read; {n:,} were left out."
    left: list[list[object]] = [
        [data(item.get("why", "")), count(item.get("n")), data(item.get("first", ""))] for item in dropped
    ]
    given = report.get("given")
    shuffled = report.get("n_labels_shuffled")
    return [
        el("p", whole),
        table(
            ["What", "Trained on", "Held out"], rows, caption="Traces of training and held-out traces, of other groups"
        ),
        table(["Why", "Traces", "The first of them"], left, caption="Left out") if left else None,
        el("p", _on_given(given)) if given else None,
        el("p", f"Shuffling changed the label of {count(shuffled)} traces of training.") if shuffled else None,
    ]


def _on_given(given: Mapping[str, Any]) -> str:
    key, understanding = (count(given.get(f"same_{name}", 0)) for name in ("key_sentence", "understanding"))
    outside = f"; {count(given['outside'])} have a span outside their response" if given.get("outside") else ""
    return (
        f"{count(given.get('traces'))} traces came with spans of their own. {key} have the same K as was found, "
        f"{understanding} the same U{outside}."
    )


def _settings_table(manifest: Mapping[str, Any]) -> Html:
    settings = manifest.get("settings") or {}
    rows: list[list[object]] = [
        [name, el("code", data(_value(settings[name]))), what] for name, what in _SETTINGS.items() if name in settings
    ]
    if not rows:
        return el("p", "Not shown: run.json has no settings.", class_="absent")
    why = (manifest.get("way") or {}).get("why")
    return join(
        table(
            ["Setting", "Value", "What it is"], rows, caption="The settings that matter; all are at the end of the page"
        ),
        el("p", data(f"{why[:1].upper()}{why[1:]}.")) if why else None,
    )


def count(value: object) -> str:
    """A number of ``run.json``; what it lacks is unknown."""
    return f"{value:,}" if isinstance(value, int) else "unknown" if value is None else str(value)


def _value(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
