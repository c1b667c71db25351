"""Mean attention between segments of a sequence, per layer and head.

    M_qk = mean over rows in q of Σ over keys in k of p         per layer and head, segments q and k

Segments are spans of tokens, such as sentences. Inside the pass a layer's rows are reduced one segment after another,
so that nothing of size sequence × sequence is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.architecture import evaluating, find_layout
from safekey_interp.capture.attention_hook import observed_attention
from safekey_interp.capture.attention_rows import mean_rows, row_mask
from safekey_interp.capture.host_copy import to_host
from safekey_interp.data.trace import TokenSpan
from safekey_interp.models.model import Model


def segment_attention(
    model: Model, ids: Tensor, segments: Sequence[TokenSpan]
) -> Float[np.ndarray, "layer head segment segment"]:
    """Mean attention from each segment to each, of one sequence.

    Args:
        model: the model.
        ids: (pos,) tokens.
        segments: spans in it, none empty.

    Returns:
        Rows are queries; NaN on layers without a pattern (linear attention).

    Raises:
        ModelError: the architecture does not call attention through transformers' interface.
    """
    observer = _Segments(segments)
    with torch.inference_mode(), evaluating(model.hf), observed_attention(model.hf, observer):
        find_layout(model.hf).decoder(input_ids=ids[None].to(model.device), use_cache=False)
    masses = np.full((model.n_layers, model.n_heads, len(segments), len(segments)), np.nan, np.float32)
    for layer, found in zip(observer.masses, to_host(list(observer.masses.values())), strict=True):
        masses[layer] = found
    return masses


class _Segments:
    """Reduces each layer's pattern; called by the attention hook."""

    def __init__(self, segments: Sequence[TokenSpan]) -> None:
        self.segments = segments
        self.masses: dict[int, Tensor] = {}

    def see_attention(
        self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> Tensor | None:
        """Sum one layer's rows over the segments, and leave its mask as it is."""
        scaling = options.get("scaling") or getattr(module, "scaling", None) or query.shape[-1] ** -0.5
        columns = torch.zeros((key.shape[2], len(self.segments)), device=query.device)
        for number, span in enumerate(self.segments):
            columns[span.start : span.end, number] = 1
        sums = []
        for span in self.segments:
            rows = rearrange(torch.arange(span.start, span.end, device=query.device), "r -> 1 r")
            weights = torch.full((1, 1, len(span)), 1 / len(span), device=query.device)
            mask = row_mask(attention_mask, rows, query.shape[2], key.shape[2], first_row=span.start)
            mean = mean_rows(query, key, rows, weights, mask, options=options, scaling=scaling).weights
            sums.append(mean[0, :, 0] @ columns)
        self.masses[module.layer_idx] = torch.stack(sums, dim=1)
        return attention_mask
