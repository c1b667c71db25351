"""Record of activation patching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention, Stages
from safekey_interp.interventions.option_record import Option

COMPONENTS = ("resid_pre", "head", "attn_out", "resid_mid", "mlp_out", "resid_post", "ln_final")
"""Components by TransformerLens's names; single heads are head.0, head.1 …"""
OTHER_OUTCOME = {"refused": "complied", "complied": "refused"}
"""Outcome of the targets, by that of the sources."""


SOURCE = Option(
    "source",
    "Outcome of the traces that give their states, or their value of the column.",
    default="refused",
    choices=OTHER_OUTCOME,
    is_open=True,
)


def _at_one(settings: Mapping[str, Any]) -> str:
    components = settings.get("components")
    if components is None:
        return "at one layer and one position"
    return f"of one component ({', '.join(components)}), at one layer and one position"


def of_pair(settings: Mapping[str, Any]) -> tuple[str, str]:
    """What the source and the target of a pair are, in words."""
    source, label_by = settings["source"], settings.get("label_by")
    of = f"{source} trace" if label_by is None else f"trace whose {label_by} is {source}"
    return of, f"{OTHER_OUTCOME[source]} trace" if label_by is None else "trace of the other value"


def _changed(settings: Mapping[str, Any], _: Any) -> str:
    of, target = of_pair(settings)
    words = parts.POSITIONS if INTERVENTION.is_built_in(settings) else {}
    return (
        f"Hidden states of a {of} put into the run of a {target} of the same request, "
        f"{_at_one(settings)} at a time: {parts.listed(settings['positions'], words)}."
    )


INTERVENTION = Intervention(
    name="patch",
    help="Put states of a refused run into a complied one of the same request, beside another request's.",
    options=(
        SOURCE,
        parts.PAIRED_BY,
        parts.LAYERS,
        Option(
            "positions",
            "Positions whose states are put in.",
            default=("prompt_end", "template", "understanding", "decision"),
            flag="--position",
            choices=parts.POSITIONS,
            several=True,
            is_span=True,
        ),
        Option(
            "components",
            f"What is put in, one at a time: {', '.join(COMPONENTS)}; head is every head by itself, head.3 one. "
            "Default: resid_post.",
            flag="--component",
            several=True,
            is_optional=True,
        ),
        parts.METRIC,
        Option(
            "method",
            "exact (a pass a swap), attribution, or both.",
            default="both",
            choices=("exact", "attribution", "both"),
        ),
        parts.KEY_SENTENCES,
        parts.N_DONORS,
        *parts.STAGED,
    ),
    measure="safekey_interp.interventions.activation_patching:patch",
    summarise="safekey_interp.interventions.activation_patching:summarise_patching",
    prepare="safekey_interp.interventions.paired_patching:prepare_pairs",
    adapt="safekey_interp.interventions.trace_pairs:adapted_source",
    stages=Stages(
        places=("layer", "component", "position"),
        n_places="safekey_interp.interventions.activation_patching:n_places",
        n_variants=lambda options: 1 + options["n_random"],
        estimate={"method": "attribution"},
        exact={"method": "exact"},
        without_controls={"n_random": 0},
    ),
    grows_with=("layers", "--layers"),
    cheaper=(("--method attribution", {"method": "attribution"}),),
    lines="position",
    columns={
        "position": Column(label="States at (second plot)", words=parts.POSITIONS, first="decision", is_open=True),
        "component": Column(label="Component", words={name: name for name in COMPONENTS}, is_open=True),
        "measure": Column(label="Effects", words={"effect": "exact", "attribution": "attribution, first order"}),
    },
    changed=_changed,
    effect="States at {line} move {metric} by",
    reading="Above 0, the foreign states make what is read out likelier. If they carry the refusal, that is safe key "
    "sentences.",
    plain_reading="Above 0, the foreign states make what is read out likelier.",
    figures=(
        Figure("effect-map", "All positions", "map", ("position",), ("measure", "component")),
        Figure(
            "effect-layers",
            "One position beside its control",
            "lines",
            ("layer",),
            ("measure", "component", "position"),
        ),
    ),
    controls={"other_request": Control("another request’s states", "{n_random} a pair")},
    title="When a run of {model} borrows another’s states",
    metrics=parts.SENTENCE_METRICS,
)
