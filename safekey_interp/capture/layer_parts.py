"""Parts of a decoder layer that write to the residual stream: attention, MLP and heads, found by measuring.

    sequential:  mid = x + s · a,  x_next = mid + s · m          parallel:  x_next = x + s · a + s · m

Architectures call these modules differently, norm what they write first (Gemma) or scale it (Granite). So a forward
pass of four tokens is watched: attention's part is the module whose output a makes, bit for bit, what a later module of
the layer reads; the MLP's is the one whose output m makes what the layer gives. The heads' projection is the linear
module whose output is a, or what the norm reads that gives a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from safekey_interp.capture.architecture import evaluating, find_layout
from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.places import HeadValues, Place
from safekey_interp.errors import ModelError

_CLOSE = 0.02
"""How far a projection by its weight may be from the module's own, in half precision too."""


class Write(NamedTuple):
    """What is added to the stream."""

    module: nn.Module
    """Its output is added."""
    scale: float
    """Times this."""


class HeadWrites(NamedTuple):
    """How one layer's heads come into the stream."""

    projection: nn.Module
    """Reads all heads' z side by side."""
    norm: nn.Module | None
    """Norms its output; None where nothing does."""
    scale: float
    """Factor on what is added."""
    n_heads: int
    """Query heads."""
    separable: bool
    """Whether its weights give what it gives: packed (quantised) weights say nothing of single heads."""


class LayerParts(NamedTuple):
    """What writes to the stream in one layer; None where it cannot be told apart."""

    attention: Write | None
    """Attention, or what stands in its place (a convolution, a state-space mixer)."""
    reader: nn.Module | None
    """First module that reads the stream behind attention; None in a parallel block."""
    mlp: Write | None
    """The MLP or its experts."""
    heads: HeadWrites | None
    """Heads; None in a layer without an attention pattern."""


_PARALLEL = (
    "attention and MLP read the same states and are added together (a parallel block), so that there is no stream "
    "between them; expected resid_pre, attn_out, mlp_out or resid_post"
)
_UNKNOWN = "no module of this layer gives what attention or MLP adds to the stream; expected resid_pre or resid_post"
_NO_HEADS = "no linear projection of heads is added to the stream, so that heads cannot be separated"
_PACKED = "the projection's weights are packed (quantised), so that what one head adds is not known; its z is"
_AROUND = ("resid_pre", "resid_post", "ln_final")
"""Components around layers: no part of one."""
_PARTS: WeakKeyDictionary[nn.Module, tuple[int, tuple[LayerParts, ...]]] = WeakKeyDictionary()


def layer_parts(hf: Any) -> tuple[LayerParts, ...]:
    """The parts of each layer, found by a forward pass of four tokens; again where modules have been added since."""
    n_modules = sum(1 for _ in hf.modules())
    if hf not in _PARTS or _PARTS[hf][0] != n_modules:
        _PARTS[hf] = n_modules, _find_parts(hf)
    return _PARTS[hf][1]


def parts_for(hf: Any, places: Iterable[Place]) -> tuple[LayerParts, ...]:
    """The parts of each layer; none, and no forward pass, where all places lie around layers."""
    return () if all(place.component in _AROUND for place in places) else layer_parts(hf)


def why_absent(every: Sequence[LayerParts], place: Place, head: HeadValues = "z") -> str | None:
    """Why a model has no such place, or heads whose ``head`` cannot be read, in words; None where it has it.

    Args:
        every: its layers' parts, from :func:`parts_for`.
        place: the place.
        head: what is read of heads.
    """
    if place.component in _AROUND:
        return None
    parts = every[place.layer]
    if place.component == "resid_mid":
        parallel = parts.attention is not None and parts.mlp is not None
        return None if parts.reader is not None else _PARALLEL if parallel else _UNKNOWN
    if place.component in ("attn_out", "mlp_out"):
        write = parts.attention if place.component == "attn_out" else parts.mlp
        return _UNKNOWN if write is None else None
    if parts.heads is None:
        return _NO_HEADS
    return _PACKED if place.component == "head" and head == "output" and not parts.heads.separable else None


def projection_weight(projection: Any) -> Tensor:
    """The weight of a layer's output projection, (d_model, head · d_head)."""
    return projection.weight.T if isinstance(projection, Conv1D) else projection.weight


class _Call(NamedTuple):
    module: nn.Module
    read: Tensor | None
    wrote: Tensor | None


class _HeadCount:
    """Query heads of each layer that goes through the attention interface."""

    def __init__(self) -> None:
        self.n_heads: dict[int, int] = {}

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """Count, and leave the mask as it is; called by the attention hook."""
        self.n_heads[module.layer_idx] = query.shape[1]
        return attention_mask


