"""Log-probabilities of sentences in K's place under variants of a model.

A variant is one change: one direction at one scale, one layer's states at one position. Every variant's tokens up to K
are computed once, many variants side by side, under the variant's own edits; behind them, under the same edits, come
the sentences, in one sequence where a variant changes all alike (:mod:`safekey_interp.capture.token_trees`), else each
in a row of its own. Where a model keeps no such past (linear attention, rotary positions that depend on the length) and
through TransformerBridge, every row is a whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.prefix_cache import PrefixCache, common_prefix, has_prefix_cache
from safekey_interp.capture.residual_edits import Edit, Place, edited
from safekey_interp.capture.streaming import token_budget
from safekey_interp.capture.token_trees import TreeBatch, packs, seeing_trees
from safekey_interp.generation.batch_readings import packed, score_batch
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.likelihood import logits_behind, rows_that_fit
from safekey_interp.generation.row_readings import watched_states

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class Branch(NamedTuple):
    """One row of a forward pass."""

    variant: int
    """What is changed."""
    row: int
    """Which of the continuations it is, begins, or is the first of those that it has."""


EditsOf = Callable[[Sequence[Branch], Int64[np.ndarray, "branch pos"]], Mapping[Place, Edit]]
"""The rows of a pass, and the position of each token in its continuation, to what is changed in the pass."""


def score_variants(
    model: Model,
    rows: Sequence[Continuation],
    n_variants: int,
    edits_of: EditsOf,
    *,
    alike: bool = False,
    backend: Backend = "hf",
    batch_size: int | None = None,
) -> Float[Tensor, "variant row"]:
    """Mean log-probability of each continuation's sentence under each variant, or what else is read of it.

    Args:
        model: the model.
        rows: one trace's continuations.
        n_variants: number of variants.
        edits_of: what a variant changes.
        alike: whether a variant changes all continuations alike at each position, so that they may share a row.
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
    trees = packed(rows, n, together=alike and n > 0 and packs(model))
    trees = sorted(trees, key=lambda each: -len(each[0].ids))
    watch = partial(watched_states, model, backend=backend)
    for first in range(0, n_variants, at_once):
        variants = range(first, min(first + at_once, n_variants))
        whole = np.tile(np.arange(n), (len(variants), 1))
        with edited(model, edits_of([Branch(variant, 0) for variant in variants], whole) if n else {}):
            beginnings = PrefixCache(model, [rows[0].ids[:n]] * len(variants))
        left = [(variant, *tree) for tree in trees for variant in variants]
        while left:
            size = batch_size or rows_that_fit(model, len(left[0][1].ids), n)
            some, left = left[:size], left[size:]
            batch = TreeBatch.of([tree for _, tree, _ in some])
            of = [variant - first for variant, _, _ in some]
            logits = logits_of_bridge(model) if backend == "bridge" else partial(logits_behind, beginnings, of)
            branches = [Branch(variant, numbers[0]) for variant, _, numbers in some]
            edits = edits_of(branches, n + batch.depths.numpy())
            with seeing_trees(model, batch), edited(model, edits, backend=backend):
                of_batch = [[rows[number] for number in numbers] for _, _, numbers in some]
                read = score_batch(logits, batch, of_batch, [n] * len(some), watch)
            at = [(variant, number) for variant, _, numbers in some for number in numbers]
            scores[[variant for variant, _ in at], [number for _, number in at]] = read
    return scores


def logits_of_bridge(model: Model) -> Callable[..., Tensor]:
    """Logits of whole rows through TransformerBridge, called as those behind a prefix are."""

    def logits(trees: TreeBatch, first: int) -> Tensor:
        return model.bridge()(trees.ids.to(model.device), return_type="logits")[:, first:]

    return logits
