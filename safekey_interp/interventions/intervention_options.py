"""Complete options of an intervention, and what ``run.json`` records of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.errors import InputError
from safekey_interp.interventions.intervention_parts import FITTING, STAGED
from safekey_interp.interventions.intervention_record import Intervention, load_function
from safekey_interp.interventions.jacobian_transport import JacobianTransport, read_jacobian_lens
from safekey_interp.interventions.metric_kinds import Metric
from safekey_interp.interventions.metric_registry import parse_metrics
from safekey_interp.interventions.option_record import Option
from safekey_interp.measures.control_directions import Controls
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_OF_EVERY_RUN = {"model", "traces", "others", "judge", "seed", "finder", "delimiters", "max_length", "on_trace"}
_OF_A_STAGE = {"only", "estimate"}
_FITTING: dict[str, Any] = {option.name: option.default for option in FITTING if option.name != "keep_directions"}
_LAYERS = ("layers", "fit_layers")


def complete_options(intervention: Intervention, model: Model, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an intervention: those that were given, the others as its function has them.

    Args:
        intervention: its record.
        model: numbers the layers.
        given: some of its options. Where it fits directions and gets none, also those of cross-fitting
            (``fit_layers``, ``fit_position``, ``label_by``, ``n_folds``).

    Raises:
        InputError: it has no such option, or layers that the model does not have.
    """
    known = {
        option: None if parameter.default is inspect.Parameter.empty else parameter.default
        for option, parameter in inspect.signature(load_function(intervention.measure)).parameters.items()
        if option not in _OF_EVERY_RUN | _OF_A_STAGE and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    if intervention.stages is not None:
        known |= {option.name: option.default for option in STAGED}
    fits = intervention.fits
    is_given = bool(fits) and given.get(fits) is not None
    if fits and not is_given:
        known |= _FITTING
    for option in given:
        if option in _FITTING and option not in known and (is_given or given.get("metric") is not None):
            beside = fits if is_given else "a metric"
            raise InputError(f"{option}: got it beside {beside}, of which nothing is fitted; leave it out")
        if option not in known:
            expected = ", ".join(sorted(known))
            raise InputError(f"{option}: no option of {intervention.name}, expected some of {expected}")
    options = known | dict(given)
    unsaid = {option.name for option in intervention.options if option.is_optional and options.get(option.name) is None}
    options = {name: value for name, value in options.items() if name not in unsaid}
    if (metric := options.get("metric")) is not None:
        options["metric"] = parse_metrics(metric)
    if (jacobian := options.get("jacobian")) is not None:
        options["jacobian"] = read_jacobian_lens(jacobian)
    for option in _LAYERS:
        if option in options:
            options[option] = model.layer_numbers(options[option])
    if intervention.fit_depth is not None and options.get("fit_layers", ()) is None:
        options["fit_layers"] = (round((model.n_layers - 1) * intervention.fit_depth),)
    return options


def span_expressions(intervention: Intervention, options: Mapping[str, Any]) -> list[str]:
    """Every span expression among complete options: spans, positions, and where metrics are read."""
    found: list[str] = []
    for option in intervention.options:
        value = options.get(option.name)
        if option.is_span and value is not None and not _is_named(option, value):
            found += [value] if isinstance(value, str) else list(value)
    return [*found, *(metric.at for metric in options.get("metric") or ())]


def _is_named(option: Option, value: Any) -> bool:
    """Whether a value is one of an option's own words, which need be no expression (``reasoning_end``)."""
    return isinstance(value, str) and value in option.choices


def split_options(intervention: Intervention, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the function itself, and those of cross-fitting where it fits directions."""
    fitting = {name: value for name, value in options.items() if intervention.fits and name in _FITTING}
    return {name: value for name, value in options.items() if name not in fitting}, fitting


def recorded(value: Any) -> Any:
    """Options as ``run.json`` has them; of directions and probes, where they read and a hash."""
    if isinstance(value, Metric | JacobianTransport):
        return recorded(value.record)
    if isinstance(value, Direction | Probe):
        place = {"layer": value.layer, "site": value.site, "position": value.position}
        return {"kind": type(value).__name__.lower()} | place | {"sha256": _hash(value)}
    if isinstance(value, list | tuple):
        return [recorded(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return {name: recorded(part) for name, part in value.items()} if isinstance(value, Mapping) else value


def _hash(record: Direction | Probe) -> str:
    digest = hashlib.sha256()
    # What the classes are called changes nothing, and records of earlier versions do not say it.
    for value in (getattr(record, field.name) for field in fields(record) if field.name != "classes"):
        if isinstance(value, Controls):
            digest.update(b"".join(array.tobytes() for array in value.arrays().values()))
            continue
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()
