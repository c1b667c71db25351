"""Which of two tokens wins where rounding would decide? The one that wins in a forward pass of that sequence alone.

A sum that is taken in another order is another number, in its last digits. So logits depend on the batch, and where the
two best are that near, so would greedy text: among 400 of the organism's shipped prompts, two have tokens less than
1e-5 apart. Such a step is decided by the plain forward pass of that row by itself, without padding or cache, and greedy
text is then the same in every batch. In float32 such steps are rare and cost next to nothing; in half precision they
are everywhere, and are left to the batch.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

NEAR = 1e-4
"""Part of the best logit by which the second best must lie below it: a hundred times what rounding moves them."""


class TiesAlone(LogitsProcessor):
    """Has near ties decided by each row's own forward pass."""

    def __init__(self, hf: Any, mask: Tensor, ends: list[int]) -> None:
        """Know where each row begins.

        Args:
            hf: the model.
            mask: (row, pos), 0 for the padding before a row's first token.
            ends: tokens that end a row.
        """
        self._hf = hf
        self._width = mask.shape[1]
        self._begins: list[int] = (self._width - mask.sum(1)).tolist()
        self._ends = torch.tensor(ends, device=mask.device)
        spares = "logits_to_keep" in inspect.signature(hf.forward).parameters
        self._keep = {"logits_to_keep": 1} if spares else {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``scores``, those of near ties from a forward pass of their row alone."""
        best, second = scores.topk(2, dim=-1).values.unbind(-1)
        near = best - second < NEAR * best.abs()
        if not near.any():
            return scores
        going_on = ~torch.isin(input_ids[:, self._width :], self._ends).any(1)
        scores = scores.clone()
        for row in (near & going_on).nonzero().flatten().tolist():
            alone = input_ids[row : row + 1, self._begins[row] :]
            logits = self._hf(input_ids=alone, use_cache=False, **self._keep).logits[0, -1]
            scores[row] = logits.to(scores)
        return scores
