"""How likely is each sentence in K's place when the model is changed in each of several ways?

A way is called an arm: one direction at one scale, one layer's states at one position. Every arm's tokens up to K are
computed once, many arms side by side, under the arm's own edits; each sentence is a row that sees its arm's keys and
values as its past, under the same edits. Where a model keeps no such past (linear attention, rotary positions that
depend on the length), through TransformerBridge, and where gradients are wanted, every row is a whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.editing import Edit, Place, edited
from safekey_interp.capture.prefix import Beginnings, common_beginning, keeps_a_past
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
        arms = range(first, min(first + at_once, n_arms))
        with edited(model, edits_of([Branch(arm, 0) for arm in arms], 0) if n else {}):
            beginnings = Beginnings(model, [rows[0].ids[:n]] * len(arms))
        branches = [Branch(arm, row) for arm in arms for row in range(len(rows))]
        for begin in range(0, len(branches), size):
            batch = branches[begin : begin + size]
            of = [branch.arm - first for branch in batch]
            logits = _logits_of_bridge(model) if backend == "bridge" else beginnings.logits
            with edited(model, edits_of(batch, n), backend=backend):
                found = _score_batch([rows[branch.row] for branch in batch], n, partial(logits, of=of))
            for branch, one in zip(batch, found, strict=True):
                scores[branch] = one
    return scores


class _LogitsOf(Protocol):
    def __call__(self, rows: Int64[Tensor, "row pos"], *, first: int) -> Float[Tensor, "row pos_2 d_vocab"]: ...


def _score_batch(rows: Sequence[Continuation], n: int, logits_of: _LogitsOf) -> list[Tensor]:
    """Mean log-probability of each row's sentence, the first ``n`` tokens of the rows being the past."""
    width = max(len(row.ids) for row in rows) - n
    # Padded on the right without an attention mask: causality hides the padding.
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids) - n] = row.ids[n:]
    first = min(row.start for row in rows) - 1 - n
    means = []
    for row, logits in zip(rows, logits_of(ids, first=first), strict=True):
        begin = row.start - 1 - n - first
        predicting = logits[begin : begin + row.n_tokens].float().log_softmax(-1)
        targets = rearrange(row.ids[row.start :], "token -> token 1").to(logits.device)
        means.append(predicting.gather(-1, targets).double().mean().cpu())
    return means


def _logits_of_bridge(model: Model) -> Callable[..., Tensor]:
    def logits(rows: Tensor, of: Sequence[int], first: int) -> Tensor:
        return model.bridge()(rows.to(model.device), return_type="logits")[:, first:]

    return logits
