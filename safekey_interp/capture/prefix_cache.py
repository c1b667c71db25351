"""Prefix cache: keys and values of shared beginnings, computed once for many continuations.

Causality: what comes behind a beginning changes no state in it. So its keys and values are computed once, and each
continuation, a row of a batch, sees them as its own past. transformers' own cache would copy them into every row and
every layer at once; here a row's copy lives for one layer's attention. Beginnings are padded on the left, where the
distances that a sliding window counts stay what they are.

Only attention layers have such a past, and only where rotary positions do not depend on what follows. Where a model has
other layers (linear attention), or rotary positions that change with the length (dynamic, longrope), nothing is cached,
and continuations are whole sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from safekey_interp.capture.architecture import rope_kind
from safekey_interp.models.model import Model

_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


class PrefixCache:
    """Tokens that continuations have before them."""

    def __init__(self, model: Model, ids: Sequence[Int64[Tensor, " pos"]]) -> None:
        """Run beginnings through the model, in one pass.

        Args:
            model: the model.
            ids: tokens of each; may be none.
        """
        self.lengths = [len(beginning) for beginning in ids]
        """Tokens of each beginning."""
        self.width = max(self.lengths)
        """Tokens of the longest: every row's own first token is at this position."""
        self._model = model
        self._past: list[tuple[Tensor, Tensor]] = []
        self._last = torch.zeros(0)
        if self.width:
            rows = torch.zeros((len(ids), self.width), dtype=torch.int64)
            for row, beginning in zip(rows, ids, strict=True):
                row[self.width - len(beginning) :] = beginning
            cache = DynamicCache()
            options: dict[str, Any] = dict(self._places(list(range(len(ids))), 0))
            options |= {"past_key_values": cache, "use_cache": True}
            self._last = self._forward(rows, self.width - 1, options)[:, -1]
            self._past = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[misc]

    def starts(self, of: Sequence[int]) -> list[int]:
        """Position of each row's first token, beginning included: what the padding shifts by."""
        return [self.width - self.lengths[number] for number in of]

    def next_logprobs(self, of: Sequence[int], next_ids: Sequence[int]) -> Float[Tensor, " row"]:
        """Log-probability of the first token of continuations, float64 on the CPU.

        Args:
            of: the beginning of each row; none may be empty.
            next_ids: the row's first token.
        """
        beginnings = sorted(set(of))
        places = [beginnings.index(number) for number in of]
        return self._last[beginnings].float().log_softmax(-1)[places, list(next_ids)].double().cpu()

    def logits(
        self,
        rows: Int64[Tensor, "row pos"],
        of: Sequence[int],
        first: int = 0,
        depths: Int64[Tensor, "row pos"] | None = None,
    ) -> Float[Tensor, "row pos_2 d_vocab"]:
        """Logits of continuations.

        Args:
            rows: tokens behind the beginnings, padded on the right, where causality hides the padding; may be none.
            of: the beginning of each row.
            first: logits of earlier tokens of the rows are not computed.
            depths: how far behind the beginning each token's position is; one after another when None.
        """
        width = rows.shape[1]
        if not width:
            return self._last.new_zeros((len(rows), 0, self._model.n_embeddings))
        options: dict[str, Any] = {"use_cache": False}
        if self.width:
            index = torch.tensor(list(of), device=self._model.device)
            layers: list[Any] = [_Past(keys, values, index) for keys, values in self._past]
            options = {"past_key_values": Cache(layers=layers), "use_cache": True} | self._places(of, width, depths)
        return self._forward(rows, first, options)

    def _forward(self, rows: Int64[Tensor, "row pos"], first: int, options: dict[str, Any]) -> Tensor:
        """Logits of one pass from a position on."""
        hf = self._model.hf
        if "logits_to_keep" in inspect.signature(hf.forward).parameters:
            options["logits_to_keep"] = rows.shape[1] - first
            return hf(input_ids=rows.to(self._model.device), **options).logits
        return hf(input_ids=rows.to(self._model.device), **options).logits[:, first:]

    def _places(self, of: Sequence[int], n_new: int, depths: Tensor | None = None) -> dict[str, Tensor]:
        """Positions of the tokens of a pass, and a mask where beginnings are padded: of the beginnings themselves, or
        of ``n_new`` tokens behind them, at some depths."""
        device = self._model.device
        starts = torch.tensor(self.starts(of), device=device)[:, None]
        columns = torch.arange(self.width + n_new, device=device)
        own = columns[self.width if n_new else 0 :] if depths is None else self.width + depths.to(device)
        positions = (own - starts).clamp(min=0)
        if not bool((starts > 0).any()):
            return {"position_ids": positions}
        return {"position_ids": positions, "attention_mask": (columns >= starts).long()}


class KeptPrefix:
    """The beginnings that were computed last, for calls that have the same ones."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ids: list[Int64[Tensor, " pos"]] = []
        self._cache: PrefixCache | None = None

    def of(self, ids: Sequence[Int64[Tensor, " pos"]]) -> PrefixCache:
        """As :class:`PrefixCache`."""
        is_same = len(ids) == len(self._ids) and all(map(torch.equal, ids, self._ids))
        if self._cache is None or not is_same:
            self._ids, self._cache = list(ids), PrefixCache(self._model, ids)
        return self._cache


def common_prefix(rows: Sequence[Int64[Tensor, " pos"]], at_most: int) -> int:
    """Tokens that all rows begin with, and no more than ``at_most``."""
    n = min([at_most, *(len(row) for row in rows)])
    first = rows[0][:n]
    differs = torch.zeros(n, dtype=torch.bool)
    for row in rows[1:]:
        differs |= row[:n] != first
    where = differs.nonzero()
    return int(where[0]) if len(where) else n


def has_prefix_cache(model: Model) -> bool:
    """Whether a beginning can be computed apart: all layers are attention, and positions do not depend on the end."""
    if rope_kind(model.config) in ("dynamic", "longrope"):
        return False
    kinds = getattr(model.config, "layer_types", None)
    parts = (model.hf, model.hf.get_decoder())
    takes = all("past_key_values" in inspect.signature(part.forward).parameters for part in parts)
    return takes and set(kinds or _ATTENTION) <= _ATTENTION


def beginning_of(cache: DynamicCache, n: int) -> DynamicCache:
    """The first ``n`` tokens of a cache that holds all it was given, as a cache that shares its memory: what either
    reads afterwards lies in tensors of its own."""
    beginning = DynamicCache()
    for layer in cache.layers:
        shared = DynamicLayer()
        shared.keys, shared.values = layer.keys[..., :n, :], layer.values[..., :n, :]  # type: ignore[index]
        shared.dtype, shared.device, shared.is_initialized = shared.keys.dtype, shared.keys.device, True
        beginning.layers.append(shared)
    return beginning


class _Past(DynamicLayer):
    """One layer's beginnings; what a row adds is handed on and forgotten."""

    def __init__(self, keys: Tensor, values: Tensor, of: Int64[Tensor, " row"]) -> None:
        super().__init__()
        self.keys, self.values, self._of = keys, values, of
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self._behind(self.keys, key_states), self._behind(self.values, value_states)

    def _behind(self, past: Tensor, new: Tensor) -> Tensor:
        rows = past.expand(len(self._of), -1, -1, -1) if len(past) == 1 else past[self._of.to(past.device)]
        return torch.cat([rows, new], dim=-2)
