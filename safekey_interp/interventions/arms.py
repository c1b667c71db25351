"""How likely is each sentence in K's place when the model is changed in each of several ways?

A way is called an arm: one direction at one scale, one layer's states at one position. Every arm's tokens up to K are
computed once, many arms side by side, under the arm's own edits; each sentence is a row that sees its arm's keys and
values as its past, under the same edits. Where a model keeps no such past (linear attention, rotary positions that
depend on the length), through TransformerBridge, and where gradients are wanted, every row is a whole sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from safekey_interp.capture.editing import Edit, Place, edited
from safekey_interp.capture.prefix import common_beginning, keeps_a_past
from safekey_interp.capture.runner import Backend
from safekey_interp.capture.stream import token_budget
from safekey_interp.continuations import Continuation

if TYPE_CHECKING:
    from safekey_interp.models import Model

_MOST_LOGITS = 2**27
"""Logits of a forward pass, about: half a gigabyte in float32."""
_MOST_ROWS = 256


class Branch(NamedTuple):
    """One row of a forward pass."""

    arm: int
    """What is changed."""
    row: int
    """Which of the continuations it is, or begins."""


EditsOf = Callable[[Sequence[Branch], int], Mapping[Place, Edit]]
"""The rows of a pass, and the position of their first token, to what is changed in it."""


def score_arms(
    model: Model,
    rows: Sequence[Continuation],
    n_arms: int,
    edits_of: EditsOf,
    *,
    backend: Backend = "hf",
    whole: bool = False,
    batch_size: int | None = None,
) -> Float[Tensor, "arm row"]:
    """Mean log-probability of each continuation's sentence under each arm.

    Args:
        model: the model.
        rows: one trace's continuations.
        n_arms: number of arms.
        edits_of: what an arm changes.
        backend: ``hf`` or ``bridge``.
        whole: compute whole sequences, whatever the model.
        batch_size: rows a forward pass; as many as fit when None.

    Returns:
        Nats a token, float64, on the CPU; in the autograd graph where gradients are on.
    """
    n = 0
    if backend == "hf" and not whole and keeps_a_past(model):
        n = common_beginning([row.ids for row in rows], min(row.start for row in rows) - 1)
    scores = torch.zeros((n_arms, len(rows)), dtype=torch.float64)
    width = max(len(row.ids) for row in rows) - n
    at_once = max(1, token_budget(model) // n) if n else n_arms
    # A row's own copy of the past is read once more for each row, so that it costs like a few tokens.
    fits = min(_MOST_ROWS, token_budget(model) // (width + n // 16 + 1), _MOST_LOGITS // (width * model.n_embeddings))
    size = batch_size or max(1, fits)
    for first in range(0, n_arms, at_once):
        arms = list(range(first, min(first + at_once, n_arms)))
        past = _Past(model, rows[0].ids[:n], arms, edits_of) if n else None
        branches = [Branch(arm, row) for arm in arms for row in range(len(rows))]
        for begin in range(0, len(branches), size):
            batch = branches[begin : begin + size]
            with edited(model, edits_of(batch, n), backend=backend):
                found = _score_batch(model, [rows[branch.row] for branch in batch], batch, past, backend=backend)
            for branch, one in zip(batch, found, strict=True):
                scores[branch] = one
    return scores


class _Past:
    """Keys and values of the tokens that all rows begin with, for each of several arms."""

    def __init__(self, model: Model, ids: Int64[Tensor, " pos"], arms: Sequence[int], edits_of: EditsOf) -> None:
        self.n = len(ids)
        self._number = {arm: number for number, arm in enumerate(arms)}
        cache = DynamicCache()
        with edited(model, edits_of([Branch(arm, 0) for arm in arms], 0)):
            rows = ids.expand(len(arms), -1).to(model.device)
            model.hf.get_decoder()(input_ids=rows, past_key_values=cache, use_cache=True)
        self._layers: list[tuple[Tensor, Tensor]] = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[misc]

    def options(self, batch: Sequence[Branch], width: int, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of a forward pass of rows behind this past."""
        which = torch.tensor([self._number[branch.arm] for branch in batch])
        layers: list[Any] = [_PastLayer(keys, values, which) for keys, values in self._layers]
        positions = torch.arange(self.n, self.n + width, device=device).expand(len(batch), -1)
        return {"past_key_values": Cache(layers=layers), "use_cache": True, "position_ids": positions}


class _PastLayer(DynamicLayer):
    """One layer's past; a row's copy lives for this layer's attention, and what the row adds is forgotten."""

    def __init__(self, keys: Tensor, values: Tensor, which: Int64[Tensor, " row"]) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._which = which.to(keys.device)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return (
            torch.cat([self.keys[self._which], key_states], dim=-2),
            torch.cat([self.values[self._which], value_states], dim=-2),
        )


def _score_batch(
    model: Model, rows: Sequence[Continuation], batch: Sequence[Branch], past: _Past | None, *, backend: Backend
) -> list[Tensor]:
    n = past.n if past is not None else 0
    width = max(len(row.ids) for row in rows) - n
    # Padded on the right without an attention mask: causality hides the padding.
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids) - n] = row.ids[n:]
    first = min(row.start for row in rows) - 1 - n
    ids = ids.to(model.device)
    if backend == "bridge":
        every = model.bridge()(ids, return_type="logits")[:, first:]
    else:
        options = {"use_cache": False} if past is None else past.options(batch, width, model.device)
        every = _logits(model, ids, first, options)
    means = []
    for row, logits in zip(rows, every, strict=True):
        begin = row.start - 1 - n - first
        predicting = logits[begin : begin + row.n_tokens].float().log_softmax(-1)
        targets = rearrange(row.ids[row.start :], "token -> token 1").to(logits.device)
        means.append(predicting.gather(-1, targets).double().mean().cpu())
    return means


def _logits(model: Model, ids: Tensor, first: int, options: dict[str, Any]) -> Tensor:
    if "logits_to_keep" in inspect.signature(model.hf.forward).parameters:
        return model.hf(input_ids=ids, logits_to_keep=ids.shape[1] - first, **options).logits
    return model.hf(input_ids=ids, **options).logits[:, first:]
