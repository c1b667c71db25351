"""Record of attention knockout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention
from safekey_interp.interventions.option_record import Option

FROM = {
    "key_sentence": "K’s own tokens",
    "decision": "the token before K",
    "decision+key_sentence": "K’s own tokens and the one before them",
}
"""Queries in words."""
SPANS = {
    "prompt": "the prompt (X)",
    "understanding": "the understanding (U)",
    "template": "the template",
    "first_token": "the first token",
}
"""Spans that can be hidden, in words."""
BY = {"together": "in all chosen layers at once", "layer": "layer by layer", "head": "head by head"}
"""What is knocked out at once, in words."""
_RESAMPLED = "the same span of another request of the {} label in its place"
CONTROLS = {
    "outside_spans": Control(
        "as many random keys outside X, U and what is hidden",
        "{n_random} draws",
        "as many random keys outside every tested span",
    ),
    "dose": Control("random quarters of the span", "{n_dose} draws of each share"),
    "resample_same_label": Control(_RESAMPLED.format("same"), "{n_donors} donors"),
    "resample_other_label": Control(_RESAMPLED.format("other"), "{n_donors} donors"),
}
"""Kinds of control, the default first."""


def _changed(settings: Mapping[str, Any], _: Any) -> str:
    queries, spans = (FROM, SPANS) if INTERVENTION.is_built_in(settings) else ({}, {})
    hidden = parts.listed(settings["to_span"], spans)
    return f"Hidden from {parts.listed(settings['from_span'], queries)}, {BY[settings['by']]}: {hidden}."


INTERVENTION = Intervention(
    name="knockout",
    help="Hide a span from K, all of it and by quarters, and put another request's in its place; beside random keys.",
    options=(
        Option(
            "from_span",
            "Queries from which a span is hidden.",
            default="key_sentence",
            choices=FROM,
            is_span=True,
            aliases=("--query",),
        ),
        Option(
            "to_span",
            "Spans to hide, one at a time.",
            default=("prompt", "understanding"),
            choices=SPANS,
            several=True,
            is_span=True,
            aliases=("--key",),
        ),
        parts.METRIC,
        parts.LAYERS,
        Option("heads", "Heads, such as 0-3,7. Default: all.", reads="layers"),
        Option("by", "All layers together, or one layer or head at a time.", default="together", choices=BY),
        Option("window", "Consecutive layers in which a span is hidden.", int, 1, least=1, needs=("by", "layer")),
        Option("aha", "Measure the trace's own K alone, which is far faster.", bool, True, flag="--no-aha"),
        parts.KEY_SENTENCES,
        Option(
            "controls",
            "outside_spans (as many random keys outside every tested span), dose (random quarters of the span), "
            "resample_same_label, resample_other_label (another request's span in its place). Default: all that the "
            "model allows.",
            flag="--control",
            choices=CONTROLS,
            several=True,
        ),
        Option("n_random", "Random sets of keys outside the spans.", int, 20, least=1),
        Option("n_dose", "Random parts of the span, of each share.", int, 2, least=1),
        Option("n_donors", "Other requests of each label whose span is put in its place.", int, 2, least=1),
    ),
    measure="safekey_interp.interventions.attention_knockout:knockout",
    summarise="safekey_interp.interventions.knockout_summary:summarise_knockout",
    prepare="safekey_interp.interventions.attention_knockout:prepare_knockout",
    grows_with=("layers", "--layers"),
    cheaper=(
        ("--by together", {"by": "together", "window": 1}),
        ("--n-random 5", {"n_random": 5}),
        ("--no-aha", {"aha": False}),
    ),
    lines="to_span",
    columns={
        "to_span": Column(
            label="Hidden",
            words=SPANS,
            is_open=True,
            short={"prompt": "X", "understanding": "U", "template": "template", "first_token": "first token"},
        ),
        "head": Column(label="Head", words="head {}".format),
    },
    changed=_changed,
    effect="Hiding {line} moves {metric} by",
    reading="Below 0, the span made what is read out likelier: when it is hidden, that is less likely.",
    figures=(
        Figure("effect-spans", "By what is hidden", "points", ("to_span",), ("control_kind",), label="hidden"),
        Figure("effect-doses", "By the share that is hidden", "lines", ("dose",), ("to_span",), has_control=False),
        Figure("effect-layers", "By layer", "lines", ("layer",), ("control_kind", "to_span")),
        Figure("effect-heads", "By layer and head", "map", ("head",), ("control_kind", "to_span")),
    ),
    controls=CONTROLS,
    title="When {model} may not look at a span",
    metrics=parts.SENTENCE_METRICS,
)
