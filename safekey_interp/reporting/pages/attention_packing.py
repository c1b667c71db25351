"""Compression of attention maps for a page: levels on a square-root scale, deflated, cut to a budget.

A plane is one row kind (K's mean row, the decision row), one layer, one head (or the mean over heads). ``level =
round(sqrt(weight) * steps)`` in one byte, so a weight's root is back within half a step. When not all planes fit even
with coarse steps, means over heads are kept first, then the heads with the largest lift; the page says so.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from einops import rearrange, reduce

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_style import Table

MEAN = -1
KINDS = ("map", "decision")
_STEPS = (255, 127, 63)
Plane = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Attention maps ready to embed."""

    planes: list[Plane] = field(default_factory=list)
    """(kind, layer, head) of each plane, in the order of the bytes; head -1 is the mean over heads."""
    steps: int = _STEPS[0]
    """Levels of the square-root scale."""
    maps: dict[str, str] = field(default_factory=dict)
    """For each example's key: base64 of the deflated levels, planes x tokens."""
    dropped: int = 0
    """Planes that did not fit."""


def pack(file: Path, keys: list[str], by_head: Table | None, budget: int, *, kinds: tuple[str, ...] = KINDS) -> Packed:
    """The maps of ``file`` in at most ``budget`` characters, as many and as fine as fit; none when not one plane does.

    Args:
        file: safetensors with ``KIND.KEY``, each (layer, head, token). Read one example at a time.
        keys: the examples wanted; those without a map are skipped.
        by_head: rows of the run's ``attention_by_head`` whose lift ranks the heads; None keeps their order.
        budget: characters of base64 allowed in all.
        kinds: maps of each example.

    Returns:
        Planes in the order (kind, layer, head).

    Raises:
        RunError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy") as handle:
            there = set(handle.keys())
            keys = [key for key in keys if all(f"{kind}.{key}" in there for kind in kinds)]
            if not keys:
                return Packed()
            n_layers, n_heads, _ = handle.get_slice(f"{kinds[0]}.{keys[0]}").get_shape()
            order = _priority(n_layers, n_heads, by_head, kinds)
            return _fit(handle, keys, order, budget)
    except SafetensorError as error:
        raise RunError(
            f"{file}: not readable as safetensors ({error}); run the probe again with --overwrite"
        ) from error


def unpack(text: str, n_planes: int, steps: int) -> np.ndarray:
    """(n_planes, token) float32 weights of one example: what the page's script computes."""
    levels = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return (rearrange(levels, "(plane token) -> plane token", plane=n_planes).astype(np.float32) / steps) ** 2


def _fit(handle, keys: list[str], order: list[Plane], budget: int) -> Packed:
    count, size = len(order), 0.0
    kinds = list(dict.fromkeys(kind for kind, _, _ in order))

    def place(plane: Plane) -> tuple[int, int, int]:
        return kinds.index(plane[0]), plane[1], plane[2]

    for steps in _STEPS:
        planes = sorted(order, key=place)
        maps, size = _encode(handle, keys, planes, steps, budget)
        if maps is not None:
            return Packed(planes=planes, steps=steps, maps=maps)
    count = int(count * budget / size)
    while count > 0:
        planes = sorted(order[:count], key=place)
        maps, _ = _encode(handle, keys, planes, _STEPS[-1], budget)
        if maps is not None:
            return Packed(planes=planes, steps=_STEPS[-1], maps=maps, dropped=len(order) - count)
        count = int(count * 0.96)
    return Packed(dropped=len(order))


def _encode(
    handle, keys: list[str], planes: list[Plane], steps: int, budget: int
) -> tuple[dict[str, str] | None, float]:
    """Every example's text and their characters; None, and an estimate, as soon as the budget is passed."""
    maps: dict[str, str] = {}
    size = 0
    for done, key in enumerate(keys, 1):
        kinds = {kind for kind, _, _ in planes}
        roots = {kind: np.rint(_roots(handle.get_tensor(f"{kind}.{key}")) * steps).astype(np.uint8) for kind in kinds}
        levels = np.stack([roots[kind][layer, head + 1] for kind, layer, head in planes])
        maps[key] = base64.b64encode(zlib.compress(levels.tobytes(), 6)).decode("ascii")
        size += len(maps[key]) + len(key) + 6
        if size > budget:
            return None, size * len(keys) / done
    return maps, size


def _roots(weights: np.ndarray) -> np.ndarray:
    """Square roots with the mean over heads as first column: (layer, 1 + head, token)."""
    weights = np.nan_to_num(weights.astype(np.float32), nan=0.0).clip(0, 1)
    mean = reduce(weights, "layer head token -> layer 1 token", "mean")
    return np.sqrt(np.concatenate([mean, weights], axis=1))


def _priority(n_layers: int, n_heads: int, by_head: Table | None, kinds: tuple[str, ...]) -> list[Plane]:
    """Means first (the last layer, which the paper reports, before others), then heads by largest lift."""
    lift: dict[tuple[int, int], float] = {}
    if by_head is not None and len(by_head):
        best = by_head.groupby(["layer", "head"])["lift"].max().dropna()
        lift = {(int(layer), int(head)): float(value) for (layer, head), value in best.items()}  # type: ignore[misc]
    layers = sorted(range(n_layers), key=lambda layer: (layer != n_layers - 1, _spread(layer)))
    means = [(kind, layer, MEAN) for layer in layers for kind in kinds]
    heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    heads.sort(key=lambda at: -lift.get(at, 0.0))
    return means + [(kind, layer, head) for layer, head in heads for kind in kinds]


def _spread(layer: int) -> float:
    """Radical inverse in base 2 (van der Corput): sorted by it, any first few layers lie spread over the depth."""
    value, base = 0.0, 0.5
    while layer:
        layer, bit = divmod(layer, 2)
        value, base = value + bit * base, base / 2
    return value
