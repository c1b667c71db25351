"""Head outputs: what each attention head adds to the residual stream.

    attention adds   s · f ⊙ (Σ_h W_h z_h + b)          z_h = Σ_k p_qk v_k, of head h alone

with W_h the columns of the output projection that read head h, b its bias, which is no head's, s and f what the layer
does before it adds (Granite's factor; Gemma's norm, its scale held fixed at what it normed: f = α gain). All of it but
α is the same at every position, so that a mean of outputs over positions is the output of the mean of α z. Which module
projects, and whether a norm follows, is found by measuring (:mod:`~safekey_interp.capture.layer_parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.layer_parts import HeadWrites, layer_parts, projection_weight
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import Edit, edited
from safekey_interp.capture.stream_settings import Backend
from safekey_interp.capture.unembedding import norm_gain, norm_scale
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model


class HeadReading(NamedTuple):
    """Head outputs at one position of each row."""

    outputs: dict[int, Float[Tensor, "row head d_model"]]
    """By layer, what each head adds to the stream, float32; layers without heads are absent."""
    last: Float[Tensor, "row d_model"]
    """The stream after the last layer."""


def find_heads(hf: Any) -> dict[int, HeadWrites]:
    """Each layer's heads whose outputs can be told apart; other layers are absent.

    Raises:
        ModelError: no layer has them.
    """
    every = enumerate(parts.heads for parts in layer_parts(hf))
    heads = {number: heads for number, heads in every if heads is not None and heads.separable}
    if not heads:
        raise ModelError(
            f"{type(hf).__name__}: no layer adds a linear projection of its heads to the stream, so that heads cannot "
            "be separated; expected ordinary attention with unquantised weights"
        )
    return heads


def head_outputs(heads: HeadWrites, z: Float[Tensor, "*rows head d_head"]) -> Float[Tensor, "*rows head d_model"]:
    """What heads add to the stream, float32; of z from :func:`output_edits`."""
    weight = rearrange(projection_weight(heads.projection).float(), "d (head k) -> head k d", head=z.shape[-2])
    out = einsum(z.flatten(0, -3).float(), weight, "row head k, head k d -> row head d").unflatten(0, z.shape[:-2])
    return out * (heads.scale if heads.norm is None else heads.scale * norm_gain(heads.norm))


def output_edits(
    layer: int,
    heads: HeadWrites,
    see: Callable[[Float[Tensor, "batch pos head d_head"]], None],
    clean: Callable[[Tensor], Tensor] = lambda states: states,
) -> dict[Place, Edit]:
    """Readings of one layer that show z to ``see``, times α where a norm follows, float32 there.

    Args:
        layer: its number.
        heads: its heads.
        see: is called once in every forward pass.
        clean: is given what the norm reads, and returns it without what padding holds.
    """
    norm = heads.norm
    if norm is None:
        return {Place(layer, "head"): see}
    waiting: list[Tensor] = []

    def see_z(z: Tensor) -> None:
        waiting[:] = [z]

    def see_projected(projected: Tensor) -> None:
        alpha = norm_scale(norm, clean(projected))
        see(clean(waiting.pop()).float() * rearrange(alpha, "b s 1 -> b s 1 1"))

    return {Place(layer, "head"): see_z, Place(layer, "projected"): see_projected}


def read_heads(
    model: Model,
    heads: Mapping[int, HeadWrites],
    ids: Int64[Tensor, "row pos"],
    at: Int64[Tensor, " row"],
    *,
    backend: Backend = "hf",
) -> HeadReading:
    """Head outputs at one position of each row.

    Args:
        model: the model.
        heads: from :func:`find_heads`.
        ids: tokens, padded on the right, where causality hides the padding.
        at: the position of each row.
        backend: ``hf`` or ``bridge``.
    """
    read: dict[Place, Tensor] = {}
    last = Place(model.n_layers - 1, "resid_post")

    def keep(place: Place, states: Tensor) -> None:
        read[place] = states[torch.arange(len(at)), at].detach()

    edits: dict[Place, Edit] = {last: partial(keep, last)}
    for layer, writes in heads.items():
        edits |= output_edits(layer, writes, partial(keep, Place(layer, "head")))
    with torch.no_grad(), edited(model, edits, backend=backend):
        if backend == "bridge":
            model.bridge()(ids.to(model.device), return_type=None)
        else:
            find_layout(model.hf).decoder(input_ids=ids.to(model.device), use_cache=False)
        outputs = {layer: head_outputs(writes, read[Place(layer, "head")]) for layer, writes in heads.items()}
    return HeadReading(outputs, read[last])
