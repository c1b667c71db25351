"""Grid of layers and components: the places that are asked for by name, and that a model has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from safekey_interp.capture.layer_parts import parts_for, why_absent
from safekey_interp.capture.places import HeadValues, Place, check_site, layers_of
from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class ComponentGrid(NamedTuple):
    """Layers by components."""

    layers: tuple[int, ...]
    """Numbers of the layers; that of ``ln_final`` is the number of layers."""
    components: tuple[str, ...]
    """Names, heads one by one."""
    places: tuple[Place, ...]
    """Those that the model has, layer by layer."""


def component_grid(
    model: Model, layers: Sequence[int] | None, components: Sequence[str], head: HeadValues = "z"
) -> ComponentGrid:
    """The places of some components in some layers.

    Args:
        model: the model.
        layers: layers, negative ones counted from the last; all when None. ``ln_final`` is there whatever they are.
        components: names of :mod:`~safekey_interp.capture.places`; ``head`` is every head by itself.
        head: what is read of heads.

    Raises:
        InputError: an unknown layer or component, a text in place of a list, or a component that the model lacks in
            all of the layers.
    """
    if isinstance(components, str) or not components:
        raise InputError(f"components: got {components!r}, expected a list such as ['resid_post', 'attn_out']")
    for component in components:
        check_site(component, model.n_heads, "components")
    numbers = model.layer_numbers(layers) or tuple(range(model.n_layers))
    every_head = [f"head.{number}" for number in range(model.n_heads)]
    named = (every_head if component == "head" else [component] for component in components)
    sites = tuple(dict.fromkeys(chain.from_iterable(named)))
    axis = (*(numbers if set(sites) != {"ln_final"} else ()), *((model.n_layers,) if "ln_final" in sites else ()))
    possible = (Place(layer, site) for layer in axis for site in sites)
    places = tuple(place for place in possible if place.layer in layers_of(place.component, model.n_layers))
    parts = parts_for(model.hf, places)
    absent = {place: why_absent(parts, place, head) for place in places}
    for site in sites:
        reasons = [why for place, why in absent.items() if place.site == site]
        if all(reasons):
            raise InputError(f"components: {site}: {reasons[0]}")
    return ComponentGrid(axis, sites, tuple(place for place, why in absent.items() if why is None))
