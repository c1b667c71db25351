"""Record of a trajectory of scores, token by token."""

from __future__ import annotations

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Intervention, Option

ALIGNED_AT = {"key_sentence": "K’s first token", "reasoning_end": "the end of the reasoning"}
"""Where offset 0 lies, in words."""


def aligned_at(align: str) -> str:
    """An alignment in words."""
    return ALIGNED_AT.get(align, f"the first token of {align}")


INTERVENTION = Intervention(
    name="trajectory",
    help="Score every token's state with a direction or a probe, beside controls; fitted on held-out requests.",
    options=(
        Option("align", "Where offset 0 lies.", default="key_sentence", choices=ALIGNED_AT, is_span=True),
        Option("readers", "File of a direction; none is fitted.", flag="--direction", reads="direction", several=True),
        Option("readers", "File of a probe; none is fitted.", flag="--probe", reads="probe", several=True),
        *parts.FITTING,
        *parts.DIRECTION_OPTIONS,
    ),
    measure="safekey_interp.measures.trajectory:measure_trajectory",
    summarise="safekey_interp.measures.trajectory:summarise_trajectory",
    fits="readers",
    fit_depth=2 / 3,
    form="scores",
    changed=lambda settings, _: (
        "Nothing was changed: every token’s state was scored, and the scores of all traces were aligned at "
        f"{aligned_at(settings['align'])}."
    ),
    reading="What a probe or a direction reads from every token’s state, on requests that it was not fitted on unless "
    "it was given. A score outside the grey band is more than the length of a state.",
    controls=parts.DIRECTION_CONTROLS,
    title="What {model} knows, token by token",
)
