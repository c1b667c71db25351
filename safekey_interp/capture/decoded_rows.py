"""Attention of the token that is being read or written on chosen spans, reduced inside the forward pass.

While a model decodes, each layer shows one query and the keys of the cache: the query's row of the pattern is
recomputed from them in float32 (:mod:`.attention_rows`) and summed over each span at once. No pattern is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.attention_rows import NEVER


class DecodedRows:
    """Masses of the last token of each pass; an observer of the attention hook."""

    def __init__(self, n_layers: int, n_heads: int) -> None:
        """Before the first pass; no span is read until :meth:`choose`."""
        self._shape = n_layers, n_heads
        self._names: tuple[str, ...] = ()
        self._held = torch.zeros((0, 0))
        self._rows: dict[int, Tensor] = {}
        self._n = 0

    def choose(self, spans: Mapping[str, Sequence[int]]) -> None:
        """Read these spans from the next pass on: name to token positions; tokens behind them are in none."""
        self._names = tuple(spans)
        width = 1 + max((max(where, default=0) for where in spans.values()), default=0)
        held = torch.zeros((width, len(spans)))
        for column, where in enumerate(spans.values()):
            held[list(where), column] = 1
        self._held = held

    def begins(self, n: int) -> None:
        """A pass begins, of a sequence of ``n`` tokens, those of the cache counted."""
        self._n = n
        self._rows.clear()

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """Read the last query's row of one layer; its mask stays. Called by the attention hook."""
        if not self._names:
            return attention_mask
        scaling = options.get("scaling") or getattr(module, "scaling", None) or query.shape[-1] ** -0.5
        self._rows[module.layer_idx] = last_row(query, key, attention_mask, options, scaling)
        return attention_mask

    def masses(self) -> dict[str, Float[np.ndarray, "layer head"]]:
        """Of the pass that was made last: the attention on each span, float32; NaN on layers without a pattern."""
        if not self._rows:
            return {}
        out = np.full((*self._shape, len(self._names)), np.nan, np.float32)
        by_width: dict[tuple[int, torch.device], list[int]] = {}
        for layer, row in self._rows.items():
            by_width.setdefault((row.shape[-1], row.device), []).append(layer)
        for (width, device), layers in by_width.items():
            rows = torch.stack([self._rows[layer] for layer in layers])
            first = self._n - width  # a sliding window's cache lacks the first keys
            held = self._held[first : self._n].to(device)
            out[layers] = (rows[..., : len(held)] @ held).cpu().numpy()
        return {name: out[..., column] for column, name in enumerate(self._names)}


def last_row(
    query: Float[Tensor, "1 head q_pos d_head"],
    key: Float[Tensor, "1 kv_head k_pos d_head"],
    attention_mask: Tensor | None,
    options: Mapping[str, Any],
    scaling: float,
) -> Float[Tensor, "head k_pos"]:
    """The last query's row of the pattern, what a sink takes taken off.

    Args:
        query, key: after position encoding, key heads not repeated.
        attention_mask: the layer's own; None where the last query sees every key.
        options: the attention function's own keyword arguments (``softcap``, ``s_aux``, ``position_bias``).
        scaling: factor on the scores.
    """
    n_kv, n_keys, width = key.shape[1:]
    # Few operations, and no einops: this runs in every layer for every token.
    grouped = query[0, :, -1].view(n_kv, -1, width).float()
    keys = key[0].float().mT
    scores = torch.baddbmm(grouped.new_zeros(()), grouped, keys, beta=0, alpha=scaling).view(-1, n_keys)
    if options.get("softcap") is not None:
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    if options.get("position_bias") is not None:
        scores = scores + options["position_bias"][0, :, -1]
    if attention_mask is not None:
        mask = attention_mask[0, :, -1, :n_keys]
        scores = scores.masked_fill(~mask, NEVER) if mask.dtype == torch.bool else scores + mask.float()
    pattern = scores.softmax(-1)
    sink = options.get("s_aux")
    if sink is not None:
        pattern = pattern * torch.sigmoid(scores.logsumexp(-1) - sink.float())[:, None]
    return pattern
