"""Record of sentence suppression."""

from __future__ import annotations

from dataclasses import replace

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention
from safekey_interp.interventions.option_record import Option

_SPANS = ("prompt", "understanding", "key_sentence")
"""Usual spans to hide and to compare."""
INTERVENTION = Intervention(
    name="suppress",
    help="Hide each sentence of the reasoning from all later ones, beside as many random keys.",
    options=(
        Option("most", "First sentences of the reasoning that are taken.", int, 12, least=2),
        Option("n_random", "Random sets of keys for each sentence.", int, 5, least=0),
        Option(
            "hidden",
            "Spans to hide, one at a time, in place of each sentence.",
            flag="--key",
            choices=_SPANS,
            several=True,
            is_span=True,
            is_optional=True,
        ),
        Option(
            "targets",
            "Spans whose prediction is compared, in place of each later sentence.",
            flag="--query",
            choices=_SPANS,
            several=True,
            is_span=True,
            is_optional=True,
        ),
        parts.metric_option("how far each later sentence's prediction moves"),
        replace(parts.KEY_SENTENCES, is_optional=True),
    ),
    measure="safekey_interp.interventions.sentence_suppression:suppress",
    summarise="safekey_interp.interventions.sentence_suppression:summarise_suppression",
    lines="target_part",
    columns={
        "source_part": Column(label="Hidden", words=parts.PARTS, is_open=True, plain=parts.PLAIN_PARTS),
        "target_part": Column(label="Predicted", words=parts.PARTS, is_open=True, plain=parts.PLAIN_PARTS),
    },
    changed=lambda settings, _: (
        f"Hidden from all later tokens, one at a time: {', '.join(settings['hidden'])}."
        if settings.get("hidden")
        else f"Each of the first {settings['most']} sentences of the reasoning hidden from all later tokens."
    ),
    effect="With {place}, the prediction of {line} moves by",
    reading="How far the prediction of a later sentence moves when an earlier one is hidden; 0 is not at all.",
    figures=(
        Figure(
            "effect-parts",
            "From each part to each later one",
            "points",
            ("source_part", "target_part"),
            label="hidden → predicted",
        ),
    ),
    controls={"random_keys": Control("as many random keys", "{n_random} draws")},
    with_metric={
        "lines": "source_part",
        "effect": "Hiding {line} moves {metric} by",
        "reading": "Below 0, the span made what is read out likelier: when it is hidden from all later tokens, that is "
        "less likely.",
        "figures": (Figure("effect-parts", "By what is hidden", "points", ("source_part",), label="hidden"),),
        "place": lambda _: "all layers",
        "plain_place": None,
        "metrics": parts.SENTENCE_METRICS,
        "value": "effect",
    },
    title="When a sentence of {model}’s reasoning is hidden",
    value="KL",
    place=lambda row: f"{parts.listed(row['source_part'], parts.PARTS)} hidden",
    plain_place=lambda row: f"{parts.listed(row['source_part'], parts.PLAIN_PARTS)} hidden",
)
