"""Means of activations over positions, inside the forward pass: one vector a place and position, whatever the length.

Of heads, z is averaged, or what they add to the stream (:mod:`~safekey_interp.capture.head_outputs`); either way what
lives longer than the layer is one vector a head and position, never one a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.batches import Batch
from safekey_interp.capture.head_outputs import head_outputs, output_edits
from safekey_interp.capture.layer_parts import HeadWrites, parts_for, why_absent
from safekey_interp.capture.places import HeadValues, Place
from safekey_interp.capture.residual_edits import Edit


class PositionMeans:
    """Means over each position's tokens."""

    def __init__(self, batch: Batch, positions: Sequence[str]) -> None:
        """Begin without weights: these are made where the first states are.

        Args:
            batch: the traces.
            positions: names, as :meth:`~safekey_interp.models.encoding.Encoding.positions` takes them.
        """
        self._batch, self._positions = batch, tuple(positions)
        self._weights: Tensor | None = None

    def __call__(self, states: Float[Tensor, "batch pos *width"]) -> Float[Tensor, "batch position *width"]:
        """The means, float32; zeros where a trace lacks the position."""
        weights = self.weights_on(states.device)
        flat = self.without_padding(states).flatten(2).float()
        return einsum(weights, flat, "b p s, b s d -> b p d").unflatten(2, states.shape[2:])

    def without_padding(self, states: Float[Tensor, "batch pos *width"]) -> Float[Tensor, "batch pos *width"]:
        """Zeros at padding on the left: a padded row may hold anything, and 0 × NaN is NaN."""
        if self._batch.attention_mask is None:
            return states
        padding = self._batch.attention_mask.to(states.device) == 0
        return states.masked_fill(padding.reshape(*padding.shape, *[1] * (states.ndim - 2)), 0.0)

    def weights_on(self, device: torch.device) -> Float[Tensor, "batch position pos"]:
        """Weight of each token in each position's mean; zeros where a trace lacks the position."""
        if self._weights is None or self._weights.device != device:
            shape = (len(self._batch.encodings), len(self._positions), self._batch.input_ids.shape[1])
            weights = np.zeros(shape, np.float32)
            for b, (encoding, start) in enumerate(zip(self._batch.encodings, self._batch.starts, strict=True)):
                for p, name in enumerate(self._positions):
                    where = np.asarray(encoding.positions(name), dtype=np.int64) + start
                    if len(where):
                        weights[b, p, where] = 1 / len(where)
            self._weights = torch.as_tensor(weights, device=device)
        return self._weights


def present(hf: Any, places: Sequence[Place], head: HeadValues) -> tuple[Place, ...]:
    """Those that the model has: layers of linear attention have no heads, parallel blocks no ``resid_mid``."""
    parts = parts_for(hf, places)
    return tuple(place for place in places if why_absent(parts, place, head) is None)


def mean_readings(
    hf: Any, means: PositionMeans, places: Sequence[Place], keep: Callable[[Place, Tensor], None], head: HeadValues
) -> dict[Place, Edit]:
    """Readings that hand each place's means to ``keep``.

    Args:
        hf: the model of transformers.
        means: of a batch.
        places: places that the model has; heads one by one.
        keep: is given a place and its means, (batch, position, width), once in every forward pass.
        head: what is read of heads.
    """
    parts = parts_for(hf, places)
    edits: dict[Place, Edit] = {}
    by_layer: dict[int, list[Place]] = {}
    for place in places:
        if place.head is None:
            edits[place] = partial(_see, means, place, keep)
        else:
            by_layer.setdefault(place.layer, []).append(place)
    for layer, of_heads in by_layer.items():
        heads = parts[layer].heads
        assert heads is not None
        see = partial(_see_heads, means, of_heads, keep, heads if head == "output" else None)
        if head == "output":
            edits |= output_edits(layer, heads, see, means.without_padding)
        else:
            edits[Place(layer, "head")] = see
    return edits


def _see(means: PositionMeans, place: Place, keep: Callable[[Place, Tensor], None], states: Tensor) -> None:
    keep(place, means(states))


def _see_heads(
    means: PositionMeans,
    places: Sequence[Place],
    keep: Callable[[Place, Tensor], None],
    heads: HeadWrites | None,
    z: Tensor,
) -> None:
    read = means(z)
    if heads is not None:
        read = head_outputs(heads, read)
    for place in places:
        keep(place, read[:, :, place.head])
