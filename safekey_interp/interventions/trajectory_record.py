"""Record of a trajectory of scores, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Intervention
from safekey_interp.interventions.option_record import Option

ALIGNED_AT = {"key_sentence": "K’s first token", "reasoning_end": "the end of the reasoning"}
"""Where offset 0 lies, in words."""


def aligned_at(align: str) -> str:
    """An alignment in words."""
    return ALIGNED_AT.get(align, f"the first token of {align}")


def _read_out(settings: Mapping[str, Any], _: Any) -> str:
    names = [name if isinstance(name, str) else name[0] for name in settings["metric"]]
    return (
        f"Nothing was changed: {', '.join(names)} was read at every token, and the numbers of all traces were aligned "
        f"at {aligned_at(settings['align'])}."
    )


INTERVENTION = Intervention(
    name="trajectory",
    help="Score every token's state with a direction or a probe, beside controls; fitted on held-out requests.",
    options=(
        Option("align", "Where offset 0 lies.", default="key_sentence", choices=ALIGNED_AT, is_span=True),
        Option("readers", "File of a direction; none is fitted.", flag="--direction", reads="direction", several=True),
        Option("readers", "File of a probe; none is fitted.", flag="--probe", reads="probe", several=True),
        replace(
            parts.METRIC,
            help='What is read at every token in their place: probe(FILE), logit_difference("a", "b"), logprob("text") '
            "(as what follows the token) or aha. Default: the score of directions that are fitted here.",
        ),
        replace(parts.KEY_SENTENCES, is_optional=True),
        *parts.FITTING,
        *parts.DIRECTION_OPTIONS,
    ),
    measure="safekey_interp.interventions.metric_trajectory:measure_trajectory",
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
    with_metric={
        "fits": "",
        "changed": _read_out,
        "reading": "What is read out at every token: of two tokens, as the next one behind it; of a text, as what "
        "follows in place of what the trace has there; of a probe, its score of the token’s state.",
    },
    title="What {model} knows, token by token",
)
