"""Attention knockout: chosen queries of a forward pass do not see chosen keys.

After Geva et al. 2023 (arXiv 2304.14767): in the chosen layers and heads, what the layer's own mask shows (causal,
sliding window, padding) and the knockout hides is hidden. A mask in place of the layer's own would show what the window
hides; so the two are joined inside the attention hook, layer by layer. A query that lies in the span itself (the last
token of U may be the one before K) loses its own key, too, unless it would then see nothing at all.

A control hides a random set of keys: as many as the tested span has in sight of the first of the queries behind it in
that kind of layer (full or windowed), drawn evenly without replacement from the pool: the keys before that query that
it sees, outside the span, the first token and what else is to be avoided (the other tested spans). Where no query lies
behind the span, which reaches among the queries then, the last of them counts. Where the pool of any kind of layer is
smaller than the span in sight there, no set is drawn and nothing is hidden: a smaller set would be a weaker change
(:attr:`Knockout.is_short`).

A dose hides a random share of the span; the sets of one draw are nested, so that a larger dose hides all that a smaller
one does. A set depends on the seed, the trace, the span and the draw's number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int64
from torch import Tensor

from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.key_sets import words_of
from safekey_interp.models.model import Model

_UNSEEN = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What one row of a batch may not see."""

    trace_id: str
    """The trace, for the draws."""
    queries: tuple[int, ...]
    """Positions that may not see the keys, ascending; an empty one changes nothing."""
    keys: tuple[int, ...]
    """Positions of the tested span, ascending."""
    layers: frozenset[int]
    """Layers in which they may not."""
    heads: frozenset[int] | None = None
    """Heads in which they may not; all when None."""
    draw: int | None = None
    """The number of a random set: keys elsewhere in the span's place, or with ``dose`` a part of it; None for the span
    itself."""
    dose: float | None = None
    """Share of the span that a draw hides, in (0, 1); None for a set elsewhere."""
    avoid: tuple[int, ...] = ()
    """Further positions, apart from the span and the first token, that no set elsewhere may hold."""

    @property
    def reference(self) -> int:
        """The query whose sight counts: the first that could see the whole span, else the last."""
        end = self.keys[-1] if self.keys else 0
        return next((query for query in self.queries if query >= end), self.queries[-1])

    @property
    def n_needed(self) -> int:
        """Tokens of the row that a pass has to have: its keys, and the query whose sight counts."""
        return max(self.keys[-1] + 1 if self.keys else 0, self.reference + 1 if self.queries else 0)


class Sight(NamedTuple):
    """Keys that one row's cut hides in one kind of layer."""

    keys: np.ndarray
    """Positions that are hidden."""
    n_span: int
    """Keys of the tested span that the reference query sees."""
    n_pool: int
    """Keys that a random set elsewhere can be drawn from."""


