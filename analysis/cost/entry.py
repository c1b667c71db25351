"""Entry of the measurements: one way of the package, and what it is measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from analysis.cost.bench import Bench
from analysis.cost.timing import Reading, Way, clock


class Ways(NamedTuple):
    """Two ways of one thing."""

    ours: Way
    """The package's."""
    baseline: Way
    """What it is compared with."""
    flops: float | None = None
    """Operations of one run of ours, where the device's arithmetic is its limit."""
    n_bytes: float | None = None
    """Bytes that one run of ours has to read, where the device's memory is its limit."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something that is measured; its ratio is ours divided by the baseline's, so that less is better."""

    name: str
    """Stable: in ``cost.json`` and on the page."""
    what: str
    """What ours does, in words."""
    baseline: str
    """What it is compared with, in words."""
    ways: Callable[[Bench], Ways]
    """Makes both for a bench."""
    meter: Callable[[Way], Reading] = clock
    """What of a run is read: its time or its peak memory."""


def forward_flops(bench: Bench, n_tokens: int) -> float:
    """Operations of a forward pass over one sequence, without the output embedding: products alone, two a weight."""
    config = bench.model.config
    share = getattr(config, "num_experts_per_tok", 0) / max(1, getattr(config, "num_experts", 0) or 1)
    weights = sum(
        parameter.numel() * (share if ".experts." in name else 1)
        for name, parameter in bench.model.hf.get_decoder().named_parameters()
        if parameter.ndim > 1 and "embed" not in name
    )
    d_head = getattr(config, "head_dim", None) or bench.model.d_model // bench.model.n_heads
    attention = 2 * n_tokens**2 * bench.model.n_layers * bench.model.n_heads * d_head  # half of the keys are in sight
    return 2 * weights * n_tokens + attention


def weight_bytes(bench: Bench) -> float:
    """Bytes of the weights that a decoding step reads; of experts, all, since a batch asks for most."""
    return float(sum(p.numel() * p.element_size() for p in bench.model.hf.parameters()))
