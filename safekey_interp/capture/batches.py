"""Batches of traces: which go through the model together, and how they are padded.

Sequences are cut at the end of the key sentence: nothing later changes anything before (causality). They are grouped by
length, so that padding costs little; the plan depends on the lengths and the token budget alone, so that a run repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from safekey_interp.models.encoding import Encoding


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Encodings padded to one length."""

    encodings: tuple[Encoding, ...]
    """One a row."""
    input_ids: Int64[Tensor, "batch pos"]
    """Token ids, each row cut at its encoding's ``end``."""
    attention_mask: Int64[Tensor, "batch pos"] | None
    """1 where a token is; None when rows are padded on the right, where causality hides the padding by itself."""
    starts: tuple[int, ...]
    """Position of each row's first token: what padding on the left shifts by."""

    @classmethod
    def of(cls, encodings: Sequence[Encoding], *, pad_id: int = 0, side: Literal["left", "right"] = "right") -> Batch:
        """Pad encodings on one side."""
        width = max(encoding.end for encoding in encodings)
        ids = torch.full((len(encodings), width), pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        starts = [width - encoding.end if side == "left" else 0 for encoding in encodings]
        for row, (encoding, start) in enumerate(zip(encodings, starts, strict=True)):
            ids[row, start : start + encoding.end] = encoding.input_ids[: encoding.end]
            mask[row, start : start + encoding.end] = 1
        padded_left = side == "left" and any(starts)
        return cls(
            encodings=tuple(encodings),
            input_ids=ids,
            attention_mask=mask if padded_left else None,
            starts=tuple(starts),
        )

    def inputs(self, device: torch.device | str) -> dict[str, Any]:
        """Keyword arguments of the model's forward."""
        inputs: dict[str, Any] = {"input_ids": self.input_ids.to(device), "use_cache": False}
        if self.attention_mask is not None:
            mask = self.attention_mask.to(device)
            # Left padding shifts positions unless they are counted from the first token.
            inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        return inputs


def plan_batches(
    lengths: Sequence[int], *, batch_size: int | None = None, max_tokens: int = 4096, max_rows: int = 64, cost: int = 32
) -> list[list[int]]:
    """Rows of each batch: longest first, of near equal length.

    Without ``batch_size``, the cuts between batches are those that make Σ (rows · width + ``cost``) least: padding
    costs as much as tokens do, and so does every further forward pass.

    Args:
        lengths: tokens of each row.
        batch_size: rows a batch; when None, at most as many as ``max_tokens`` padded tokens hold.
        max_tokens: padded tokens a batch, when ``batch_size`` is None; a longer row goes alone.
        max_rows: most rows a batch, when ``batch_size`` is None.
        cost: what a forward pass costs in addition to its tokens, in tokens.

    Returns:
        Indices into ``lengths``, each once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if batch_size is not None:
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    # least[n]: the least cost of the first n rows; begin[n]: where their last batch begins.
    least, begin = [0], [0]
    for end in range(1, len(order) + 1):
        options = []
        for start in range(end - 1, max(-1, end - 1 - max_rows), -1):
            padded = (end - start) * lengths[order[start]]
            if padded > max_tokens and end - start > 1:
                break
            options.append((least[start] + padded + cost, start))
        total, start = min(options)
        least.append(total)
        begin.append(start)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[begin[end] : end])
        end = begin[end]
    return batches[::-1]
