"""Head outputs: what each attention head adds to the residual stream.

    attention adds   s · f ⊙ (Σ_h W_h z_h + b)          z_h = Σ_k p_qk v_k, of head h alone

with W_h the columns of the output projection that read head h, b its bias, which is no head's, s and f what the layer
does before it adds (Granite's factor; Gemma's norm, its scale held fixed at what it normed). Which module projects, and
whether a norm follows, is found by measuring, as what attention writes is
(:mod:`~safekey_interp.capture.residual_edits`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from safekey_interp.capture.architecture import evaluating, find_layout
from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.residual_edits import attention_writes
from safekey_interp.capture.unembedding import frozen_norm
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model

_CLOSE = 0.02
"""How far a projection by its weight may be from the module's own, in half precision too."""


class HeadWrites(NamedTuple):
    """How one layer's heads come into the stream."""

    projection: nn.Linear
    """Reads all heads' z side by side."""
    norm: nn.Module | None
    """Norms its output; None where nothing does."""
    scale: float
    """Factor on what is added."""


class HeadReading(NamedTuple):
    """Head outputs at one position of each row."""

    z: dict[int, Float[Tensor, "row head d_head"]]
    """By layer, before the projection; layers without heads are absent."""
    factor: dict[int, Float[Tensor, "row d_model"]]
    """By layer, s · f: what the projection's output is multiplied by before it is added."""
    last: Float[Tensor, "row d_model"]
    """The stream after the last layer."""

    def outputs(self, layer: int, writes: HeadWrites) -> Float[Tensor, "row head d_model"]:
        """What each head of a layer adds to the stream, float32."""
        z = self.z[layer].float()
        weight = rearrange(writes.projection.weight.float(), "d (head k) -> head k d", head=z.shape[1])
        return einsum(z, weight, "row head k, head k d -> row head d") * rearrange(
            self.factor[layer], "row d -> row 1 d"
        )


def find_heads(hf: Any) -> dict[int, HeadWrites]:
    """Each layer's projection; layers whose attention is no such thing are absent.

    Raises:
        ModelError: no layer has one.
    """
    layers = find_layout(hf).layers
    writes = attention_writes(hf)
    calls: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def see(module: nn.Module, args: Any, output: Any) -> None:
        wrote = output if isinstance(output, Tensor) else output[0]
        read = args[0] if args and isinstance(args[0], Tensor) else wrote
        calls[module] = (read, wrote)

    ids = torch.arange(4, device=hf.get_input_embeddings().weight.device)[None]
    with ExitStack() as stack, torch.no_grad(), evaluating(hf):
        linears = [[part for part in layer.modules() if isinstance(part, nn.Linear)] for layer in layers]
        watched = {write.module for write in writes if write is not None}.union(*linears)
        for module in watched:
            stack.callback(module.register_forward_hook(see).remove)
        hf.get_decoder()(input_ids=ids, use_cache=False)
    heads = {}
    for number, (write, layer_linears) in enumerate(zip(writes, linears, strict=True)):
        if write is None:
            continue
        normed, added = calls[write.module]
        for linear in layer_linears:
            if linear not in calls or linear.weight.ndim != 2:
                continue
            z, out = calls[linear]
            if out.shape != added.shape or not (_project(linear, z) - out).norm() <= _CLOSE * out.norm():
                continue
            if torch.equal(out, added):
                heads[number] = HeadWrites(linear, None, write.scale)
            elif torch.equal(out, normed):
                heads[number] = HeadWrites(linear, write.module, write.scale)
    if not heads:
        raise ModelError(
            f"{type(hf).__name__}: no layer adds a linear projection of its heads to the stream, so that heads cannot "
            "be separated; expected ordinary attention with unquantised weights"
        )
    return heads


def read_heads(
    model: Model,
    heads: dict[int, HeadWrites],
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
        backend: ``hf`` or ``bridge`` (its hooks on ``attn.hook_z``, ``attn.hook_out`` and ``hook_out``).
    """
    z: dict[int, Tensor] = {}
    projected: dict[int, Tensor] = {}
    stream: dict[int, Tensor] = {}
    keep_stream = partial(_keep, stream, model.n_layers, at)

    with torch.no_grad():
        if backend == "bridge":
            hooks = [(f"blocks.{model.n_layers - 1}.hook_out", _on_bridge(keep_stream))]
            for layer in heads:
                hooks.append((f"blocks.{layer}.attn.hook_z", _on_bridge(partial(_keep, z, layer, at))))
                hooks.append((f"blocks.{layer}.attn.hook_out", _on_bridge(partial(_keep, projected, layer, at))))
            with model.bridge().hooks(fwd_hooks=hooks):
                model.bridge()(ids.to(model.device), return_type=None)
        else:
            decoder, layers = find_layout(model.hf)
            with ExitStack() as stack:
                stack.callback(layers[-1].register_forward_hook(_on_output(keep_stream)).remove)
                for layer, writes in heads.items():
                    hook = _on_linear(partial(_keep, z, layer, at), partial(_keep, projected, layer, at))
                    stack.callback(writes.projection.register_forward_hook(hook).remove)
                decoder(input_ids=ids.to(model.device), use_cache=False)
        factors = {layer: _factor(writes, projected[layer]) for layer, writes in heads.items()}
    by_head = {layer: states.reshape(len(at), model.n_heads, -1) for layer, states in z.items()}
    return HeadReading(by_head, factors, stream[model.n_layers])


def _keep(into: dict[int, Tensor], layer: int, at: Tensor, states: Tensor) -> None:
    into[layer] = states[torch.arange(len(at)), at].detach()


def _project(linear: nn.Linear, z: Tensor) -> Tensor:
    """The projection by its weight, as heads are separated by it: packed (quantised) weights give something else."""
    if z.shape[-1] != linear.weight.shape[1] or not linear.weight.is_floating_point():
        return torch.full_like(z[..., :1], torch.nan)
    return nn.functional.linear(z, linear.weight, linear.bias)


def _factor(writes: HeadWrites, projected: Tensor) -> Tensor:
    if writes.norm is None:
        return torch.full_like(projected, writes.scale, dtype=torch.float32)
    return writes.scale * frozen_norm(writes.norm, projected)


def _on_linear(see_input: Callable[[Tensor], None], see_output: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        see_input(args[0])
        see_output(output)

    return hook


def _on_output(see: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        see(output if isinstance(output, Tensor) else output[0])

    return hook


def _on_bridge(see: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(states: Any, hook: Any) -> None:
        see(states if isinstance(states, Tensor) else states[0])

    return hook
