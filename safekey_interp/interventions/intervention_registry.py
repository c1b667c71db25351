"""Registry of interventions by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from safekey_interp.errors import InputError
from safekey_interp.interventions.intervention_record import Intervention

Name = str
"""What an intervention is called."""
_BUILT_IN = {
    "knockout": "knockout_record",
    "patch": "patching_record",
    "paths": "path_record",
    "edges": "edge_record",
    "direction": "steering_record",
    "suppress": "suppression_record",
    "lens": "lens_record",
    "trajectory": "trajectory_record",
}
"""The module of each, in which ``INTERVENTION`` is its record."""
_VARIANTS = {"direction_responses": "response_steering_record"}
"""The same of those that an option of another asks for."""
_REGISTERED: dict[str, Intervention] = {}


def register_intervention(intervention: Intervention) -> None:
    """Make an intervention available by its name; a built-in or earlier one of that name is replaced.

    From then on ``run_intervention`` takes it, ``safekey-interp intervene`` of this process has its command, and
    ``write_report`` draws its page.

    Args:
        intervention: its record.

    Raises:
        InputError: it is no record, or has no name.
    """
    if not isinstance(intervention, Intervention) or not intervention.name:
        raise InputError(f"register_intervention: got {intervention!r}, expected an Intervention with a name")
    _REGISTERED[intervention.name] = intervention


def intervention_names() -> tuple[str, ...]:
    """Every name that ``run_intervention`` takes."""
    return tuple(dict.fromkeys((*_BUILT_IN, *_REGISTERED)))


def find_intervention(name: str) -> Intervention:
    """The record of an intervention.

    Raises:
        InputError: there is none of that name.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    module = (_BUILT_IN | _VARIANTS).get(name)
    if module is None:
        raise InputError(f"kind: got {name!r}, expected one of {', '.join(intervention_names())}")
    return import_module(f"safekey_interp.interventions.{module}").INTERVENTION


def choose_variant(intervention: Intervention, options: Mapping[str, Any]) -> tuple[Intervention, dict[str, Any]]:
    """The intervention that takes this one's place where one of its flags is set, else itself, as it is where a metric
    is asked for; the other options."""
    others = {name: value for name, value in options.items() if name not in intervention.variants}
    chosen = [other for flag, other in intervention.variants.items() if options.get(flag)]
    return (find_intervention(chosen[0]) if chosen else intervention).reading_out(others), others
