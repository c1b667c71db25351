"""Residual-stream edits during a forward pass: of the stream, and of what attention, MLP and heads write to it.

    with edited(model, {Place(3, "resid_post"): lambda states: states - 1}):
        model.hf(input_ids=ids)

An edit takes the activations at its place, (batch, pos, width), and returns those that replace them, or None where they
stay, so that reading is an edit, too. Hooks are gone when the block ends, also after an exception. The same edits go
through TransformerBridge's hooks (``backend="bridge"``), and each way checks the other.

The width is d_model, and d_head for ``head.H``; ``head`` is given (batch, pos, head, d_head). What an edit of
``resid_mid`` changes is what the MLP reads and what the layer gives, and neither ``attn_out`` nor ``mlp_out`` as they
are read. Blocks nest: an edit sees what the edits of earlier places and of outer blocks leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.architecture import Layout, find_layout
from safekey_interp.capture.layer_parts import LayerParts, layer_parts, parts_for, why_absent
from safekey_interp.capture.places import Place, check_site, layers_of
from safekey_interp.capture.stream_settings import Backend
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

States = Float[Tensor, "batch pos *width"]
Edit = Callable[[States], States | None]
"""Activations at a place to those that replace them, or to None where they stay; never in place."""


@contextmanager
def edited(model: Model, edits: Mapping[Place, Edit], *, backend: Backend = "hf") -> Iterator[None]:
    """Change or read activations in every forward pass inside the block, of ``model.hf`` or of ``model.bridge()``.

    Args:
        model: the model.
        edits: the edit at each place.
        backend: whose forward passes.

    Raises:
        InputError: a place that the model does not have.
    """
    parts, changes = _checked(model, edits)
    if backend == "bridge":
        hooks = [hook for place, edit in changes.items() for hook in _bridge_hooks(parts, place, edit)]
        # What resid_mid adds behind its layer comes before whatever else is changed there.
        with model.bridge().hooks(fwd_hooks=sorted(hooks, key=lambda hook: not isinstance(hook[1], _Carried))):
            yield
        return
    with _attached(find_layout(model.hf), parts, changes):
        yield


@contextmanager
def final_states(hf: Any) -> Iterator[list[Tensor]]:
    """States after the final norm of each forward pass inside the block, in order, as the pass itself has them.

    Args:
        hf: the model of transformers; whatever wraps it may be called.
    """
    seen: list[Tensor] = []
    handle: Any = find_layout(hf)[0].register_forward_hook(_on_output(seen.append))  # type: ignore[arg-type]
    try:
        yield seen
    finally:
        handle.remove()


def prepared_edits(model: Model, edits: Mapping[Place, Edit]) -> Callable[[], AbstractContextManager[None]]:
    """What makes the block of :func:`edited` again and again, for passes that are short beside its preparation.

    Raises:
        InputError: a place that the model does not have.
    """
    parts, changes = _checked(model, edits)
    return partial(_attached, find_layout(model.hf), parts, changes)


@contextmanager
def _attached(layout: Layout, parts: Sequence[LayerParts], changes: Mapping[Place, Edit]) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for place, edit in changes.items():
            handles += _attach(layout, parts, place, edit)
        yield
    finally:
        for handle in reversed(handles):
            handle.remove()


def every_place(model: Model) -> list[Place]:
    """Where the stream is written or read: with an edit at each, nothing in the model sees it unchanged."""
    read_behind_attention = [number for number, parts in enumerate(layer_parts(model.hf)) if parts.reader is not None]
    return [
        Place(0, "resid_pre"),
        *(Place(layer, "attn_out") for layer in read_behind_attention),
        *(Place(layer, "resid_post") for layer in range(model.n_layers)),
    ]


def _checked(model: Model, edits: Mapping[Place, Edit]) -> tuple[Sequence[LayerParts], dict[Place, Edit]]:
    """The parts of the layers, and the edits at places that the model has."""
    changes = {Place(*place): edit for place, edit in edits.items()}
    parts = parts_for(model.hf, changes)
    for place in changes:
        _check(model, place, parts)
    return parts, changes


def _check(model: Model, place: Place, parts: Sequence[LayerParts]) -> None:
    check_site(place.site, model.n_heads, f"edit of layer {place.layer}")
    layers = layers_of(place.component, model.n_layers)
    if place.layer not in layers:
        raise InputError(
            f"edit at {place.site} of layer {place.layer}: expected a layer of {layers[0]} to {layers[-1]}"
        )
    why = why_absent(parts, place)
    if why is not None:
        raise InputError(f"edit at {place.site} of layer {place.layer}: {why}")


def _attach(layout: Layout, parts: Sequence[LayerParts], place: Place, edit: Edit) -> list[Any]:
    decoder, layers = layout
    layer: Any = decoder if place.component == "ln_final" else layers[place.layer]
    if place.component in ("resid_post", "ln_final"):
        return [layer.register_forward_hook(_on_output(edit))]
    if place.component == "resid_pre":
        return [layer.register_forward_pre_hook(_on_input(edit), with_kwargs=True)]
    return _attach_inside(layer, parts[place.layer], place, edit)


def _attach_inside(layer: Any, parts: Any, place: Place, edit: Edit) -> list[Any]:
    """Attach to the parts of a layer; ``parts`` are those that :func:`_check` found there."""
    if place.component == "resid_mid":
        carried = _Carried()
        read = _on_input(partial(carried.change, edit))
        return [
            parts.reader.register_forward_pre_hook(read, with_kwargs=True),
            # Before all others, so that whoever reads what the layer gives sees the change.
            layer.register_forward_hook(_on_output(carried), prepend=True),
        ]
    if place.component == "head":
        change = _on_input(partial(_change_heads, edit, parts.heads.n_heads, place.head))
        return [parts.heads.projection.register_forward_pre_hook(change, with_kwargs=True)]
    if place.component == "projected":
        return [parts.heads.projection.register_forward_hook(_on_output(edit))]
    write = parts.attention if place.component == "attn_out" else parts.mlp
    return [write.module.register_forward_hook(_on_output(partial(_change_scaled, edit, write.scale)))]


_BRIDGE_NAMES = {
    "resid_pre": "hook_in",
    "head": "attn.hook_z",
    "projected": "attn.hook_out",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_out",
}


def _bridge_hooks(parts: Sequence[LayerParts], place: Place, edit: Edit) -> list[tuple[str, Callable[..., Any]]]:
    if place.component == "ln_final":
        return [("ln_final.hook_out", _on_bridge(edit))]
    name = f"blocks.{place.layer}.{_BRIDGE_NAMES[place.component]}"
    if place.component == "resid_mid":
        carried = _Carried()
        read = (name, _on_bridge(partial(carried.change, edit)))
        return [read, (f"blocks.{place.layer}.hook_out", carried)]
    if place.component == "head":
        heads: Any = parts[place.layer].heads
        return [(name, _on_bridge(partial(_change_heads, edit, heads.n_heads, place.head)))]
    return [(name, _on_bridge(edit))]


class _Carried:
    """What an edit between attention and MLP adds to the stream, carried past the MLP to the end of the layer.

    The module behind attention reads the stream, but what it gives is added to the stream as it was.
    """

    def __init__(self) -> None:
        self._change: Tensor | None = None

    def change(self, edit: Edit, states: Tensor) -> Tensor | None:
        """Edit what the MLP reads."""
        self._change = None
        new = _new(edit, states)
        if new is not None:
            self._change = new - states
        return new

    def __call__(self, states: Any, hook: Any = None) -> Any:
        """Edit what the layer gives; also a bridge's hook."""
        change, self._change = self._change, None
        return None if change is None else states + change


