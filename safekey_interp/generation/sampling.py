"""Sampling of the next token: greedy, or a draw that depends on its own prompt alone.

At temperature 0 it is the likeliest. Else it is drawn from

    p_i  ∝  exp(z_i / T)      over the fewest tokens whose p adds up to top_p (Holtzman et al. 2020, arXiv 1904.09751)

by inversion: the first token at which the running sum of p, in the order of the vocabulary, passes u. Token t of a
sample has the t-th number u of a stream that is seeded with (seed, trace id, sample) alone, so that a sample is the
same in any batch, after any other draws, and on any device, up to rounding.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import LogitsProcessor

from safekey_interp.generation.sampling_settings import Sampling

USUAL_TOKENS = 512
"""Most new tokens by default."""


def stream_seed(seed: int, trace_id: str, sample: int) -> int:
    """The seed of one sample's stream, below 2^31 so that every server takes it."""
    digest = hashlib.sha256(json.dumps([seed, trace_id, sample]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def choose(
    logits: Float[Tensor, "row vocabulary"], u: Float[Tensor, " row"], *, temperature: float, top_p: float = 1.0
) -> Int64[Tensor, " row"]:
    """The token that each row's number draws.

    Args:
        logits: of the next token.
        u: in [0, 1).
        temperature: above 0.
        top_p: share of the probability that counts.
    """
    # MPS has no float64; in float32 a draw is off by a part in a million of probability.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    p = (logits.to(wide) / temperature).softmax(-1)
    if top_p < 1:
        ranked, order = p.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(-1) - ranked
        p = torch.zeros_like(p).scatter_(-1, order, ranked.where(before < top_p, 0))
    running = p.cumsum(-1)
    token = torch.searchsorted(running, u.to(running)[:, None] * running[:, -1:], right=True).squeeze(-1)
    # Rounding may carry u to the very end, behind the last token that can be drawn.
    last = p.shape[-1] - 1 - (p > 0).flip(-1).int().argmax(-1)
    return torch.minimum(token, last)


class OwnStreams(LogitsProcessor):
    """Leaves each row of a batch the one token that its own stream draws."""

    def __init__(self, seeds: list[int], sampling: Sampling, *, width: int, most: int) -> None:
        """Streams for a batch.

        Args:
            seeds: of each row, from :func:`stream_seed`.
            sampling: temperature and top_p.
            width: tokens of a row before the first new one.
            most: largest number of new tokens.
        """
        streams = np.stack([np.random.default_rng(seed).random(most) for seed in seeds])
        self._u = torch.from_numpy(streams)
        self._sampling, self._width = sampling, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``scores`` without any token but the drawn ones."""
        u = self._u[:, input_ids.shape[1] - self._width]
        u = (u.float() if scores.device.type == "mps" else u).to(scores.device)
        token = choose(scores, u, temperature=self._sampling.temperature, top_p=self._sampling.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)


NEAR = 1e-4
"""Part of the best logit by which the second best must lie below it: a hundred times what rounding moves them."""


def is_near_tie(best: Any, second: Any) -> Any:
    """Whether the second best logit is so close to the best that rounding may decide; of numbers or of tensors."""
    return best - second < NEAR * abs(best)


class TiesAlone(LogitsProcessor):
    """Has near ties decided by each row's own forward pass."""

    def __init__(
        self, hf: Any, mask: Tensor, ends: list[int], alone: Callable[[int], AbstractContextManager[None]]
    ) -> None:
        """Know where each row begins.

        Args:
            hf: the model.
            mask: (row, pos), 0 for the padding before a row's first token.
            ends: tokens that end a row.
            alone: a block in which a pass holds this row of the batch alone, without padding.
        """
        self._hf, self._alone = hf, alone
        self._width = mask.shape[1]
        self._begins: list[int] = (self._width - mask.sum(1)).tolist()
        self._ends = torch.tensor(ends, device=mask.device)
        spares = "logits_to_keep" in inspect.signature(hf.forward).parameters
        self._keep = {"logits_to_keep": 1} if spares else {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``scores``, those of near ties from a forward pass of their row alone."""
        near = is_near_tie(*scores.topk(2, dim=-1).values.unbind(-1))
        if not near.any():
            return scores
        going_on = ~torch.isin(input_ids[:, self._width :], self._ends).any(1)
        scores = scores.clone()
        for row in (near & going_on).nonzero().flatten().tolist():
            alone = input_ids[row : row + 1, self._begins[row] :]
            with self._alone(row):
                logits = self._hf(input_ids=alone, use_cache=False, **self._keep).logits[0, -1]
            scores[row] = logits.to(scores)
        return scores
