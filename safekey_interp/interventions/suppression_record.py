"""Record of sentence suppression."""

from __future__ import annotations

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention, Option

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
            several=True,
            is_span=True,
            is_optional=True,
        ),
        Option(
            "targets",
            "Spans whose prediction is compared, in place of each later sentence.",
            flag="--query",
            several=True,
            is_span=True,
            is_optional=True,
        ),
    ),
    measure="safekey_interp.interventions.sentence_suppression:suppress",
    summarise="safekey_interp.interventions.sentence_suppression:summarise_suppression",
    lines="target_part",
    columns={
        "source_part": Column(label="Hidden", words=parts.PARTS, is_open=True),
        "target_part": Column(label="Predicted", words=parts.PARTS, is_open=True),
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
    title="When a sentence of {model}’s reasoning is hidden",
    value="KL",
    place=lambda row: f"{parts.PARTS.get(row['source_part'], row['source_part'])} hidden",
)
