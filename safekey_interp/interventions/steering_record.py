"""Record of steering with directions."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from safekey_interp.data.class_labels import HARM, OUTCOME, class_pair
from safekey_interp.interventions import intervention_parts as parts
from safekey_interp.interventions.intervention_record import Column, Figure, Intervention, Stages
from safekey_interp.interventions.option_record import Option

_WAYS = {"ablate": "ablated from", "add": "added to"}


def _classes(label_by: str, effects: Any) -> str:
    """The traces whose means were subtracted, in words."""
    if label_by == OUTCOME:
        return "traces whose K is unsafe and those whose K is safe"
    if label_by != "label":
        return f"the two values of {label_by}"
    pair = class_pair(effects["label"].dropna().unique(), label_by)
    return f"{pair.positive} and {pair.negative} {'prompts' if pair == HARM else 'traces'}"


def changed_in_words(settings: Mapping[str, Any], effects: Any) -> str:
    """What is changed, from the settings."""
    directions = "Given directions"
    if not settings.get("directions"):
        classes = _classes(settings["label_by"], effects)
        directions = (
            f"Directions between the mean states of {classes} (at “{settings['fit_position']}”, fitted on other "
            "requests than they were used on)"
        )
    return f"{directions} {_WAYS[settings['mode']]} the residual stream, one at a time."


def scale_in_words(value: float) -> str:
    """A scale as the name of a line."""
    return "ablated" if isnan(value) else f"added, scale {value:g}"


SHARED = (
    Option("directions", "File of a direction; none is fitted.", flag="--direction", reads="direction", several=True),
    *parts.FITTING,
    Option("layers", "After which layers. Default: everywhere; to add, its own.", flag="--at-layers", reads="layers"),
    Option(
        "positions",
        "At which positions it is changed. Default: all.",
        flag="--at",
        choices=parts.STATES_AT,
        several=True,
        is_span=True,
    ),
)
"""Options of a direction, where it is fitted and where it is changed."""


def scales_option(default: float | tuple[float, ...]) -> Option:
    """The scales at which a direction is added."""
    words = "In norms of the direction; below 0 away from the positive class."
    return Option("scales", words, float, default, flag="--scale", several=True, needs=("mode", "add"))


def _n_directions(model: Any, options: Mapping[str, Any]) -> int:
    """Directions that are given, or fitted: one a layer."""
    given = options.get("directions")
    if given is not None:
        return len(given) if isinstance(given, list | tuple) else 1
    return len(options.get("fit_layers") or range(model.n_layers))


def _n_scales(options: Mapping[str, Any]) -> int:
    scales = options["scales"]
    return len(scales) if options["mode"] == "add" and isinstance(scales, list | tuple) else 1


INTERVENTION = Intervention(
    name="direction",
    help="Ablate a direction from the residual stream or add it, beside controls; fitted on held-out requests.",
    options=(
        Option("mode", "ablate (remove it everywhere) or add.", default="ablate", choices=("ablate", "add")),
        scales_option(1.0),
        *SHARED,
        parts.METRIC,
        parts.KEY_SENTENCES,
        *parts.DIRECTION_OPTIONS,
        *parts.STAGED,
        Option(
            "generate",
            "Write responses under the direction (added at several scales, unless --mode ablate), and count refusals.",
            bool,
            False,
        ),
    ),
    measure="safekey_interp.interventions.steering:steer",
    summarise="safekey_interp.interventions.steering:summarise_steering",
    variants={"generate": "direction_responses"},
    fits="directions",
    stages=Stages(
        places=("direction",),
        n_places=_n_directions,
        n_variants=lambda options: _n_scales(options) * (1 + len(options["controls"]) * options["n_random"]),
        estimate={"estimate": True},
        exact={},
        without_controls={"n_random": 0},
    ),
    grows_with=("directions", "--layers"),
    cheaper=(("--n-random 5", {"n_random": 5}),),
    lines="scale",
    columns={
        "scale": Column(label="Direction", words=scale_in_words),
        "direction": Column(label="Of (second plot)", words="number {}".format),
        "stage": Column(label="Effects", words=parts.STAGES),
    },
    changed=changed_in_words,
    effect="A direction that is {line} moves {metric} by",
    reading="What the direction changes when it is ablated or added. Below 0, it makes what is read out less likely.",
    figures=(
        Figure("effect-layers", "By the direction’s layer", "lines", ("layer",), ("scale", "stage")),
        Figure("effect-scales", "By scale", "lines", ("scale",), ("direction", "stage")),
    ),
    controls=parts.DIRECTION_CONTROLS,
    title="When {model} loses a direction, or gains it",
    metrics=parts.SENTENCE_METRICS,
    shared_draws=True,
)
