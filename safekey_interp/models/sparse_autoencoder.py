"""Sparse autoencoder (SAE) of a model's activations: its encoder, which makes latents of them.

With x the activations, x̂ = norm(x) − b_dec (norm and b_dec where it was trained with them) and a = x̂ W_enc + b_enc,
the latents are

    standard     max(a, 0)                                                          (Bricken et al. 2023)
    topk         the k largest a, where they are above 0; 0 elsewhere                (Gao et al. 2024, arXiv 2406.04093)
    jumprelu     a where a > θ and a > 0; 0 elsewhere                   (Rajamanoharan et al. 2024, arXiv 2407.14435)
    gated        [x̂ W_enc + b_gate > 0] · max(x̂ (W_enc exp(r_mag)) + b_mag, 0)       (the same, arXiv 2404.16014)

SAEs trained with batch-top-k are published as ``jumprelu``. Files are read by :mod:`safekey_interp.models.sae_files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safekey_interp.errors import InputError

Architecture = Literal["standard", "topk", "jumprelu", "gated"]
Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]

WEIGHTS: dict[str, tuple[str, ...]] = {
    "standard": ("W_enc", "b_enc", "b_dec"),
    "topk": ("W_enc", "b_enc", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "b_dec", "threshold"),
    "gated": ("W_enc", "b_gate", "b_mag", "r_mag", "b_dec"),
}
"""Arrays that an encoder of each architecture has; ``W_dec``, too, where latents are scaled by its rows' norms."""
_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SparseAutoencoder:
    """The encoder of an SAE, and where in a model it reads."""

    name: str
    """Of its file or folder."""
    architecture: Architecture
    """How latents come of activations."""
    layer: int
    """The layer that it reads."""
    site: str
    """The component that it reads there, by its name in ``ski.states``; ``head``: z of all heads, side by side."""
    weights: Mapping[str, Tensor]
    """Float32: those of :data:`WEIGHTS`; W_enc is (d_in, n_latents)."""
    k: int | None = None
    """Of ``topk``: latents that a token has at most."""
    normalisation: Normalisation = "none"
    """What is done to activations first: ``layer_norm`` (x − mean) / (std + 1e-5), or ``constant_norm_rescale``
    x · √d_in / ‖x‖."""
    subtracts_b_dec: bool = False
    """Whether b_dec is taken off the activations."""
    scales_by_decoder: bool = False
    """Of ``topk``: whether latents are multiplied by the norms of the decoder's rows before the k are chosen."""
    sha256: str = ""
    """Of the file of weights."""
    _on: dict[torch.device, dict[str, Tensor]] = field(default_factory=dict, init=False)

    @property
    def d_in(self) -> int:
        """Width of the activations that it reads."""
        return self.weights["W_enc"].shape[0]

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.weights["W_enc"].shape[1]

    def record(self) -> dict[str, str | int]:
        """What ``run.json`` says of it."""
        said = ("name", "architecture", "layer", "site", "d_in", "n_latents", "sha256")
        return {name: getattr(self, name) for name in said}

    def latents(self, activations: np.ndarray) -> Float[np.ndarray, "*rows n_latents"]:
        """Latents of activations, (…, d_in); float32, NaN for a row that is not finite.

        Raises:
            InputError: the activations are of another width.
        """
        given = np.asarray(activations, dtype=np.float32)
        if given.ndim == 0 or given.shape[-1] != self.d_in:
            raise InputError(
                f"sae {self.name}: got activations of shape {given.shape}, expected (…, {self.d_in}); read them at "
                f"{self.site} of layer {self.layer} of the model that it was trained on"
            )
        with torch.inference_mode():
            found = self.encode(torch.as_tensor(given)).numpy()
        found[~np.isfinite(given).all(-1)] = np.nan
        return found

    def encode(self, activations: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_latents"]:
        """The same of a tensor, on its device."""
        weights = self._weights_on(activations.device)
        given = self._normalised(activations.float())
        if self.subtracts_b_dec:
            given = given - weights["b_dec"]
        if self.architecture == "gated":
            projected = given @ weights["W_enc"]
            magnitude = (projected * weights["r_mag"].exp() + weights["b_mag"]).relu()
            return torch.where(projected + weights["b_gate"] > 0, magnitude, 0.0)
        before = given @ weights["W_enc"] + weights["b_enc"]
        if self.architecture == "jumprelu":
            return torch.where(before > weights["threshold"], before, 0.0).relu()
        if self.architecture == "topk":
            if self.scales_by_decoder:
                before = before * weights["W_dec"].norm(dim=-1)
            largest, where = before.topk(int(self.k or 0), dim=-1)
            return torch.zeros_like(before).scatter(-1, where, largest.relu())
        return before.relu()

    def _normalised(self, given: Tensor) -> Tensor:
        if self.normalisation == "layer_norm":
            centred = given - given.mean(-1, keepdim=True)
            return centred / (centred.std(-1, keepdim=True) + _EPSILON)
        if self.normalisation == "constant_norm_rescale":
            return given * (self.d_in**0.5 / given.norm(dim=-1, keepdim=True))
        return given

    def _weights_on(self, device: torch.device) -> Mapping[str, Tensor]:
        if device not in self._on:
            self._on[device] = {name: tensor.to(device) for name, tensor in self.weights.items()}
        return self._on[device]

    def __repr__(self) -> str:
        place = f"{self.site} of layer {self.layer}"
        return f"SparseAutoencoder({self.name!r}, {self.architecture}, {self.d_in} -> {self.n_latents}, {place})"
