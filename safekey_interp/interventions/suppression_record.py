"""Record of sentence suppression."""

from __future__ import annotations

from safekey_interp.interventions.intervention_parts import PARTS
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention, Option

INTERVENTION = Intervention(
    name="suppress",
    help="Hide each sentence of the reasoning from all later ones, beside as many random keys.",
    measure="safekey_interp.interventions.sentence_suppression:suppress",
    summarise="safekey_interp.interventions.sentence_suppression:summarise_suppression",
    options=(
        Option(name="most", type=int, default=12, least=2, help="First sentences of the reasoning that are taken."),
        Option(name="n_random", type=int, default=5, least=0, help="Random sets of keys for each sentence."),
    ),
    title="When a sentence of {model}’s reasoning is hidden",
    changed=lambda settings, _: (
        f"Each of the first {settings['most']} sentences of the reasoning hidden from all later tokens."
    ),
    effect="With {place}, the prediction of {line} moves by",
    reading="How far the prediction of a later sentence moves when an earlier one is hidden; 0 is not at all.",
    value="KL",
    lines="target_part",
    place=lambda row, _: f"{PARTS.get(row['source_part'], row['source_part'])} hidden",
    columns={
        "source_part": Column(label="Hidden", words=PARTS),
        "target_part": Column(label="Predicted", words=PARTS),
    },
    controls={"random_keys": Control("as many random keys", "{n_random} draws")},
    figures=(
        Figure(
            "effect-parts",
            "From each part to each later one",
            "points",
            ("source_part", "target_part"),
            label="hidden → predicted",
        ),
    ),
)
