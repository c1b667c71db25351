"""Rows of an attention pattern, recomputed from query and key.

    p_qk = exp(s_qk − log Σ_k' exp s_qk' [+ exp sink])        s = softcap(scaling · q·k) + mask

recomputed in float32 for the requested rows alone. ``entropy`` is that of the row over the keys that it sees,
in nats: −Σ p' log p' with p' = p / Σ p, so a sink does not count.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Far below any score, and far above the least float32: the entropy's gradient at a key out of sight is this score times
# what comes from the loss, which must stay finite to be multiplied by a weight of 0.
NEVER = -1e30


class RowMask(NamedTuple):
    """What the rows see: for the rows alone, cut out of the layer's own mask."""

    visible: Bool[Tensor, "batch _ row k_pos"]
    """Whether each row sees each key; one head represents all where they agree."""
    bias: Float[Tensor, "batch _ row k_pos"] | None
    """Added to visible scores, where a mask holds more than 0 and −inf."""
    seen_by_all: int = 0
    """Keys from the first one on that every row is known to see."""


class MeanRows(NamedTuple):
    """Rows averaged over each query span."""

    weights: Float[Tensor, "batch head query_span k_pos"]
    """Mean attention on each key."""
    entropy: Float[Tensor, "batch head query_span"]
    """Mean entropy of the rows, nats."""
    pattern: Float[Tensor, "batch head row k_pos"]
    """The rows themselves, what a sink takes off; lives no longer than the hook."""


def row_mask(
    attention_mask: Tensor | None, rows: Int64[Tensor, "batch row"], n_queries: int, n_keys: int, *, first_row: int = 0
) -> RowMask:
    """Cut the asked rows out of a layer's mask; a missing mask means causal.

    Args:
        attention_mask: the layer's own mask.
        rows: positions of the rows.
        n_queries: queries of the pass.
        n_keys: keys of the pass.
        first_row: no row lies before this one; reading ``rows`` itself would make a GPU wait.
    """
    if attention_mask is None:
        last = rows + (n_keys - n_queries)
        keys = torch.arange(n_keys, device=rows.device)
        visible = rearrange(keys <= rearrange(last, "b r -> b r 1"), "b r k -> b 1 r k")
        return RowMask(visible, None, first_row + (n_keys - n_queries) + 1)
    mask = attention_mask[..., :n_keys].expand(len(rows), -1, -1, -1)
    batch = rearrange(torch.arange(len(rows), device=rows.device), "b -> b 1")
    cut = rearrange(mask[batch, :, rows], "b r h k -> b h r k")
    if cut.dtype == torch.bool:
        return RowMask(cut, None)
    visible = cut > torch.finfo(cut.dtype).min / 2
    bias = cut.float()
    return RowMask(visible, bias if bool((bias[visible] != 0).any()) else None)


def mean_rows(
    query: Float[Tensor, "batch head q_pos d_head"],
    key: Float[Tensor, "batch kv_head k_pos d_head"],
    rows: Int64[Tensor, "batch row"],
    row_weights: Float[Tensor, "batch query_span row"],
    mask: RowMask,
    *,
    options: dict[str, Any],
    scaling: float,
) -> MeanRows:
    """Attention of the rows, averaged over each query span.

    Args:
        query, key: after position encoding, key heads not repeated.
        rows: positions of the rows.
        row_weights: how each row counts in each span's mean.
        mask: what the rows see.
        options: the attention function's own keyword arguments (``softcap``, ``s_aux``, ``position_bias``).
        scaling: factor on the scores.
    """
    batch = rearrange(torch.arange(len(rows), device=rows.device), "b -> b 1")
    picked = query[batch, :, rows].float() * scaling
    n_kv = key.shape[1]
    grouped = rearrange(picked, "b r (kv group) d -> b kv (group r) d", kv=n_kv)
    scores = rearrange(
        grouped @ rearrange(key.float(), "b kv k d -> b kv d k"),
        "b kv (group r) k -> b (kv group) r k",
        r=rows.shape[1],
    )
    if options.get("softcap") is not None:
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    if options.get("position_bias") is not None:
        bias = options["position_bias"].expand(len(rows), -1, -1, -1)
        scores = scores + rearrange(bias[batch, :, rows], "b r h k -> b h r k")
    if mask.bias is not None:
        scores = scores + mask.bias
    # In place, and the entropy by a contraction: a copy of the scores costs more than the softmax.
    rest = slice(mask.seen_by_all, None)
    scores[..., rest].masked_fill_(~mask.visible[..., rest], NEVER)
    pattern = scores.softmax(dim=-1)
    # log Σ exp s, read off the largest key: its weight is exp(max − log Σ exp s).
    log_total = scores.amax(-1) - pattern.amax(-1).log()
    entropy = log_total - einsum(pattern, scores, "b h r k, b h r k -> b h r")
    weights = rearrange(row_weights, "b f r -> b 1 f r")
    sink = options.get("s_aux")
    if sink is not None:
        off_sink = torch.sigmoid(log_total - rearrange(sink.float(), "h -> 1 h 1"))
        pattern = pattern * rearrange(off_sink, "b h r -> b h r 1")
    return MeanRows(weights @ pattern, einsum(row_weights, entropy, "b f r, b h r -> b h f"), pattern)


def mean_pattern_rows(
    pattern: Float[Tensor, "batch head q_pos k_pos"],
    rows: Int64[Tensor, "batch row"],
    row_weights: Float[Tensor, "batch query_span row"],
) -> MeanRows:
    """The same from a whole pattern, for backends that have one."""
    batch = rearrange(torch.arange(len(rows), device=rows.device), "b -> b 1")
    picked = rearrange(pattern[batch, :, rows].float(), "b r h k -> b h r k")
    seen = picked / picked.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    entropy = -torch.xlogy(seen, seen).sum(dim=-1)
    mean = rearrange(row_weights, "b f r -> b 1 f r") @ picked
    return MeanRows(mean, einsum(row_weights, entropy, "b f r, b h r -> b h f"), picked)
