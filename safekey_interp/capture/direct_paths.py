"""Direct paths through the residual stream: from what one head or MLP writes to what another head, or the logits, read.

Everything between the two is held as it was (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv
2304.05969), so that the reader's stream differs by what the writer adds, and by nothing else:

    delta = write(changed) − write(clean)          x'_reader = x_reader + delta

The query, key or value input of head h influences z of head h alone, so that changing it is changing z_h to what
attention makes of q(x'), or k(x'), or v(x'), beside the clean others: with shared key heads, too. A norm that follows
attention (Gemma) is recomputed with the other heads as they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.attention_hook import Keys, observed_attention
from safekey_interp.capture.places import Place
from safekey_interp.capture.residual_edits import Edit, edited
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

HeadInput = Literal["q", "k", "v"]
_SENDER = re.compile(r"(\d+)\.(mlp|head\.(\d+))\Z")
_RECEIVER = re.compile(r"(\d+)\.head\.(\d+)\.([qkv])\Z")


class Sender(NamedTuple):
    """What writes."""

    layer: int
    """Its layer."""
    head: int | None
    """Its head; None for the MLP."""

    @property
    def place(self) -> Place:
        """Where its activations are: z of a head, what an MLP adds."""
        return Place(self.layer, "mlp_out" if self.head is None else f"head.{self.head}")

    def __str__(self) -> str:
        return f"{self.layer}.mlp" if self.head is None else f"{self.layer}.head.{self.head}"


class Receiver(NamedTuple):
    """What reads: one input of a head, or the logits."""

    layer: int
    """Its layer; the number of layers for the logits."""
    head: int | None = None
    """Its head; None for the logits."""
    input: HeadInput | None = None
    """Query, key or value."""

    def __str__(self) -> str:
        return "logits" if self.head is None else f"{self.layer}.head.{self.head}.{self.input}"


def parse_sender(text: str, model: Model) -> Sender:
    """``3.head.1`` or ``3.mlp``. Raises InputError for what the model does not have."""
    match = _SENDER.match(text)
    if match is None:
        raise InputError(f"sender: got {text!r}, expected LAYER.head.HEAD or LAYER.mlp, such as 0.head.1")
    sender = Sender(int(match[1]), None if match[3] is None else int(match[3]))
    _check_numbers(model, "sender", text, sender.layer, sender.head)
    return sender


def parse_receiver(text: str, model: Model) -> Receiver:
    """``3.head.1.q`` (or k, v), or ``logits``. Raises InputError for what the model does not have."""
    if text == "logits":
        return Receiver(model.n_layers)
    match = _RECEIVER.match(text)
    if match is None:
        raise InputError(f"receiver: got {text!r}, expected logits or LAYER.head.HEAD.q (or k, v), such as 3.head.1.q")
    side: Any = match[3]
    receiver = Receiver(int(match[1]), int(match[2]), side)
    _check_numbers(model, "receiver", text, receiver.layer, receiver.head)
    return receiver


def is_path(sender: Sender, receiver: Receiver) -> bool:
    """Whether the receiver reads behind the sender."""
    return sender.layer < receiver.layer


def written_delta(
    model: Model,
    ids: Int64[Tensor, "batch pos"],
    sender: Sender,
    where: Sequence[int],
    values: Float[Tensor, "changed width"],
) -> Float[Tensor, "batch pos d_model"]:
    """What the stream changes by behind the sender, when it has other activations at some positions.

    Args:
        model: the model.
        ids: tokens, without padding.
        sender: head or MLP.
        where: positions.
        values: its activations there: z of a head (d_head), or what an MLP adds (d_model).
    """
    written = Place(sender.layer, "mlp_out" if sender.head is None else "attn_out")
    clean = _read(model, ids, {written: None}, until=sender.layer)[written]
    put = _placed(where, values)
    if sender.head is None:
        return put(clean) - clean
    return _read(model, ids, {sender.place: put, written: None}, until=sender.layer)[written] - clean


def received_z(
    model: Model,
    ids: Int64[Tensor, "batch pos"],
    receiver: Receiver,
    delta: Float[Tensor, "batch pos d_model"],
) -> Float[Tensor, "batch pos d_head"]:
    """z of the receiving head when the stream that one of its inputs is computed from differs by ``delta``."""
    layer, z = receiver.layer, Place(receiver.layer, f"head.{receiver.head}")
    clean, changed = _SeenKeys(layer), _SeenKeys(layer)
    shift = {Place(layer, "resid_pre"): lambda states: states + delta.to(states)}
    _read(model, ids, {}, until=layer, observer=clean)
    if receiver.input == "q":
        changed.replacement = clean.seen
        return _read(model, ids, shift | {z: None}, until=layer, observer=changed)[z]
    _read(model, ids, shift, until=layer, observer=changed)
    assert clean.seen is not None
    assert changed.seen is not None
    side = "key" if receiver.input == "k" else "value"
    clean.replacement = clean.seen._replace(**{side: getattr(changed.seen, side)})
    return _read(model, ids, {z: None}, until=layer, observer=clean)[z]


def path_edits(
    model: Model, ids: Int64[Tensor, "batch pos"], receiver: Receiver, delta: Float[Tensor, "batch pos d_model"]
) -> Mapping[Place, Edit]:
    """Edits that make the receiver, and nothing else, read a stream that differs by ``delta``."""
    if receiver.head is None:
        return {Place(model.n_layers - 1, "resid_post"): lambda states: states + delta.to(states)}
    z = received_z(model, ids, receiver, delta)

    def put(states: Tensor) -> Tensor:
        return z.to(states)

    return {Place(receiver.layer, f"head.{receiver.head}"): put}


class _SeenKeys:
    """Keys and values of one layer, kept as they were before ``replacement`` takes their place."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.seen: Keys | None = None
        self.replacement: Keys | None = None

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """Leave the mask as it is; called by the attention hook."""
        return attention_mask

    def change_keys(self, module: Any, query: Tensor, keys: Keys) -> Keys:
        """Keep one layer's keys and values, or replace them."""
        if module.layer_idx != self.layer:
            return keys
        self.seen = keys
        return keys if self.replacement is None else self.replacement


