"""Which interventions make a run, with which options, and what sums up their tables?

Each is a function that takes a model and traces and returns a tidy table with its control in it; its options are the
function's own, and so are their defaults.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from safekey_interp.errors import InputError
from safekey_interp.interventions.activation_patching import patch, summarise_patching
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.knockout_summary import summarise_knockout
from safekey_interp.interventions.logit_lens_scores import logit_lens, summarise_lens
from safekey_interp.interventions.sentence_suppression import summarise_suppression, suppress
from safekey_interp.interventions.steering import steer, summarise_steering
from safekey_interp.measures.control_directions import Controls
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.trajectory import measure_trajectory, summarise_trajectory

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

Name = Literal["knockout", "patch", "direction", "suppress", "lens", "trajectory"]
"""What an intervention is called."""
_OF_EVERY_RUN = {"model", "traces", "others", "seed", "finder", "delimiters", "max_length", "on_trace"}
_FITTING: dict[str, Any] = {"fit_layers": None, "fit_position": "decision", "label_by": "label", "n_folds": 5}
_LAYERS = ("layers", "fit_layers")


class Kind(NamedTuple):
    """One intervention."""

    measure: Callable[..., pd.DataFrame]
    """Model, traces and options to a tidy table."""
    summarise: Callable[..., pd.DataFrame]
    """That table to means with intervals."""
    reads: str = ""
    """The option that holds directions or probes; without it, directions are fitted on held-out requests."""


KINDS: dict[Name, Kind] = {
    "knockout": Kind(knockout, summarise_knockout),
    "patch": Kind(patch, summarise_patching),
    "direction": Kind(steer, summarise_steering, reads="directions"),
    "suppress": Kind(suppress, summarise_suppression),
    "lens": Kind(logit_lens, summarise_lens),
    "trajectory": Kind(measure_trajectory, summarise_trajectory, reads="readers"),
}


def complete_options(name: Name, model: Model, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an intervention: those that were given, the others as its function has them.

    Args:
        name: the intervention.
        model: numbers the layers.
        given: some of its options. Where it reads directions or probes and gets none, ``fit_layers``, ``fit_position``,
            ``label_by`` and ``n_folds`` say how directions are fitted; of a trajectory at one layer, two thirds up,
            unless said otherwise.

    Raises:
        InputError: it has no such option, or layers that the model does not have.
    """
    kind = KINDS[name]
    known = {
        option: None if parameter.default is inspect.Parameter.empty else parameter.default
        for option, parameter in inspect.signature(kind.measure).parameters.items()
        if option not in _OF_EVERY_RUN
    }
    has_readers = bool(kind.reads) and given.get(kind.reads) is not None
    if kind.reads and not has_readers:
        known |= _FITTING
    for option in given:
        if option in _FITTING and has_readers:
            raise InputError(f"{option}: got it beside {kind.reads}, of which nothing is fitted; leave it out")
        if option not in known:
            raise InputError(f"{option}: no option of {name}, expected some of {', '.join(sorted(known))}")
    options = known | dict(given)
    for option in _LAYERS:
        if option in options:
            options[option] = model.layer_numbers(options[option])
    if name == "trajectory" and options.get("fit_layers", ()) is None:
        options["fit_layers"] = (round((model.n_layers - 1) * 2 / 3),)
    return options


def recorded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as ``run.json`` has them; of directions and probes, where they read and a hash."""
    return {name: _recorded(value) for name, value in options.items()}


def apart(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the function itself, and those of fitting."""
    own = {name: value for name, value in options.items() if name not in _FITTING}
    return own, {name: value for name, value in options.items() if name in _FITTING}


def _recorded(value: Any) -> Any:
    if isinstance(value, Direction | Probe):
        return {"kind": type(value).__name__.lower(), "layer": value.layer, "site": value.site} | {
            "position": value.position,
            "sha256": _hash(value),
        }
    if isinstance(value, list | tuple):
        return [_recorded(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _recorded(one) for name, one in asdict(value).items()}
    return value


def _hash(record: Direction | Probe) -> str:
    digest = hashlib.sha256()
    for value in (getattr(record, field.name) for field in fields(record)):
        if isinstance(value, Controls):
            digest.update(b"".join(array.tobytes() for array in value.arrays().values()))
            continue
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()
