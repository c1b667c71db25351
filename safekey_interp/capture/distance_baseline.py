"""Distance-matched baseline: the mass of a span if attention were a function of distance alone.

U lies right before K, so K attends to U partly because it is near; and every key as near as U *is* U, so no other keys
of K's own rows separate nearness from content. Rows of other tokens do. Suppose that in a layer and head attention is

    p[q, k] = f(q − k) / Z_q        for every key in sight but the first token, which may be a sink at any distance

where Z_q is the row's own normaliser: it differs from row to row, since later rows see more keys. Reference rows then
say what f is, up to a factor. Row r shows f only up to the distance n_r that it reaches, as if observations were
truncated there, and the product-limit estimator for truncated data (Lynden-Bell 1971, MNRAS 155:95; Woodroofe 1985,
Ann. Statist. 13:163) needs no Z_r: with C_r(d) = Σ_{d' ≤ d} p[r, r − d'],

    f(d) = F(d) · Σ_r p[r, r − d] / Σ_r C_r(d)        F(d − 1) = F(d) · Σ_r C_r(d − 1) / Σ_r C_r(d)

each sum over the rows that reach d, and F = 1 at the largest distance that any of them reaches. A row's share of a key
span S is predicted from its own mass on the keys compared:

    matched_mass = mean over q in Q of  M_q · Σ_{k in S} f(q − k) / Σ_k f(q − k)  +  what q gives to the rest of S

The sums go over the keys in sight at distances that a reference row reaches, the first token left out, and M_q is q's
mass on all of these. The rest of S, the first token and keys farther away, keeps its own mass: no reference row says
what it should be. So mass / matched_mass is 1 wherever attention is a function of distance alone (any shape, window or
sink), and nears 1 the more of S cannot be compared.

Reference rows: of U, without the token that decides (at most 32, evenly spread). A second reference, ``other``, are
rows of another sentence: for K those of the prompt, for the token that decides those of K (at most 16). Other query
spans have references of their own (:mod:`.reference_rows`). NaN where there is no reference row, where fewer than half
of the pairs of query and key in sight can be compared, for the first token alone, and from U itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from safekey_interp.capture.capture_request import RECIPE, SpanPairs
from safekey_interp.capture.key_sets import QueryRows, held_keys
from safekey_interp.capture.reference_rows import positions_of, references_of
from safekey_interp.models.encoding import Encoding

_LEAST_COMPARED = 0.5


class Baseline(NamedTuple):
    """What is predicted, and from which rows, for one kind of layer (full or windowed)."""

    query: Int64[np.ndarray, "batch query"]
    """Rows of K and the deciding one, as indices into :class:`~safekey_interp.capture.key_sets.QueryRows`."""
    weight: Float32[np.ndarray, "batch query_span query"]
    """1 / n_q on the rows of the span, 0 elsewhere."""
    in_span: Float32[np.ndarray, "batch query column distance"]
    """1 where the row sees a key of the key span at that distance; the last column is for all keys but the first."""
    row: Int64[np.ndarray, "batch row"]
    """Rows of all references, one reference after the other, as indices into ``QueryRows``."""
    key: Int64[np.ndarray, "batch row distance"]
    """Padded position at each distance before the row; that of the first token where the row does not reach it."""
    reaches: Float32[np.ndarray, "batch row distance"]
    """1 where the row sees a key at that distance that is not the first token, else 0."""
    sizes: tuple[int, ...]
    """Rows of each reference."""
    compared: Float32[np.ndarray, "batch reference query k_far"]
    """1 on the keys that are compared, up to the last that is not; all later ones are."""
    rest: Float32[np.ndarray, "batch reference query k_far key_span"]
    """1 on the keys that are of the key span and not compared."""
    defined: Bool[np.ndarray, "batch reference query_span key_span"]
    """Where the baseline is defined."""
    first: Int64[np.ndarray, " query_span"]
    """First reference of each query span; any where none has."""
    second: Int64[np.ndarray, " query_span"]
    """Second reference."""


def find_baseline(
    encodings: Sequence[Encoding],
    starts: Sequence[int],
    rows: QueryRows,
    visible: Bool[np.ndarray, "batch row k_pos"],
    spans: SpanPairs = RECIPE,
) -> Baseline:
    """Plan the baseline of a padded batch, given what each row sees; it depends on positions alone."""
    n, n_keys, n_spans = len(encodings), visible.shape[-1], len(spans.columns)
    references = references_of(spans)
    compared_queries = {name: f for f, name in enumerate(spans.queries) if references.first[f] is not None}
    none = np.zeros(0, np.int64)
    query_positions = [
        np.unique(np.concatenate([none, *(positions_of(e, name) for name in compared_queries)])) for e in encodings
    ]
    distance = np.arange(max(encoding.end for encoding in encodings))
    n_queries = max(1, *map(len, query_positions))
    query = np.zeros((n, n_queries), np.int64)
    weight = np.zeros((n, len(spans.queries), n_queries), np.float32)
    in_span = np.zeros((n, n_queries, n_spans + 1, len(distance)), np.float32)
    members = list(zip(*map(references.of, encodings), strict=True))
    sizes = [max(1, *map(len, of_trace)) for of_trace in members]
    begins = np.cumsum([0, *sizes])
    row = np.zeros((n, begins[-1]), np.int64)
    key = np.zeros((n, begins[-1], len(distance)), np.int64)
    reaches = np.zeros(key.shape, np.float32)
    far = np.zeros((n, len(members), n_queries, n_keys), bool)
    held = held_keys(encodings, starts, spans, n_keys)
    defined = np.zeros((n, len(members), len(spans.queries), n_spans), bool)
    for b, (encoding, start, positions) in enumerate(zip(encodings, starts, query_positions, strict=True)):
        if not len(positions):
            continue
        filled = slice(len(positions))
        query[b, filled] = rows.of(b, positions, start)
        in_sight = visible[b, query[b, filled]]
        at, sees = _keys_at(distance, positions, start, in_sight)
        in_span[b, filled, :-1] = rearrange(held[b, at] & sees[..., None], "query distance span -> query span distance")
        in_span[b, filled, -1] = sees
        own = {f: np.isin(positions, positions_of(encoding, name)) for name, f in compared_queries.items()}
        for f, is_own in own.items():
            weight[b, f, filled] = is_own / max(1, is_own.sum())
        behind = np.clip(start + rearrange(positions, "query -> query 1") - np.arange(n_keys), 0, len(distance) - 1)
        for i, (begin, of_trace) in enumerate(zip(begins, members, strict=False)):
            if not len(of_trace[b]):
                continue
            part = slice(begin, begin + len(of_trace[b]))
            row[b, part] = rows.of(b, of_trace[b], start)
            key[b, part], seen = _keys_at(distance, of_trace[b], start, visible[b, row[b, part]])
            reaches[b, part] = seen
            reached = np.asarray(seen.any(axis=0))
            far[b, i, filled] = in_sight & ~reached[behind]
            far[b, i, filled, start] = True
            pairs = in_span[b, filled, :-1]
            for f, is_own in own.items():
                enough = pairs[is_own] @ (reached - _LEAST_COMPARED)  # compared pairs minus half of all
                before = held[b, start + 1 : start + 1 + positions[is_own].max(initial=0)].any(axis=0)
                defined[b, i, f] = is_own.any() & (enough.sum(0) >= 0) & before
    last = np.flatnonzero(far.any(axis=(0, 1, 2)))
    far = far[..., : last[-1] + 1 if len(last) else 1]
    rest = far[..., None] & rearrange(held[:, : far.shape[-1]], "batch key span -> batch 1 1 key span")
    compared, rest = (~far).astype(np.float32), rest.astype(np.float32)
    first, second = (np.array([at or 0 for at in which]) for which in (references.first, references.second))
    sizes = tuple(sizes)
    return Baseline(query, weight, in_span, row, key, reaches, sizes, compared, rest, defined, first, second)


def on_device(baseline: Baseline, device: torch.device) -> tuple[Any, ...]:
    """The arrays as tensors, as :func:`matched_masses` takes them."""
    return tuple(torch.as_tensor(part, device=device) if isinstance(part, np.ndarray) else part for part in baseline)


def matched_masses(
    pattern: Float[Tensor, "batch head row k_pos"], baseline: Sequence[Any]
) -> tuple[Float[Tensor, "batch head query_span key_span"], Float[Tensor, "batch head query_span key_span"]]:
    """The baseline of each pair of spans from the first reference's rows, and from the second's.

    Args:
        pattern: the rows' pattern, what a sink takes taken off.
        baseline: from :func:`find_baseline`, by :func:`on_device`.
    """
    query, weight, in_span, row, key, reaches, sizes, compared, rest, defined, first, second = baseline
    n_far = compared.shape[-1]
    rows = pattern[torch.arange(len(query), device=query.device)[:, None], :, query]
    far = rows[..., :n_far]
    near = rearrange(rows[..., n_far:].sum(-1), "b q h -> b 1 h q") + einsum(
        far, compared, "b q h k, b e q k -> b e h q"
    )
    own = einsum(far, rest, "b q h k, b e q k s -> b e h q s")
    functions = rearrange(_functions_of_distance(pattern, row, key, reaches, sizes), "b e h d -> b (e h) d")
    sums = functions @ rearrange(in_span, "b q c d -> b d (q c)")
    sums = rearrange(sums, "b (e h) (q c) -> b e h q c", e=len(sizes), c=in_span.shape[2])
    shares = sums[..., :-1] / sums[..., -1:].clamp(min=torch.finfo(sums.dtype).tiny)
    baselines = einsum(weight, near[..., None] * shares + own, "b f q, b e h q s -> e b h f s")
    baselines = baselines.masked_fill(~rearrange(defined, "b e f s -> e b 1 f s"), torch.nan)
    of_query = torch.arange(len(first), device=first.device)
    from_first, from_second = (
        rearrange(baselines[which, :, :, of_query], "f b h s -> b h f s") for which in (first, second)
    )
    return from_first, from_second


def _functions_of_distance(
    pattern: Float[Tensor, "batch head row_2 k_pos"],
    row: Int64[Tensor, "batch row"],
    key: Int64[Tensor, "batch row distance"],
    reaches: Float[Tensor, "batch row distance"],
    sizes: Sequence[int],
) -> Float[Tensor, "batch reference head distance"]:
    """f of each reference up to a factor, by the product-limit estimator; 0 where none of its rows reaches."""
    n_heads, n_keys = pattern.shape[1], pattern.shape[-1]
    place = rearrange(row[..., None] * n_keys + key, "b r d -> b 1 (r d)").expand(-1, n_heads, -1)
    taken = rearrange(pattern, "b h r k -> b h (r k)").gather(-1, place)
    taken = rearrange(taken, "b h (r d) -> b h r d", r=row.shape[1]).mul_(reaches[:, None])
    # Σ C_r(d − 1) over the rows that reach d: over all rows, minus what those give that end before. In doubles, where a
    # device has them, since it is a difference.
    wide = torch.float32 if pattern.device.type == "mps" else torch.float64
    at = torch.stack([part.sum(2) for part in taken.split(sizes, dim=2)], dim=1).to(wide)
    totals, ends = taken.sum(3), 1 - reaches[..., 1:]
    ended = torch.stack([t @ e for t, e in zip(totals.split(sizes, 2), ends.split(sizes, 1), strict=True)], dim=1)
    below = (at.cumsum(-1)[..., :-1] - ended).clamp(min=0)
    tiny = torch.finfo(torch.float32).tiny
    both = at[..., 1:] + below
    fall = torch.where(both > tiny, below / both.clamp(min=tiny), 1.0)
    hazard = torch.cat([(at[..., :1] > 0).to(wide), at[..., 1:] / both.clamp(min=tiny)], dim=-1)
    left = torch.cat([fall.flip(-1).cumprod(-1).flip(-1), torch.ones_like(at[..., :1])], dim=-1)
    return (hazard * left).to(pattern.dtype)


def _keys_at(
    distance: np.ndarray, positions: np.ndarray, start: int, visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Padded position of the key at each distance before each position, and whether it is in sight and not the first
    token; the first token's own place where there is none."""
    key = rearrange(positions, "row -> row 1") - distance
    inside = key >= 1
    key = np.where(inside, key + start, start)
    return key, inside & np.take_along_axis(visible, key, axis=-1)
