"""Features of positions: means over tokens of what a map makes of each token's activations, inside the forward pass.

    feature f of position P = mean over the tokens t of P of map(x_t)_f

A sparse autoencoder's encoder is such a map (:mod:`safekey_interp.models.sparse_autoencoder`). A map is not linear, so
that it is applied to each token before the mean; only the tokens of the positions go through it, and no more than a few
megabytes of their features are in memory at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.layer_parts import parts_for, projection_weight, why_absent
from safekey_interp.capture.places import Place, check_site, layers_of
from safekey_interp.capture.position_means import PositionMeans
from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_AT_ONCE = 2**22
"""Numbers of features that are in memory at once, a token's beside the next."""


class FeatureMap(Protocol):
    """Features of the activations at one place."""

    @property
    def name(self) -> str:
        """In messages."""
        ...

    @property
    def layer(self) -> int:
        """The layer that it reads."""
        ...

    @property
    def site(self) -> str:
        """The component that it reads there; of ``head``, z of all heads side by side."""
        ...

    @property
    def d_in(self) -> int:
        """Width of the activations that it reads."""
        ...

    def encode(self, activations: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows feature"]:
        """Features of activations, on their device."""
        ...


class FeatureMeans:
    """Means of features over each position's tokens."""

    def __init__(self, means: PositionMeans, features: FeatureMap) -> None:
        self._means, self._features = means, features

    def __call__(self, activations: Float[Tensor, "batch pos *width"]) -> Float[Tensor, "batch position feature"]:
        """The means, float32; zeros where a trace lacks the position."""
        weights = self._means.weights_on(activations.device)
        flat = activations.flatten(2)
        n_features = self._features.encode(flat.new_zeros(1, flat.shape[-1])).shape[-1]
        means = weights.new_zeros(*weights.shape[:2], n_features)
        for row, weight in enumerate(weights):
            # Tokens of no position are left out: there are many, and padding may hold anything.
            for tokens in weight.any(dim=0).nonzero().flatten().split(max(1, _AT_ONCE // n_features)):
                means[row] += weight[:, tokens] @ self._features.encode(flat[row, tokens])
        return means


def check_features(model: Model, features: FeatureMap) -> None:
    """Raises InputError unless the model has the place that features are read at, in their width."""
    what = f"sae {features.name}"
    check_site(features.site, model.n_heads, what)
    place = Place(features.layer, features.site)
    if place.layer not in layers_of(place.component, model.n_layers):
        raise InputError(
            f"{what}: reads layer {place.layer}, and {model.name} has layers 0 to {model.n_layers - 1}; expected an "
            "SAE of this model"
        )
    parts = parts_for(model.hf, [place])
    why = why_absent(parts, place)
    if why is not None:
        raise InputError(f"{what}: reads {place.site} of layer {place.layer}: {why}")
    width = model.d_model
    if place.component == "head":
        heads: Any = parts[place.layer].heads
        width = projection_weight(heads.projection).shape[1] // (1 if place.head is None else heads.n_heads)
    if features.d_in != width:
        raise InputError(
            f"{what}: reads activations of width {features.d_in}, and {place.site} of layer {place.layer} of "
            f"{model.name} has {width}; expected an SAE of this model"
        )
