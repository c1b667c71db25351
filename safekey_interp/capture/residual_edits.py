"""Residual-stream edits during a forward pass.

    with edited(model, {Place(3, "resid_post"): lambda states: states - 1}):
        model.hf(input_ids=ids)

An edit takes the states at its place, (batch, pos, d_model), and returns the states that replace them. Hooks are gone
when the block ends, also after an exception. The same edits go through TransformerBridge's hooks
(``backend="bridge"``), and each way checks the other.

The stream is written by the embedding, and by attention and MLP of each layer. What attention writes is found by
measuring, since architectures call it differently (Gemma norms it first, Granite scales it): the module whose output a
makes what the layer reads later,  x = x_in + s · a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safekey_interp.capture.architecture import evaluating, find_layout
from safekey_interp.capture.batch_runner import Backend
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

States = Float[Tensor, "batch pos d_model"]
Edit = Callable[[States], States]
"""States at a place to those that replace them; never in place."""


class Place(NamedTuple):
    """Where the stream is changed."""

    layer: int
    """The layer; the number of layers for ``ln_final``."""
    site: Literal["resid_pre", "attn_out", "resid_post", "ln_final"]
    """Before the layer, what its attention adds, after the layer, or after the final norm."""


class AttentionWrite(NamedTuple):
    """What one layer's attention adds to the stream."""

    module: nn.Module
    """Its output is added."""
    scale: float
    """Times this."""


@contextmanager
def edited(model: Model, edits: Mapping[Place, Edit], *, backend: Backend = "hf") -> Iterator[None]:
    """Change states in every forward pass inside the block, of ``model.hf`` or of ``model.bridge()``.

    Args:
        model: the model.
        edits: the edit at each place.
        backend: whose forward passes.

    Raises:
        InputError: a place that the model does not have.
    """
    for place in edits:
        highest = model.n_layers if place[1] == "ln_final" else model.n_layers - 1
        lowest = highest if place[1] == "ln_final" else 0
        if not lowest <= place[0] <= highest:
            raise InputError(f"edit at {place[1]} of layer {place[0]}: expected a layer of {lowest} to {highest}")
    if backend == "bridge":
        hooks = [(_bridge_name(place), lambda states, hook, edit=edit: edit(states)) for place, edit in edits.items()]
        with model.bridge().hooks(fwd_hooks=hooks):
            yield
        return
    with ExitStack() as stack:
        for place, edit in edits.items():
            stack.callback(_attach(model.hf, Place(*place), edit).remove)
        yield


def every_place(model: Model) -> list[Place]:
    """Where the stream is written or read: with an edit at each, nothing in the model sees it unchanged."""
    writes = attention_writes(model.hf)
    return [
        Place(0, "resid_pre"),
        *(Place(layer, "attn_out") for layer in range(model.n_layers) if writes[layer] is not None),
        *(Place(layer, "resid_post") for layer in range(model.n_layers)),
    ]


_WRITES: WeakKeyDictionary[nn.Module, tuple[AttentionWrite | None, ...]] = WeakKeyDictionary()


def attention_writes(hf: Any) -> tuple[AttentionWrite | None, ...]:
    """What each layer's attention adds to the stream; None where nothing of the layer reads the stream behind it.

    Found once for a model, by a forward pass of four tokens.
    """
    if hf not in _WRITES:
        _WRITES[hf] = _find_writes(hf)
    return _WRITES[hf]


class _Call(NamedTuple):
    module: nn.Module
    read: Tensor | None
    wrote: Tensor | None


def _find_writes(hf: Any) -> tuple[AttentionWrite | None, ...]:
    layers = find_layout(hf).layers
    calls: dict[nn.Module, list[_Call]] = {layer: [] for layer in layers}

    def watch(layer: nn.Module) -> Callable[..., None]:
        def see(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls[layer].append(_Call(module, _states((*args, *kwargs.values())), _states((output,))))

        return see

    ids = torch.arange(4, device=hf.get_input_embeddings().weight.device)[None]
    with ExitStack() as stack, torch.no_grad(), evaluating(hf):
        for layer in layers:
            for module in (*layer.children(), layer):
                stack.callback(module.register_forward_hook(watch(layer), with_kwargs=True).remove)
        hf.get_decoder()(input_ids=ids, use_cache=False)
    factor = getattr(hf.config.get_text_config(decoder=True), "residual_multiplier", None)
    return tuple(_write_of(calls[layer], [1.0] if factor is None else [factor, 1.0]) for layer in layers)


def _states(values: Any) -> Tensor | None:
    """The first tensor of (batch, pos, d_model) in what a module took or gave."""
    for value in values:
        if isinstance(value, tuple):
            return _states(value)
        if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point():
            return value
    return None


def _write_of(calls: list[_Call], scales: Sequence[float]) -> AttentionWrite | None:
    """The last module before a reading one whose output, scaled, is what the reader sees added to the layer's input."""
    *inner, layer = calls
    before = layer.read
    if before is None:
        return None
    for number, call in enumerate(inner):
        if call.read is None or call.read.shape != before.shape or torch.equal(call.read, before):
            continue
        for earlier in reversed(inner[:number]):
            if earlier.wrote is None or earlier.wrote.shape != before.shape:
                continue
            for scale in scales:
                # Bit for bit, as the layer adds: in half precision a small addition drowns in rounding.
                if torch.equal(before + earlier.wrote * scale, call.read):
                    return AttentionWrite(earlier.module, scale)
    return None


def _attach(hf: Any, place: Place, edit: Edit) -> Any:
    decoder, layers = find_layout(hf)
    if place.site == "resid_pre":
        return layers[place.layer].register_forward_pre_hook(_before(edit), with_kwargs=True)
    if place.site == "ln_final":
        return decoder.register_forward_hook(_after(edit))
    if place.site == "resid_post":
        return layers[place.layer].register_forward_hook(_after(edit))
    write = attention_writes(hf)[place.layer]
    if write is None:
        raise InputError(f"edit at attn_out of layer {place.layer}: nothing in this layer reads the stream behind it")
    scale = write.scale
    return write.module.register_forward_hook(_after(lambda states: edit(states * scale) / scale))


def _before(edit: Edit) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}

    return hook


def _after(edit: Edit) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return edit(output)
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        output.last_hidden_state = edit(output.last_hidden_state)
        return output

    return hook


def _bridge_name(place: Place) -> str:
    names = {"resid_pre": "hook_in", "attn_out": "hook_attn_out", "resid_post": "hook_out"}
    return "ln_final.hook_out" if place[1] == "ln_final" else f"blocks.{place[0]}.{names[place[1]]}"
