"""Record of steering with directions."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from safekey_interp.interventions.intervention_parts import (
    DIRECTION_CONTROLS,
    DIRECTION_OPTIONS,
    FITTING,
    KEY_SENTENCES,
    SENTENCE_METRICS,
)
from safekey_interp.interventions.intervention_record import Column, Figure, Intervention, Option

_CLASSES = {"label": "harmful and benign prompts", "aha": "traces whose K is unsafe and those whose K is safe"}
_WAYS = {"ablate": "ablated from", "add": "added to"}


def _changed(settings: Mapping[str, Any], _: Any) -> str:
    directions = "Given directions"
    if not settings.get("directions"):
        directions = (
            f"Directions between the mean states of {_CLASSES[settings['label_by']]} (at “{settings['fit_position']}”, "
            "fitted on other requests than they were used on)"
        )
    return f"{directions} {_WAYS[settings['mode']]} the residual stream, one at a time."


def _scale(value: float) -> str:
    return "ablated" if isnan(value) else f"added, scale {value:g}"


INTERVENTION = Intervention(
    name="direction",
    help="Ablate a direction from the residual stream or add it, beside controls; fitted on held-out requests.",
    measure="safekey_interp.interventions.steering:steer",
    summarise="safekey_interp.interventions.steering:summarise_steering",
    fits="directions",
    options=(
        Option(name="mode", default="ablate", choices=("ablate", "add"), help="ablate (remove it everywhere) or add."),
        Option(
            name="scales",
            flag="--scale",
            type=float,
            default=1.0,
            several=True,
            needs=("mode", "add"),
            help="What is added, in norms of the direction; below 0 away from harmful.",
        ),
        Option(
            name="directions",
            flag="--direction",
            reads="direction",
            several=True,
            help="File of a direction; then none is fitted.",
        ),
        *FITTING,
        Option(
            name="layers",
            flag="--at-layers",
            reads="layers",
            help="After which layers it is changed. Default: everywhere; to add, its own.",
        ),
        Option(name="positions", flag="--at", several=True, help="At which positions it is changed. Default: all."),
        KEY_SENTENCES,
        *DIRECTION_OPTIONS,
    ),
    title="When {model} loses a direction, or gains it",
    changed=_changed,
    effect="A direction that is {line} moves {metric} by",
    reading="What the direction changes when it is ablated or added. Below 0, it makes what is read out less likely.",
    metrics=SENTENCE_METRICS,
    lines="scale",
    columns={
        "scale": Column(label="Direction", words=_scale),
        "direction": Column(label="Of (second plot)", words="number {}".format),
    },
    controls=DIRECTION_CONTROLS,
    shared_draws=True,
    figures=(
        Figure("effect-layers", "By the direction’s layer", "lines", ("layer",), ("scale",)),
        Figure("effect-scales", "By scale", "lines", ("scale",), ("direction",)),
    ),
)
