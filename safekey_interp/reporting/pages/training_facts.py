"""Facts of a training run for its page: sizes, settings, and what was left out of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safekey_interp.reporting.figures.training_figures import TERMS
from safekey_interp.reporting.findings.phrases import small_initial
from safekey_interp.reporting.pages.page_text import date_of, model_of, notices_of, sources_of, value_text
from safekey_interp.reporting.pages.rendering import Cell
from safekey_interp.reporting.pages.training_page_figures import WEIGHTS

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


_CONTROL_RUN = (
    "This is a control run: the labels that the safety head learned were shuffled over groups. What it shows, the head "
    "did not learn from the labels."
)


def header_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the header says."""
    settings, model = manifest.get("settings") or {}, model_of(manifest)
    return {
        "model": model,
        "date": date_of(manifest.get("created")),
        "trained": _sizes(manifest, "train"),
        "held_out": _sizes(manifest, "held_out"),
        "sources": sources_of(manifest),
        "steps": _steps(manifest),
        "loss": _loss(settings, manifest.get("schedule") or {}),
    }


def notices(manifest: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the whole run."""
    is_control = (manifest.get("settings") or {}).get("shuffled_labels")
    return notices_of(manifest, model_of(manifest)["is_toy"], [_CONTROL_RUN] * bool(is_control))


def data_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """How many traces of which class were read, trained on, held out and left out, of ``data_report``."""
    sides = [report.get(side) or {} for side in ("train", "held_out")]
    dropped, given = report.get("left_out") or [], report.get("given")
    return {
        "read": count(report.get("read")),
        "n_left_out": f"{sum(int(item.get('n') or 0) for item in dropped):,}",
        "sizes": [[text, *(count(side.get(name)) for side in sides)] for name, text in _COUNTS.items()],
        "left_out": [[item.get("why", ""), count(item.get("n")), item.get("first", "")] for item in dropped],
        "given": given
        and {
            "traces": count(given.get("traces")),
            "same_key_sentence": count(given.get("same_key_sentence", 0)),
            "same_understanding": count(given.get("same_understanding", 0)),
            "outside": count(given["outside"]) if given.get("outside") else "",
        },
        "n_shuffled": report.get("n_labels_shuffled") and count(report["n_labels_shuffled"]),
    }


def setting_rows(manifest: Mapping[str, Any]) -> list[list[str | Cell]]:
    """The settings that matter: name, value and meaning."""
    settings = manifest.get("settings") or {}
    return [
        [name, Cell(value_text(settings[name]), is_code=True), what]
        for name, what in _SETTINGS.items()
        if name in settings
    ]


def auxiliary_start(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """When the auxiliary losses begin to count: ``kind`` (unknown, never, first or later) and ``step``."""
    schedule = manifest.get("schedule") or {}
    begins = schedule.get("auxiliary_from")
    if begins is None:
        return {"kind": "unknown", "step": None}
    kind = "never" if begins >= schedule.get("steps", begins + 1) else "later" if begins else "first"
    return {"kind": kind, "step": begins}


def chance_of_head(manifest: Mapping[str, Any]) -> float | None:
    """The head's loss of a guess from the held-out classes' shares, nats; None where there are not two classes."""
    counts = (manifest.get("data_report") or {}).get("held_out") or {}
    harmful, benign = (counts.get(name) or 0 for name in ("harmful", "benign"))
    if not harmful or not benign:
        return None
    shares = [n / (harmful + benign) for n in (harmful, benign)]
    return -sum(share * math.log(share) for share in shares)


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
        f"{settings[name]:g} × {small_initial(TERMS[term].title)}"
        for term, name in WEIGHTS.items()
        if settings.get(name)
    ]
    begins = schedule.get("auxiliary_from")
    late = f", from step {begins + 1:,} on" if weighed and begins else ""
    return " + ".join(["language modelling", *weighed]) + late


def count(value: object) -> str:
    """A number of ``run.json``; what it lacks is unknown."""
    return f"{value:,}" if isinstance(value, int) else "unknown" if value is None else str(value)
