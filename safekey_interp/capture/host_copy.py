"""Copies of results from a device to memory: one transfer for each device, however many tensors there are.

Each transfer makes the processor wait for the device, so that a pass's answers are collected there and copied at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor


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
