"""Record of activation patching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.interventions.intervention_parts import KEY_SENTENCES, LAYERS, POSITIONS, SENTENCE_METRICS, listed
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention, Option

OTHER_OUTCOME = {"refused": "complied", "complied": "refused"}
"""Outcome of the targets, by that of the sources."""


def _changed(settings: Mapping[str, Any], _: Any) -> str:
    source = settings["source"]
    return (
        f"Hidden states of a {source} trace put into the run of a {OTHER_OUTCOME[source]} trace of the same request, "
        f"at one layer and one position at a time: {listed(settings['positions'], POSITIONS)}."
    )


INTERVENTION = Intervention(
    name="patch",
    help="Put states of a refused run into a complied one of the same request, beside another request's.",
    measure="safekey_interp.interventions.activation_patching:patch",
    summarise="safekey_interp.interventions.activation_patching:summarise_patching",
    prepare="safekey_interp.interventions.activation_patching:prepare_pairs",
    options=(
        Option(
            name="source",
            default="refused",
            choices=tuple(OTHER_OUTCOME),
            help="Outcome of the traces whose states are put into the others.",
        ),
        LAYERS,
        Option(
            name="positions",
            flag="--position",
            default=("prompt_end", "template", "understanding", "decision"),
            choices=tuple(POSITIONS),
            several=True,
            help="Positions whose states are put in.",
        ),
        Option(
            name="method",
            default="both",
            choices=("exact", "attribution", "both"),
            help="exact (a forward pass a swap), attribution (first order), or both.",
        ),
        KEY_SENTENCES,
        Option(name="n_random", type=int, default=1, least=0, help="Other requests' traces as controls of each pair."),
    ),
    title="When a run of {model} borrows another’s states",
    changed=_changed,
    effect="States at {line} move {metric} by",
    reading="Above 0, the foreign states make what is read out likelier. If they carry the refusal, that is safe key "
    "sentences.",
    metrics=SENTENCE_METRICS,
    lines="position",
    columns={
        "position": Column(label="States at (second plot)", words=POSITIONS, first="decision"),
        "measure": Column(label="Effects", words={"effect": "exact", "attribution": "attribution, first order"}),
    },
    controls={"other_request": Control("another request’s states", "{n_random} a pair")},
    figures=(
        Figure("effect-map", "All positions", "map", ("position",), ("measure",)),
        Figure("effect-layers", "One position beside its control", "lines", ("layer",), ("measure", "position")),
    ),
)
