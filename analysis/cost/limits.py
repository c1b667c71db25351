"""Limits of devices: what arithmetic and memory could do at best, and how much of it a measured way reaches.

The limit of a pass over many tokens is arithmetic, that of a step that writes one token is reading the weights. Peaks
of GPUs are those that their makers state (dense, without sparsity); of another device, what one large product, and one
long copy, reach on it.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from analysis.cost.entry import Ways


class Peak(NamedTuple):
    """The best of a device."""

    flops: float
    """Operations a second."""
    bandwidth: float
    """Bytes a second."""
    source: str
    """Where both are from."""


_STATED = {  # bfloat16 and float16, float32 without tensor cores, memory
    "B200": (2250e12, 75e12, 8.0e12),
    "H200": (989e12, 67e12, 4.8e12),
    "H100": (989e12, 67e12, 3.35e12),
    "A100": (312e12, 19.5e12, 2.04e12),
    "L40S": (362e12, 91.6e12, 0.864e12),
    "L4": (121e12, 30.3e12, 0.3e12),
    "RTX 4090": (165e12, 82.6e12, 1.01e12),
}


def share_of_limit(ways: Ways, seconds: float, bench: Any) -> dict[str, Any] | None:
    """How much of the device's limit a run of ours reaches; None where the limit is not known."""
    if ways.flops is None and ways.n_bytes is None:
        return None
    peak = peak_of(bench.setup.device, bench.dtype)
    least = ways.flops / peak.flops if ways.flops is not None else (ways.n_bytes or 0) / peak.bandwidth
    limit = "arithmetic" if ways.flops is not None else "reading the weights"
    return {"share": least / seconds, "limit": limit, "peak": peak.source}


@lru_cache
def peak_of(device: str, dtype: torch.dtype) -> Peak:
    """The peak of the device in this type."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    for known, (half, single, bandwidth) in _STATED.items():
        if known in name.replace("-", " ").split() or known in name:
            return Peak(half if dtype != torch.float32 else single, bandwidth, f"stated for {known}")
    n = 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(64_000_000, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    flops = 2 * n**3 / _least_time(lambda: torch.mm(a, b))
    return Peak(flops, 2 * 4 * len(source) / _least_time(lambda: target.copy_(source)), "measured by a product, a copy")


def _least_time(run: Any) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        float(run().flatten()[0])  # until the device has done it
        times.append(time.perf_counter() - start)
    return min(times)
