"""Copies of results from a device to memory: one transfer for each device, however many tensors there are.

Each transfer makes the processor wait for the device, so that a pass's answers are collected there and copied at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from safekey_interp.capture.places import Place
from safekey_interp.capture.recording import Captured


def to_host(tensors: Sequence[Tensor]) -> list[Float32[np.ndarray, ...]]:
    """Tensors as float32 arrays, in their order, each of its own shape."""
    by_device: dict[torch.device, list[int]] = {}
    for number, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append(number)
    arrays: dict[int, np.ndarray] = {}
    for numbers in by_device.values():
        flat = torch.cat([tensors[number].detach().float().flatten() for number in numbers]).cpu().numpy()
        ends = np.cumsum([tensors[number].numel() for number in numbers])
        for number, part in zip(numbers, np.split(flat, ends[:-1]), strict=True):
            arrays[number] = part.reshape(tuple(tensors[number].shape))
    return [arrays[number] for number in range(len(tensors))]


_REDUCED = ("masses", "matched", "matched_other", "entropy", "token_weights")


class HostAnswers(NamedTuple):
    """What a pass answered, in memory; the first axis of each array is the row."""

    attention: dict[int, dict[str, np.ndarray]]
    """By layer: masses, matched, matched_other, entropy and token_weights, those that were asked for."""
    states: dict[Place, np.ndarray]
    """(row, position, width)."""
    features: np.ndarray | None
    """(row, position, feature)."""


def answers_on_host(captured: Captured) -> HostAnswers:
    """The answers of all rows, layers and places, copied at once."""
    by_layer = {layer: {name: getattr(a, name) for name in _REDUCED} for layer, a in captured.attention.items()}
    named = [(layer, name, t) for layer, of in by_layer.items() for name, t in of.items() if isinstance(t, Tensor)]
    features = [] if captured.features is None else [captured.features]
    arrays = iter(to_host([*(tensor for *_, tensor in named), *captured.states.values(), *features]))
    attention: dict[int, dict[str, np.ndarray]] = {layer: {} for layer in by_layer}
    for layer, name, _ in named:
        attention[layer][name] = next(arrays)
    states = {place: next(arrays) for place in captured.states}
    return HostAnswers(attention, states, next(arrays, None))
