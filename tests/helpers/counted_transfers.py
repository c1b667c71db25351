"""Count of what makes the processor wait for a device: copies to memory, and tensors read as Python numbers.

On a CPU nothing waits, but the same calls are made; so they are counted wherever a test runs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_READS = {
    torch.Tensor.cpu: "cpu",
    torch.Tensor.item: "item",
    torch.Tensor.tolist: "tolist",
    torch.Tensor.__bool__: "bool",
    torch.Tensor.__int__: "int",
    torch.Tensor.__float__: "float",
    torch.Tensor.nonzero: "nonzero",
    torch.nonzero: "nonzero",
    torch.Tensor.equal: "equal",
    torch.equal: "equal",
    torch.allclose: "allclose",
}


class Transfers(TorchFunctionMode):
    """A block whose transfers are counted by what asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _READS.get(func)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and _is_mask(args[1]):
            name = "mask"  # how many are chosen decides the shape
        if name is not None:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in parts)