def _find_parts(hf: Any) -> tuple[LayerParts, ...]:
    layers = find_layout(hf).layers
    config = hf.config.get_text_config(decoder=True)
    calls: list[list[_Call]] = [[] for _ in layers]
    counted = _HeadCount()

    def watch(into: list[_Call]) -> Callable[..., None]:
        def see(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            into.append(_Call(module, _states((*args, *kwargs.values())), _states((output,))))

        return see

    ids = torch.arange(4, device=hf.get_input_embeddings().weight.device)[None]
    with ExitStack() as stack, torch.no_grad(), evaluating(hf):
        for layer, into in zip(layers, calls, strict=True):
            linears = (part for part in layer.modules() if isinstance(part, nn.Linear | Conv1D))
            # Each once: a layer may be linear itself, or have a linear child.
            for module in dict.fromkeys((*linears, *layer.children(), layer)):
                stack.callback(module.register_forward_hook(watch(into), with_kwargs=True).remove)
        try:
            stack.enter_context(observed_attention(hf, counted))
        except ModelError:  # attention of its own kind, in all layers
            counted.n_heads = {number: config.num_attention_heads for number in range(len(layers))}
        hf.get_decoder()(input_ids=ids, use_cache=False)
    factor = getattr(config, "residual_multiplier", None)
    scales = [1.0] if factor is None else [factor, 1.0]
    return tuple(
        _parts_of(layer, _called_once(of_layer), scales, counted.n_heads.get(number))
        for number, (layer, of_layer) in enumerate(zip(layers, calls, strict=True))
    )


def _called_once(calls: Sequence[_Call]) -> list[_Call]:
    """A module that is called twice in a layer (Phi's dropout) is no place of its own."""
    modules = [call.module for call in calls]
    return [call for call in calls if modules.count(call.module) == 1]


def _states(values: Iterable[Any]) -> Tensor | None:
    """The first tensor of (batch, pos, width) in what a module took or gave."""
    for value in values:
        if isinstance(value, tuple):
            return _states(value)
        if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point():
            return value
    return None


def _parts_of(layer: nn.Module, calls: Sequence[_Call], scales: Sequence[float], n_heads: int | None) -> LayerParts:
    by_module = {call.module: call for call in calls}
    whole = by_module.get(layer)
    nothing = LayerParts(None, None, None, None)
    if whole is None or whole.read is None or whole.wrote is None:
        return nothing
    children = [by_module[child] for child in layer.children() if child in by_module]
    inner = [call for call in calls if any(call is child for child in children)]
    sequential = _behind_attention(whole.read, inner, scales)
    if sequential is not None:
        attention, reader = sequential
        middle = by_module[reader].read
        mlp = _last_write(middle, whole.wrote, inner, scales)
        parts = LayerParts(attention, reader, mlp, None)
    else:
        parts = _parallel(whole, inner, scales) or nothing
    if parts.attention is None or n_heads is None:
        return parts
    return parts._replace(heads=_heads_of(by_module, parts.attention, n_heads))


def _writes(calls: Sequence[_Call], like: Tensor, scales: Sequence[float]) -> Iterator[tuple[Write, Tensor]]:
    """What each call could add to the stream, the last first."""
    for call in reversed(calls):
        if call.wrote is not None and call.wrote.shape == like.shape:
            for scale in scales:
                yield Write(call.module, scale), call.wrote * scale


def _behind_attention(
    before: Tensor, calls: Sequence[_Call], scales: Sequence[float]
) -> tuple[Write, nn.Module] | None:
    """The last module before a reading one whose output, scaled, is what the reader sees added to the layer's input."""
    for number, call in enumerate(calls):
        if call.read is None or call.read.shape != before.shape or torch.equal(call.read, before):
            continue
        write = _last_write(before, call.read, calls[:number], scales)
        if write is not None:
            return write, call.module
    return None


def _last_write(before: Tensor | None, after: Tensor, calls: Sequence[_Call], scales: Sequence[float]) -> Write | None:
    """The last module whose output makes one state of the stream from another."""
    if before is None:
        return None
    # Bit for bit, as the layer adds: in half precision a small addition drowns in rounding.
    return next((write for write, out in _writes(calls, before, scales) if torch.equal(before + out, after)), None)


def _parallel(whole: _Call, calls: Sequence[_Call], scales: Sequence[float]) -> LayerParts | None:
    """Attention and MLP whose outputs together make what the layer gives, in any order of addition."""
    before, after = whole.read, whole.wrote
    assert before is not None
    assert after is not None
    attends = [call.wrote for call in calls if _attends(call.module) and call.wrote is not None]
    for (attention, a), (mlp, m) in product(_writes(calls, before, scales), repeat=2):
        if attention.module is mlp.module or not any(torch.equal(a, out * attention.scale) for out in attends):
            continue
        if any(torch.equal(total, after) for total in ((before + a) + m, (before + m) + a, before + (a + m))):
            return LayerParts(attention, None, mlp, None)
    return None


def _attends(module: nn.Module) -> bool:
    return any(hasattr(part, "layer_idx") for part in module.modules())


def _heads_of(by_module: dict[nn.Module, _Call], write: Write, n_heads: int) -> HeadWrites | None:
    normed, added = by_module[write.module].read, by_module[write.module].wrote
    for module, (_, z, out) in by_module.items():
        if not isinstance(module, nn.Linear | Conv1D) or z is None or out is None or z.shape[-1] % n_heads:
            continue
        for whole, norm in ((added, None), (normed, write.module)):
            if whole is not None and torch.equal(out, whole):
                return HeadWrites(module, norm, write.scale, n_heads, _separable(module, z, out))
    return None


def _separable(projection: Any, z: Tensor, out: Tensor) -> bool:
    weight = projection_weight(projection)
    if weight.ndim != 2 or not weight.is_floating_point() or z.shape[-1] != weight.shape[1]:
        return False
    return bool((nn.functional.linear(z, weight, projection.bias) - out).norm() <= _CLOSE * out.norm())
