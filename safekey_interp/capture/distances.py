"""What would a span get if its keys counted for their distance alone?

U lies right before K, so K looks at U partly because it is near; and every key as near as U *is* U, so no set of other
keys of K's own rows can tell the two apart. Other rows can. The rows of U read the same trace in the same layer and
head, one sentence earlier: what they give, on average, to a key at distance d is what distance d is worth there,

    A(d) = mean over q' in U of p[q', q' − d]

and the control of a query span Q and a key span S is what Q would give to S at that rate:

    matched_mass = mean over q in Q of Σ_{k in S, k ≤ q} A(q − k)

The first token counts in neither: it is a sink at any distance. At most 32 rows of U are read, evenly spread. Distances
that no row of U can reach are left out and the rest scaled up; NaN where less than half is reached, where there is no
U, and from U itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from safekey_interp.capture.keysets import QueryRows
from safekey_interp.capture.request import KEY_SPANS, QUERY_SPANS
from safekey_interp.encoding import Encoding

_MOST_ROWS = 32
_LEAST_REACHED = 0.5


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Which entries of the rows' pattern show what a distance is worth, and how often each distance is asked for."""

    row: Int64[np.ndarray, "batch reference"]
    """Rows of U, as indices into :class:`QueryRows`."""
    key: Int64[np.ndarray, "batch reference distance"]
    """Position at each distance before the row; 0 where there is none."""
    weight: Float32[np.ndarray, "batch reference distance"]
    """1 / the number of rows that reach the distance, 0 where this one does not."""
    asked: Float32[np.ndarray, "batch query_span key_span distance"]
    """Pairs at each distance, per query row; NaN where the control is undefined."""


def find_distances(encodings: Sequence[Encoding], starts: Sequence[int], rows: QueryRows) -> Distances:
    """Plan the control of a padded batch; it depends on positions alone."""
    references = [_spread(encoding.positions("understanding")) for encoding in encodings]
    n_rows = max(1, *(len(reference) for reference in references))
    n_distances = max(encoding.end for encoding in encodings)
    row = np.zeros((len(encodings), n_rows), np.int64)
    key = np.zeros((len(encodings), n_rows, n_distances), np.int64)
    weight = np.zeros((len(encodings), n_rows, n_distances), np.float32)
    asked = np.full((len(encodings), len(QUERY_SPANS), len(KEY_SPANS), n_distances), np.nan, np.float32)
    for b, (encoding, start, reference) in enumerate(zip(encodings, starts, references, strict=True)):
        if not len(reference):
            continue
        row[b, : len(reference)] = np.searchsorted(_own_rows(rows, b), reference + start)
        position = rearrange(reference, "row -> row 1") - np.arange(n_distances)
        reached = position >= 1
        key[b, : len(reference)] = np.where(reached, position + start, 0)
        weight[b, : len(reference)] = reached / np.maximum(reached.sum(0), 1)
        seen = np.asarray(reached.any(axis=0))
        for f, query in enumerate(QUERY_SPANS):
            for t, span in enumerate(KEY_SPANS):
                if query != "understanding":
                    asked[b, f, t] = _asked(encoding.positions(query), encoding.positions(span), seen)
    # Distances beyond the furthest that is asked for cost and say nothing.
    used = np.flatnonzero(np.nan_to_num(asked).any(axis=(0, 1, 2)))
    kept = slice(0, int(used[-1]) + 1 if len(used) else 1)
    return Distances(row=row, key=key[..., kept], weight=weight[..., kept], asked=asked[..., kept])


def matched_mass(
    pattern: Float[Tensor, "batch head row k_pos"],
    row: Int64[Tensor, "batch reference"],
    key: Int64[Tensor, "batch reference distance"],
    weight: Float[Tensor, "batch reference distance"],
    asked: Float[Tensor, "batch query_span key_span distance"],
) -> Float[Tensor, "batch head query_span key_span"]:
    """The control of each pair of spans, from the rows' pattern (sinks taken off); see :class:`Distances`."""
    n_keys = pattern.shape[-1]
    place = rearrange(rearrange(row, "b n -> b n 1") * n_keys + key, "b n d -> b 1 (n d)")
    flat = rearrange(pattern, "b h r k -> b h (r k)")
    taken = flat.gather(-1, place.expand(-1, pattern.shape[1], -1))
    worth = einsum(rearrange(taken, "b h (n d) -> b h n d", n=row.shape[1]), weight, "b h n d, b n d -> b h d")
    return einsum(worth, asked, "b h d, b f t d -> b h f t")


def _spread(positions: Sequence[int]) -> np.ndarray:
    where = np.asarray(positions, dtype=np.int64)
    if len(where) <= _MOST_ROWS:
        return where
    return where[np.linspace(0, len(where) - 1, _MOST_ROWS).round().astype(np.int64)]


def _own_rows(rows: QueryRows, b: int) -> np.ndarray:
    """The rows of one trace, ascending, spare places cut off."""
    index = rows.index[b]
    return index[: int((rows.weights[b] > 0).any(axis=0).sum())]


def _asked(queries: Sequence[int], keys: Sequence[int], reached: np.ndarray) -> np.ndarray:
    """Pairs at each distance for one query row on average, scaled to what rows of U reach."""
    first = np.asarray(keys, dtype=np.int64)
    distance = np.subtract.outer(np.asarray(queries, dtype=np.int64), first[first > 0])
    counts = np.bincount(distance[distance >= 0], minlength=len(reached))[: len(reached)].astype(np.float64)
    within = counts * reached
    if not counts.sum() or within.sum() < _LEAST_REACHED * counts.sum():
        return np.full(len(reached), np.nan, np.float32)
    return (within * (counts.sum() / within.sum()) / len(queries)).astype(np.float32)


def on_device(distances: Distances, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arrays as tensors, in the order of :func:`matched_mass`."""
    parts = (distances.row, distances.key, distances.weight, distances.asked)
    row, key, weight, asked = (torch.as_tensor(part, device=device) for part in parts)
    return row, key, weight, asked
