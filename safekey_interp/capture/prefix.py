"""How do many continuations of one beginning go through the model, with the beginning computed once?

Causality: what comes behind a beginning changes no state in it. So its keys and values are computed once, and each
continuation, a row of a batch, sees them as its own past. transformers' own cache would copy them into every row and
every layer at once; here a row's copy lives for one layer's attention.

Only attention layers have such a past, and only where a position turns the same way whatever follows. Where a model
has other layers (linear attention), or rotary positions that change with the length (dynamic, longrope), the beginning
is nothing, and continuations are whole sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from safekey_interp.capture.layout import rope_kind

if TYPE_CHECKING:
    from safekey_interp.models import Model

_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


class Beginning:
    """Tokens that every continuation has before it."""

    def __init__(self, model: Model, ids: Int64[Tensor, " pos"]) -> None:
        """Run the beginning through the model.

        Args:
            model: the model.
            ids: its tokens; may be none.
        """
        self.ids = ids
        """Tokens of the beginning."""
        self._model = model
        self._past: list[tuple[Tensor, Tensor]] = []
        if len(ids):
            cache = DynamicCache()
            model.hf.get_decoder()(input_ids=ids[None].to(model.device), past_key_values=cache, use_cache=True)
            self._past = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[misc]

    def logits(self, rows: Int64[Tensor, "row pos"], first: int = 0) -> Float[Tensor, "row pos_2 d_vocab"]:
        """Logits of continuations.

        Args:
            rows: tokens behind the beginning, padded on the right, where causality hides the padding.
            first: logits of earlier tokens of the rows are not asked for.
        """
        n, (n_rows, width) = len(self.ids), rows.shape
        options: dict[str, Any] = {"use_cache": False}
        if n:
            layers: list[Any] = [_Past(keys, values, n_rows) for keys, values in self._past]
            positions = torch.arange(n, n + width, device=self._model.device).expand(n_rows, -1)
            options = {"past_key_values": Cache(layers=layers), "use_cache": True, "position_ids": positions}
        hf = self._model.hf
        if "logits_to_keep" in inspect.signature(hf.forward).parameters:
            return hf(input_ids=rows.to(self._model.device), logits_to_keep=width - first, **options).logits
        return hf(input_ids=rows.to(self._model.device), **options).logits[:, first:]


def common_beginning(rows: Sequence[Int64[Tensor, " pos"]], at_most: int) -> int:
    """Tokens that all rows begin with, and no more than ``at_most``."""
    n = min([at_most, *(len(row) for row in rows)])
    first = rows[0][:n]
    differs = torch.zeros(n, dtype=torch.bool)
    for row in rows[1:]:
        differs |= row[:n] != first
    where = differs.nonzero()
    return int(where[0]) if len(where) else n


def keeps_a_past(model: Model) -> bool:
    """Whether a beginning can be computed apart: all layers are attention, and positions do not depend on the end."""
    if rope_kind(model.config) in ("dynamic", "longrope"):
        return False
    kinds = getattr(model.config, "layer_types", None)
    parts = (model.hf, model.hf.get_decoder())
    takes = all("past_key_values" in inspect.signature(part.forward).parameters for part in parts)
    return takes and set(kinds or _ATTENTION) <= _ATTENTION


class _Past(DynamicLayer):
    """One layer's beginning, the same for every row; what a row adds is handed on and forgotten."""

    def __init__(self, keys: Tensor, values: Tensor, n_rows: int) -> None:
        super().__init__()
        self.keys, self.values = (one.expand(n_rows, -1, -1, -1) for one in (keys, values))
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)
