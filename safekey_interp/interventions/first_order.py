"""Gradients of what is read out, by activations of every place at once, for first-order estimates of effects.

    effect of a change ≈ Σ_positions  ∂ metric / ∂ x  ·  change of x

One forward and one backward pass for all places of a trace (attribution: Nanda 2023; Syed, Rager & Conmy 2023, arXiv
2310.10348). Metrics are linear in the rows that are read, so that rows of the same weights need one gradient together:
what they begin with goes through the model once for each such group, and each row sees its group's keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.places import Place
from safekey_interp.capture.prefix_cache import PrefixCache, common_prefix, has_prefix_cache
from safekey_interp.capture.residual_edits import Edit, edited
from safekey_interp.capture.token_trees import TreeBatch
from safekey_interp.generation.batch_readings import packed, score_batch
from safekey_interp.generation.continuation import Continuation
from safekey_interp.generation.likelihood import logits_behind, rows_that_fit
from safekey_interp.generation.row_readings import watched_states
from safekey_interp.interventions.variant_scores import logits_of_bridge

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class Gradients(NamedTuple):
    """Of one trace."""

    scores: Float[np.ndarray, " row"]
    """Each row's number, as it is."""
    segments: list[Segment]
    """Every token of each row once: beginnings that rows of a group share, and what is behind them. The first-order
    effect on a metric is the sum of the segments', weighted."""


class Segment(NamedTuple):
    """Tokens of one row of a pass."""

    weights: Float[np.ndarray, " metric"]
    """What the row's number, of which the gradients are, counts in each metric."""
    row: int
    """The row, or one of those that begin so."""
    begin: int
    """Position of the first token."""
    states: Mapping[Place, Float[Tensor, "pos width"]]
    """At each place."""
    gradients: Mapping[Place, Float[Tensor, "pos width"]]
    """There, of the sum of its group's rows."""

    def along(self, place: Place, change: Float[Tensor, "pos width"], where: Sequence[int]) -> float:
        """First-order change of the number where the states at some positions change."""
        inside = [i for i, at in enumerate(where) if 0 <= at - self.begin < len(self.states[place])]
        at = [where[i] - self.begin for i in inside]
        moved = change[inside].to(self.states[place].device).float() - self.states[place][at].float()
        return float(einsum(self.gradients[place][at].float(), moved, "pos width, pos width ->"))


def gradients_at(
    model: Model,
    rows: Sequence[Continuation],
    weights: Float[np.ndarray, "row metric"],
    places: Sequence[Place],
    *,
    backend: Backend = "hf",
    batch_size: int | None = None,
) -> Gradients:
    """Gradients of the rows' numbers by the activations at places.

    Args:
        model: the model.
        rows: one trace's continuations.
        weights: what each row counts in each metric.
        places: where.
        backend: ``hf`` or ``bridge``.
        batch_size: rows a forward pass; as many as fit when None.
    """
    groups, group_of = np.unique(weights, axis=0, return_inverse=True)
    group_of = group_of.reshape(-1).tolist()
    n = 0
    if backend == "hf" and has_prefix_cache(model):
        n = common_prefix([row.ids for row in rows], min(row.start for row in rows) - 1)
    begun: list[tuple[Place, int, Tensor, Tensor]] = []
    passes: list[list[tuple[int, int, int]]] = []

    def watching(place: Place) -> Edit:
        def watch(states: Tensor) -> Tensor:
            moved = torch.zeros_like(states, requires_grad=True)
            begun.append((place, len(passes) - 1, states.detach(), moved))
            return states + moved

        return watch

    edits = {place: watching(place) for place in places}
    size = batch_size or rows_that_fit(model, max(len(row.ids) for row in rows) - n, n)
    scored: list[Tensor] = []
    with torch.inference_mode(False), torch.enable_grad(), edited(model, edits, backend=backend):
        passes.append([(group, group_of.index(group), 0) for group in range(len(groups))] if n else [])
        prefixes = PrefixCache(model, [rows[0].ids[:n]] * len(groups))
        for first in range(0, len(rows), size):
            numbers = range(first, min(first + size, len(rows)))
            of = [group_of[number] for number in numbers]
            passes.append([(group, number, n) for group, number in zip(of, numbers, strict=True)])
            logits = logits_of_bridge(model) if backend == "bridge" else partial(logits_behind, prefixes, of)
            some = [rows[number] for number in numbers]
            batch = TreeBatch.of([tree for tree, _ in packed(some, n, together=False)])
            watch = partial(watched_states, model, backend=backend)
            scored.append(score_batch(logits, batch, [[row] for row in some], [n] * len(some), watch))
        gradients = torch.autograd.grad(torch.cat(scored).sum(), [moved for *_, moved in begun], allow_unused=True)
    found: list[list[tuple[dict[Place, Tensor], dict[Place, Tensor]]]] = [[({}, {}) for _ in each] for each in passes]
    for (place, number, states, moved), gradient in zip(begun, gradients, strict=True):
        known = torch.zeros_like(moved) if gradient is None else gradient
        for (of_states, of_gradients), *here in zip(found[number], states, known, strict=True):
            of_states[place], of_gradients[place] = here
    segments = [
        Segment(groups[group], row, begin, *of_place)
        for each, of_pass in zip(passes, found, strict=True)
        for (group, row, begin), of_place in zip(each, of_pass, strict=True)
    ]
    return Gradients(torch.cat(scored).detach().numpy(), segments)