def _new(edit: Edit, states: Tensor) -> Tensor | None:
    """What an edit puts in the place of states; None where it leaves them."""
    new = edit(states)
    return None if new is states else new


def _change_scaled(edit: Edit, scale: float, wrote: Tensor) -> Tensor | None:
    """Edit what is added to the stream, where the layer multiplies it first."""
    if scale == 1.0:
        return _new(edit, wrote)
    added = wrote * scale
    new = _new(edit, added)
    # The difference, so that what an edit leaves as it is keeps its bits.
    return None if new is None else wrote + (new - added) / scale


def _change_heads(edit: Edit, n_heads: int, head: int | None, side_by_side: Tensor) -> Tensor | None:
    """Edit heads that lie side by side in the last dimension; a bridge may give them one of their own."""
    z = side_by_side.reshape(*side_by_side.shape[:2], n_heads, -1)
    if head is None:
        new = _new(edit, z)
    else:
        one = _new(edit, z[..., head, :])
        new = None
        if one is not None:
            new = z.clone()
            new[..., head, :] = one
    return None if new is None else new.reshape(side_by_side.shape)


def _on_input(edit: Edit) -> Callable[..., Any]:
    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any] | None:
        new = _new(edit, args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    return hook


def _on_output(edit: Edit) -> Callable[..., Any]:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return _new(edit, output)
        if isinstance(output, tuple):
            new = _new(edit, output[0])
            return None if new is None else (new, *output[1:])
        new = _new(edit, output.last_hidden_state)
        if new is not None:
            output.last_hidden_state = new
        return None

    return hook


def _on_bridge(edit: Edit) -> Callable[..., Any]:
    def hook(states: Any, hook: Any) -> Any:
        return _new(edit, states)

    return hook


def ablate(states: Float[Tensor, "row pos d_model"], unit: Float[Tensor, "row d_model"]) -> Tensor:
    """The states without their component along each row's unit vector, x ← x − (x · d) d, in float32 or wider."""
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    vector = unit.to(wide)
    along = einsum(wide, vector, "row pos d, row d -> row pos")
    return (wide - einsum(along, vector, "row pos, row d -> row pos d")).to(states.dtype)


def add(states: Float[Tensor, "row pos d_model"], step: Float[Tensor, "row d_model"]) -> Tensor:
    """The states moved by each row's vector, x ← x + step."""
    return states + rearrange(step, "row d -> row 1 d").to(states)
