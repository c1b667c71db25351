"""Log-probabilities of sentences in K's place under variants of a model.

A variant is one change: one direction at one scale, one layer's states at one position. Every variant's tokens up to K
are computed once, many variants side by side, under the variant's own edits; each sentence is a row that sees its
variant's keys and values as its past, under the same edits. Where a model keeps no such past (linear attention, rotary
positions that depend on the length) and through TransformerBridge, every row is a whole sequence."""

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
from safekey_interp.generation.batch_readings import score_batch
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.likelihood import rows_that_fit
from safekey_interp.generation.row_readings import watched_states

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class Branch(NamedTuple):
    """One row of a forward pass."""

    variant: int
    """What is changed."""
    row: int
    """Which of the continuations it is, or begins."""


EditsOf = Callable[[Sequence[Branch], int], Mapping[Place, Edit]]
"""The rows of a pass, and the position of their first token, to what is changed in it."""


def score_variants(
    model: Model,
    rows: Sequence[Continuation],
    n_variants: int,
    edits_of: EditsOf,
    *,
    backend: Backend = "hf",
    batch_size: int | None = None,
) -> Float[Tensor, "variant row"]:
    """Mean log-probability of each continuation's sentence under each variant, or what else is read of it.

    Args:
        model: the model.
        rows: one trace's continuations.
        n_variants: number of variants.
        edits_of: what an variant changes.
        backend: ``hf`` or ``bridge``.
        batch_size: rows a forward pass; as many as fit when None.

    Returns:
        Nats a token, or the reader's unit, float64, on the CPU.
    """
    n = 0
    if backend == "hf" and has_prefix_cache(model):
        n = common_prefix([row.ids for row in rows], min(row.start for row in rows) - 1)
    scores = torch.zeros((n_variants, len(rows)), dtype=torch.float64)
    at_once = max(1, token_budget(model) // n) if n else n_variants
    # Rows of a length go together, so that little of a pass is padding.
    by_length = sorted(range(len(rows)), key=lambda row: -len(rows[row].ids))
    watch = partial(watched_states, model, backend=backend)
    for first in range(0, n_variants, at_once):
        variants = range(first, min(first + at_once, n_variants))
        with edited(model, edits_of([Branch(variant, 0) for variant in variants], 0) if n else {}):
            beginnings = PrefixCache(model, [rows[0].ids[:n]] * len(variants))
        branches = [Branch(variant, row) for row in by_length for variant in variants]
        while branches:
            size = batch_size or rows_that_fit(model, len(rows[branches[0].row].ids) - n, n)
            batch, branches = branches[:size], branches[size:]
            of = [branch.variant - first for branch in batch]
            logits = logits_of_bridge(model) if backend == "bridge" else beginnings.logits
            with edited(model, edits_of(batch, n), backend=backend):
                of_batch = [rows[branch.row] for branch in batch]
                scored = score_batch(partial(logits, of=of), of_batch, [n] * len(batch), watch)
            scores[[branch.variant for branch in batch], [branch.row for branch in batch]] = scored
    return scores


def logits_of_bridge(model: Model) -> Callable[..., Tensor]:
    """Logits of whole rows through TransformerBridge, called as those behind a prefix are."""

    def logits(rows: Tensor, of: Sequence[int], first: int) -> Tensor:
        return model.bridge()(rows.to(model.device), return_type="logits")[:, first:]

    return logits