class _Done(Exception):
    """Ends a pass that has read everything."""


def _read(
    model: Model,
    ids: Tensor,
    edits: Mapping[Place, Edit | None],
    *,
    until: int,
    observer: _SeenKeys | None = None,
) -> dict[Place, Tensor]:
    """Activations at the places without an edit, in a pass that ends behind layer ``until``."""
    seen: dict[Place, Tensor] = {}

    def reading(place: Place) -> Edit:
        def read(states: Tensor) -> None:
            seen[place] = states.detach().clone()

        return read

    def stop(*_: Any) -> None:
        raise _Done

    layout = find_layout(model.hf)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(edited(model, {place: edit or reading(place) for place, edit in edits.items()}))
        if observer is not None:
            stack.enter_context(observed_attention(model.hf, observer))
        stack.callback(layout.layers[until].register_forward_hook(stop).remove)
        with suppress(_Done):
            layout.decoder(input_ids=ids.to(model.device), use_cache=False)
    return seen


def _placed(where: Sequence[int], values: Tensor) -> Callable[[Tensor], Tensor]:
    def put(states: Tensor) -> Tensor:
        out = states.clone()
        out[:, list(where)] = values.to(states)
        return out

    return put


def _check_numbers(model: Model, what: str, text: str, layer: int, head: int | None) -> None:
    if layer >= model.n_layers or (head or 0) >= model.n_heads:
        raise InputError(
            f"{what}: got {text!r}, expected layers 0 to {model.n_layers - 1} and heads 0 to {model.n_heads - 1}"
        )
