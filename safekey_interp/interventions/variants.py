"""How likely is each sentence in K's place when the model is changed in each of several ways?

A way is called an arm: one direction at one scale, one layer's states at one position. Every arm's tokens up to K are
computed once, many arms side by side, under the arm's own edits; each sentence is a row that sees its arm's keys and
values as its past, under the same edits. Where a model keeps no such past (linear attention, rotary positions that
depend on the length), through TransformerBridge, and where gradients are wanted, every row is a whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.prefix_cache import PrefixCache, common_prefix, has_prefix_cache
from safekey_interp.capture.residual_edits import Edit, Place, edited
from safekey_interp.capture.streaming import token_budget
from safekey_interp.generation.likelihood import Continuation, rows_that_fit, score_batch

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


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
    if backend == "hf" and not whole and has_prefix_cache(model):
        n = common_prefix([row.ids for row in rows], min(row.start for row in rows) - 1)
    scores = torch.zeros((n_arms, len(rows)), dtype=torch.float64)
    width = max(len(row.ids) for row in rows) - n
    at_once = max(1, token_budget(model) // n) if n else n_arms
    size = batch_size or rows_that_fit(model, width, n)
    for first in range(0, n_arms, at_once):
        arms = range(first, min(first + at_once, n_arms))
        with edited(model, edits_of([Branch(arm, 0) for arm in arms], 0) if n else {}):
            beginnings = PrefixCache(model, [rows[0].ids[:n]] * len(arms))
        branches = [Branch(arm, row) for arm in arms for row in range(len(rows))]
        for begin in range(0, len(branches), size):
            batch = branches[begin : begin + size]
            of = [branch.arm - first for branch in batch]
            logits = _logits_of_bridge(model) if backend == "bridge" else beginnings.logits
            with edited(model, edits_of(batch, n), backend=backend):
                found = score_batch(partial(logits, of=of), [rows[branch.row] for branch in batch], [n] * len(batch))
            scores[[branch.arm for branch in batch], [branch.row for branch in batch]] = found
    return scores


def _logits_of_bridge(model: Model) -> Callable[..., Tensor]:
    def logits(rows: Tensor, of: Sequence[int], first: int) -> Tensor:
        return model.bridge()(rows.to(model.device), return_type="logits")[:, first:]

    return logits