class Knockout:
    """The cuts of a batch, one a row; joins each layer's mask with them."""

    def __init__(
        self,
        cuts: Sequence[Cut],
        *,
        n_heads: int,
        starts: Sequence[int] | None = None,
        depths: Int64[Tensor, "row pos"] | None = None,
        seed: int = 0,
    ) -> None:
        """Begin without having seen a layer.

        Args:
            cuts: one a row of the batch.
            n_heads: heads of the model.
            starts: position of each row's first token, where rows are padded on the left.
            depths: of rows that are token trees (:mod:`.token_trees`), how far behind the beginning each token of a
                pass is; keys then lie in the beginning, and the query whose sight counts comes first behind it.
            seed: seed of the draws.
        """
        self.cuts = tuple(cuts)
        """One a row of the batch."""
        self.n_keys = np.zeros(len(self.cuts), np.int64)
        """Most keys in sight that were cut from each row in any layer; filled by the forward pass."""
        self.n_pool = np.full(len(self.cuts), _UNSEEN, np.int64)
        """Fewest keys that a set elsewhere could be drawn from, over the layers in which a row is cut; the same."""
        self.is_short = np.zeros(len(self.cuts), bool)
        """Rows whose pool is smaller than the span in sight in some layer: a set elsewhere hides nothing; the same."""
        self._starts, self._depths, self._seed = list(starts or [0] * len(self.cuts)), depths, seed
        self._rows_of = {
            layer: torch.tensor([layer in cut.layers for cut in self.cuts])
            for layer in frozenset[int]().union(*(cut.layers for cut in self.cuts))
        }
        self._heads = None
        if any(cut.heads is not None for cut in self.cuts):
            self._heads = torch.tensor(
                [[cut.heads is None or head in cut.heads for head in range(n_heads)] for cut in self.cuts]
            )
        self._drawn: dict[bytes, tuple[Tensor, list[Sight]]] = {}
        self._queries: Tensor | None = None
        self._joined: dict[int, tuple[Tensor | None, Tensor, Tensor]] = {}

    @property
    def layers(self) -> frozenset[int]:
        """Layers in which anything is cut."""
        return frozenset(self._rows_of)

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """The layer's mask joined with the cuts; called by the attention hook."""
        rows = self._rows_of.get(module.layer_idx)
        if rows is None:
            return attention_mask
        visible = causal_or(attention_mask, query.shape[2], key.shape[2], query.device)
        # Layers of a kind have one mask, and most cuts are alike in all of them.
        own, of, joined = self._joined.get(id(attention_mask), (visible, rows, visible))
        if own is not attention_mask or not torch.equal(of, rows) or joined.shape[2:] != visible.shape[2:]:
            joined = without(visible, self.hidden(module.layer_idx, visible))
            self._joined[id(attention_mask)] = attention_mask, rows, joined
        return joined

    def hidden(self, layer: int, mask: Tensor) -> Bool[Tensor, "batch _ q_pos k_pos"]:
        """What the cuts of a layer hide.

        Args:
            layer: the layer.
            mask: (#batch, #head, q_pos, k_pos) its own mask, True or about 0 where a query sees a key; the keys begin
                with the sequence's first, the queries may begin later.
        """
        n_queries, n_keys = mask.shape[-2:]
        offset = n_keys - n_queries
        visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        by_all_heads = visible.any(dim=1).expand(len(self.cuts), -1, -1)
        keys = self._keys(layer, by_all_heads, offset)
        queries = self._queries_of(n_queries, offset) & rearrange(self._rows_of[layer], "b -> b 1")
        pairs = rearrange(queries.to(mask.device), "b q -> b 1 q 1") & rearrange(keys, "b k -> b 1 1 k")
        pairs = sparing_blind(visible, pairs)
        return pairs if self._heads is None else pairs & rearrange(self._heads.to(mask.device), "b h -> b h 1 1")

    def _queries_of(self, n_queries: int, offset: int) -> Bool[Tensor, "batch q_pos"]:
        """The queries of each row's cut: the same in every layer."""
        if self._queries is None:
            queries = [cut.queries for cut in self.cuts]
            self._queries = chosen_queries(queries, self._starts, n_queries, offset, self._depths)
        return self._queries

    def _keys(self, layer: int, visible: Bool[Tensor, "batch q_pos k_pos"], offset: int) -> Bool[Tensor, "batch k_pos"]:
        """Keys that each row's cut hides, for layers that see what ``visible`` says: made once for each kind."""
        n = len(self.cuts)
        references = [
            cut.reference + start if cut.queries else offset for cut, start in zip(self.cuts, self._starts, strict=True)
        ]
        rows = torch.arange(n, device=visible.device), torch.tensor(references, device=visible.device) - offset
        seen = visible[rows].cpu().numpy()
        kind = seen.tobytes()
        if kind not in self._drawn:
            keys = np.zeros(seen.shape, bool)
            sights = []
            for row, (cut, start) in enumerate(zip(self.cuts, self._starts, strict=True)):
                sights.append(sight_of(cut, seen[row, start:], self._seed))
                keys[row, sights[-1].keys + start] = True
            self._drawn[kind] = torch.as_tensor(keys, device=visible.device), sights
        hidden, sights = self._drawn[kind]
        for row in self._rows_of[layer].nonzero()[:, 0].tolist():
            sight, start = sights[row], self._starts[row]
            self.n_keys[row] = max(self.n_keys[row], int(seen[row, sight.keys + start].sum()))
            self.n_pool[row] = min(self.n_pool[row], sight.n_pool)
            self.is_short[row] |= sight.n_pool < sight.n_span
        return hidden


