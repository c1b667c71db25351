"""Record of path patching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Control, Figure, Intervention
from safekey_interp.interventions.option_record import Option
from safekey_interp.interventions.patching_record import SOURCE, of_pair


def _changed(settings: Mapping[str, Any], _: Any) -> str:
    of, target = of_pair(settings)
    words = parts.POSITIONS if INTERVENTION.is_built_in(settings) else {}
    return (
        f"One head or MLP of a {target} acts as in a {of} of the same request, at one position at a time "
        f"({parts.listed(settings['positions'], words)}), through one path alone: everything between it and "
        f"{', '.join(settings['receivers'])} is as it was."
    )


def _writer(row: Any) -> str:
    return f"{row['sender']} at {row['position']}"


INTERVENTION = Intervention(
    name="paths",
    help="Put a head's or MLP's activations of a refused run into a complied one, through one path alone.",
    options=(
        Option(
            "senders",
            "Heads and MLPs that write, such as 0.head.1 or 2.mlp. Default: all.",
            flag="--sender",
            several=True,
        ),
        Option(
            "receivers",
            "What reads: inputs of heads, such as 3.head.2.q (or k, v), or logits.",
            default=("logits",),
            flag="--receiver",
            several=True,
        ),
        Option(
            "positions",
            "Positions where the sender acts as in the other run.",
            default=("decision",),
            flag="--position",
            choices=parts.POSITIONS,
            several=True,
            is_span=True,
        ),
        SOURCE,
        parts.PAIRED_BY,
        parts.METRIC,
        parts.KEY_SENTENCES,
        parts.N_DONORS,
    ),
    measure="safekey_interp.interventions.path_patching:patch_paths",
    summarise="safekey_interp.interventions.path_patching:summarise_paths",
    prepare="safekey_interp.interventions.path_patching:prepare_paths",
    adapt="safekey_interp.interventions.trace_pairs:adapted_source",
    cost="safekey_interp.interventions.path_patching:paths_cost",
    lines="receiver",
    place=_writer,
    columns={
        "receiver": Column(label="Read by", words=str),
        "position": Column(label="Position", words=parts.POSITIONS, is_open=True),
        "measure": Column(label="Effects", words={"effect": "effect", "share": "share of the gap"}),
        "head": Column(label="Sender", words=lambda head: "MLP" if head < 0 else f"head {head}"),
    },
    changed=_changed,
    effect="Paths to {line} move {metric} by",
    reading="Above 0, what the other run has there makes what is read out likelier, along this path alone.",
    figures=(Figure("effect-paths", "By sender", "map", ("head",), ("measure", "receiver", "position")),),
    controls={"other_request": Control("another request’s activations", "{n_random} a pair")},
    title="Paths through which heads and MLPs of {model} act",
    metrics=parts.SENTENCE_METRICS,
)
