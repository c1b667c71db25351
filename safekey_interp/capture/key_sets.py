"""Key sets: the weights of keys for spans, their random controls and the uniform baseline.

Mass is linear in the attention pattern, so the mean over random key sets needs no set by itself: each key is weighted
by the share of draws that hold it. One matrix product inside the hook then gives the mass on every span and on its
control.

A random set has as many keys as the tested span, drawn evenly without replacement among the keys that every row of the
query span sees, outside the tested span and the first token. (The control for distance is in
:mod:`safekey_interp.capture.distance_baseline`.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import einsum, reduce, repeat
from jaxtyping import Bool, Float

from safekey_interp.capture.capture_request import RECIPE, SpanPairs
from safekey_interp.capture.reference_rows import positions_of, references_of
from safekey_interp.models.encoding import Encoding


@dataclass(frozen=True, kw_only=True)
class QueryRows:
    """The rows of the attention pattern that a batch needs, each once."""

    index: np.ndarray
    """(batch, row) positions in the padded sequence; spare places repeat a row of weight 0."""
    weights: np.ndarray
    """(batch, query_span, row) float32: 1 / n_q on the rows of the span, 0 elsewhere."""
    counts: np.ndarray
    """(batch, query_span) rows of each span; 0 where absent."""
    n_rows: np.ndarray
    """(batch) rows of each trace; what comes after them in ``index`` is spare."""

    def of(self, b: int, positions: Sequence[int] | np.ndarray, start: int) -> np.ndarray:
        """Indices into ``index[b]`` of some of its rows.

        Args:
            b: the trace.
            positions: of the rows in its encoding, each read.
            start: position of its first token in the padded sequence.
        """
        return np.searchsorted(self.index[b, : self.n_rows[b]], np.asarray(positions, dtype=np.int64) + start)


@dataclass(frozen=True, kw_only=True)
class KeyWeights:
    """What the mean row of each query span is multiplied with, for one kind of layer (full or windowed)."""

    weights: Float[np.ndarray, "batch query_span k_pos column"]
    """Columns: the key spans, then the random control of each, then ones."""
    uniform: Float[np.ndarray, "batch query_span key_span"]
    """Mass if each row spread its attention evenly over the keys that it sees."""
    even_key: Float[np.ndarray, "batch query_span"]
    """Mass of one key that all rows see, if they spread their attention evenly."""
    n_random: np.ndarray
    """(batch, query_span, key_span) keys of a random set: the span's count, or fewer where fewer are in sight."""


def query_rows(encodings: Sequence[Encoding], starts: Sequence[int], spans: SpanPairs = RECIPE) -> QueryRows:
    """Find the rows of the query spans in a padded batch, and the reference rows of their baseline."""
    per_row = [[positions_of(encoding, name) for name in spans.queries] for encoding in encodings]
    references = references_of(spans)
    needed = [
        np.unique(np.concatenate([*queries, *(references.of(encoding) if any(map(len, queries)) else ())]))
        for encoding, queries in zip(encodings, per_row, strict=True)
    ]
    width = max(1, *(len(rows) for rows in needed))
    index = np.zeros((len(encodings), width), np.int64)
    weights = np.zeros((len(encodings), len(spans.queries), width), np.float32)
    counts = np.zeros((len(encodings), len(spans.queries)), np.int64)
    for b, (queries, rows, start) in enumerate(zip(per_row, needed, starts, strict=True)):
        index[b] = start + (rows[0] if len(rows) else 0)
        index[b, : len(rows)] = rows + start
        for f, positions in enumerate(queries):
            counts[b, f] = len(positions)
            if len(positions):
                weights[b, f, np.searchsorted(rows, positions)] = 1 / len(positions)
    return QueryRows(index=index, weights=weights, counts=counts, n_rows=np.array(list(map(len, needed))))


def key_weights(
    encodings: Sequence[Encoding],
    starts: Sequence[int],
    rows: QueryRows,
    visible: Bool[np.ndarray, "batch row k_pos"],
    *,
    n_random: int,
    seed: int,
    spans: SpanPairs = RECIPE,
) -> KeyWeights:
    """Weights of every key for spans, controls and the total, given what each row sees."""
    n_keys, n_spans = visible.shape[-1], len(spans.columns)
    shape = (len(encodings), len(spans.queries))
    held = held_keys(encodings, starts, spans, n_keys).astype(np.float32)
    random = np.zeros((*shape, n_keys, n_spans), np.float32)
    drawn = np.zeros((*shape, n_spans), np.int64)
    for b, (encoding, start) in enumerate(zip(encodings, starts, strict=True)):
        stream = np.random.default_rng([seed, *words_of(encoding.trace_id)])
        for f in range(shape[1]):
            of_span = rows.weights[b, f] > 0
            if not of_span.any():
                continue
            seen = visible[b, of_span].all(axis=0)
            seen[start] = False
            for t in range(n_spans):
                candidates = np.flatnonzero(seen & (held[b, :, t] == 0))
                drawn[b, f, t] = n = min(int(held[b, :, t].sum()), len(candidates))
                if n:
                    random[b, f, candidates, t] = _draw_shares(len(candidates), n, n_random, stream)
    ones = np.ones((*shape, n_keys, 1), np.float32)
    weights = np.concatenate(
        [repeat(held, "batch key span -> batch query key span", query=shape[1]), random, ones], axis=-1
    )
    per_row = visible / np.maximum(visible.sum(-1, keepdims=True), 1)
    even = einsum(rows.weights, per_row.astype(np.float32), "batch query row, batch row key -> batch query key")
    uniform = einsum(even, held, "batch query key, batch key span -> batch query span")
    even_key = einsum(rows.weights, 1 / np.maximum(visible.sum(-1), 1), "batch query row, batch row -> batch query")
    return KeyWeights(weights=weights, uniform=uniform, even_key=even_key.astype(np.float32), n_random=drawn)


def held_keys(
    encodings: Sequence[Encoding], starts: Sequence[int], spans: SpanPairs, n_keys: int
) -> Bool[np.ndarray, "batch k_pos key_span"]:
    """Which keys each key span holds, in a padded batch; those behind the last row that is read are in none."""
    held = np.zeros((len(encodings), n_keys, len(spans.columns)), bool)
    for b, (encoding, start) in enumerate(zip(encodings, starts, strict=True)):
        for t, name in enumerate(spans.columns):
            where = positions_of(encoding, name)
            held[b, where[where < encoding.end] + start, t] = True
    return held


def _draw_shares(
    n_candidates: int, n: int, n_draws: int, stream: np.random.Generator
) -> Float[np.ndarray, " candidate"]:
    """Share of draws, of ``n`` candidates each without replacement, that hold each candidate."""
    if n == n_candidates:
        return np.ones(n_candidates)
    chosen = np.argpartition(stream.random((n_draws, n_candidates)), n - 1, axis=-1)[:, :n]
    held = np.zeros((n_draws, n_candidates))
    np.put_along_axis(held, chosen, 1.0, axis=-1)
    return reduce(held, "draw candidate -> candidate", "mean")


def words_of(trace_id: str) -> list[int]:
    """A trace's own part of a seed."""
    digest = hashlib.sha256(trace_id.encode("utf-8", "surrogatepass")).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