def sight_of(cut: Cut, seen: Bool[np.ndarray, " k_pos"], seed: int) -> Sight:
    """What a cut hides where its reference query sees ``seen``: the span, a part of it, or a random set elsewhere.

    Args:
        cut: the cut.
        seen: keys that its reference query sees in this kind of layer.
        seed: seed of the draws.

    Returns:
        No key for a set elsewhere where the pool is smaller than the span in sight.
    """
    span = np.asarray(cut.keys, dtype=np.int64)
    if not cut.queries:
        return Sight(span, 0, 0)
    n = int(seen[span].sum())
    pool = np.setdiff1d(np.flatnonzero(seen[: cut.reference]), [*cut.keys, *cut.avoid, 0])
    keys = span
    if cut.draw is not None and cut.dose is not None:
        keys = part_of(cut, seed)
    elif cut.draw is not None:
        keys = _stream(cut, seed, "elsewhere").permutation(pool)[:n] if len(pool) >= n else span[:0]
    return Sight(keys, n, len(pool))


def part_of(cut: Cut, seed: int) -> np.ndarray:
    """A random share of a cut's span, in expectation ``dose`` of it; the parts of one draw are nested."""
    assert cut.dose is not None
    stream = _stream(cut, seed, "part")
    order = stream.permutation(np.asarray(cut.keys, dtype=np.int64))
    # The same offset for all doses of a draw: nested, and in expectation the share that the dose names.
    return order[: int(np.floor(cut.dose * len(order) + stream.random()))]


def _stream(cut: Cut, seed: int, what: str) -> np.random.Generator:
    """The stream of one draw; of one trace, spans of other places have other streams."""
    place = (cut.keys[0], len(cut.keys)) if cut.keys else (0, 0)
    assert cut.draw is not None
    return np.random.default_rng([seed, cut.draw, *place, len(what), *words_of(cut.trace_id)])


def chosen_queries(
    queries: Sequence[Sequence[int]],
    starts: Sequence[int],
    n_queries: int,
    offset: int,
    depths: Int64[Tensor, "row pos"] | None = None,
) -> Bool[Tensor, "batch q_pos"]:
    """Which queries of a pass are meant in each row.

    Args:
        queries: positions in the trace, one list a row; those behind the pass's last are in none.
        starts: position of each row's first token.
        n_queries: queries of the pass.
        offset: position of its first query.
        depths: how far behind it each query's position is; one after another when None.
    """
    behind = np.tile(np.arange(n_queries), (len(queries), 1)) if depths is None else depths.numpy()
    chosen = [
        np.isin(behind[row], np.asarray(positions, dtype=np.int64) + (start - offset))
        for row, (positions, start) in enumerate(zip(queries, starts, strict=True))
    ]
    return torch.as_tensor(np.stack(chosen))


def sparing_blind(
    visible: Bool[Tensor, "_ _ q_pos k_pos"], hidden: Bool[Tensor, "batch heads q_pos k_pos"]
) -> Bool[Tensor, "batch heads q_pos k_pos"]:
    """What is hidden, less the own key of each query that would else see nothing; the last query's is the last key."""
    n_queries, n_keys = hidden.shape[-2:]
    blind = ~(visible & ~hidden).any(dim=-1, keepdim=True)
    keys = torch.arange(n_keys, device=hidden.device)
    own = keys == rearrange(keys[n_keys - n_queries :], "q -> q 1")
    return hidden & ~(blind & own)


def causal_or(attention_mask: Tensor | None, n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """A layer's mask; where it has none, the causal one, the last query on the last key."""
    if attention_mask is not None:
        return attention_mask[..., :n_keys]
    last = torch.arange(n_queries, device=device) + (n_keys - n_queries)
    visible = torch.arange(n_keys, device=device) <= rearrange(last, "q -> q 1")
    return rearrange(visible, "q k -> 1 1 q k")


def without(mask: Tensor, hidden: Bool[Tensor, "batch head q_pos k_pos"]) -> Tensor:
    """A mask, of truths or to be added, that shows no pair that is ``hidden``."""
    if mask.dtype == torch.bool:
        return mask & ~hidden
    return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)


def knocked_out(model: Model, knockout: Knockout) -> AbstractContextManager[Knockout]:
    """A block in which every forward of ``model.hf`` hides what the knockout hides; raises ModelError as
    :func:`~safekey_interp.capture.attention_hook.observed_attention` does."""
    return observed_attention(model.hf, knockout)
