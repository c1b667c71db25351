"""Record of responses under a direction: ``intervene direction --generate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Figure, Intervention
from safekey_interp.interventions.option_record import Option
from safekey_interp.interventions.steering_record import SHARED, changed_in_words, scale_in_words, scales_option

METRICS = ("refused", "complied", "malformed")
"""What is counted of the answers."""


def _changed(settings: Mapping[str, Any], effects: Any) -> str:
    judge = (settings.get("judge") or {}).get("judge", "a judge")
    return f"{changed_in_words(settings, effects)} The model then answered every prompt anew, read by {judge}."


INTERVENTION = Intervention(
    name="direction_responses",
    help="Write responses under a direction, beside controls: refusal and over-refusal by scale.",
    options=(
        Option("mode", "add or ablate (remove it everywhere).", default="add", choices=("ablate", "add")),
        scales_option((0.0, 0.25, 0.5, 1.0)),
        *SHARED,
        *parts.DIRECTION_OPTIONS,
        Option("max_new_tokens", "Most tokens of a response. Default: 512, or half of what fits.", int, least=1),
        Option("temperature", "0 for the likeliest token each time.", float, 0.0),
        Option("top_p", "Draw from the likeliest tokens of this much probability.", float, 1.0),
        Option("batch_size", "Responses decoded at once.", int, 64, least=1),
    ),
    measure="safekey_interp.interventions.response_steering:steer_responses",
    summarise="safekey_interp.interventions.response_steering:summarise_responses",
    cost="safekey_interp.interventions.response_steering:cost_in_words",
    is_judged=True,
    fits="directions",
    fit_depth=2 / 3,
    form="shares",
    lines="scale",
    columns={
        "scale": Column(label="Scale", words=scale_in_words),
        "direction": Column(label="Direction", words="number {}".format),
        "condition": Column(label="Prompts", words=lambda name: "all sources" if name == "all" else str(name)),
    },
    changed=_changed,
    reading=(
        "Shares of prompts whose answer refuses, complies or is malformed (no answer that the judge can read). A "
        "direction that wakes a dormant signal has harmful prompts refused, benign ones answered, and no answer broken."
    ),
    plain_reading="Shares of prompts whose answer refuses, complies or is malformed (no answer that the judge can "
    "read).",
    figures=(
        Figure("share-scales", "By scale", "lines", ("scale",), ("condition", "direction")),
        Figure("share-layers", "By the direction’s layer", "lines", ("layer",), ("scale", "condition")),
        Figure("share-conditions", "By kind of prompt", "points", ("condition",), ("scale", "direction")),
    ),
    controls=parts.DIRECTION_CONTROLS,
    title="What {model} answers under a direction",
    metrics=METRICS,
    value="share",
    unit="of prompts",
    place=lambda row: (
        f"{'final norm' if row['site'] == 'ln_final' else 'layer ' + str(int(row['layer']))}"
        + ("" if row["condition"] == "all" else f", {row['condition']}")
    ),
    shared_draws=True,
)
