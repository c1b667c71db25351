"""Readings of one batch of continuations: log-probability of the sentences that they end with, or what else is read.

Continuations of one beginning that go through the model unchanged, or changed alike, share a sequence
(:mod:`safekey_interp.capture.token_trees`): what several of them begin with is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.token_trees import TokenTree, TreeBatch, token_tree
from safekey_interp.generation.row_readings import Watch

if TYPE_CHECKING:
    from safekey_interp.generation.continuation import Continuation

MOST_PACKED = 256
"""Tokens of continuations that share a sequence: attention between different ones is computed, too, and hidden."""
_MOST_COPIED = 2**22
"""Log-probabilities that are in memory at once."""


def packed(
    rows: Sequence[Continuation], before: int, n_inputs: Sequence[int] | None = None, *, together: bool
) -> list[tuple[TokenTree, list[int]]]:
    """Trees of rows that go through the model as one or as several, and the numbers of their rows.

    Args:
        rows: continuations of one beginning.
        before: how many of their tokens it has.
        n_inputs: how many of each row's tokens go through the model, those before counted; all that something is read
            of when None.
        together: whether rows may share a sequence; each has one of its own when not.
    """
    ends = [row.n_inputs for row in rows] if n_inputs is None else n_inputs
    tails = [row.ids[before:end].tolist() for row, end in zip(rows, ends, strict=True)]
    groups: list[list[int]] = []
    n = 0
    for number, tail in enumerate(tails):
        n += len(tail)
        if not groups or not together or n > MOST_PACKED:
            groups.append([])
            n = len(tail)
        groups[-1].append(number)
    return [(token_tree([tails[number] for number in group]), group) for group in groups]


def score_batch(
    logits_of: Callable[..., Tensor],
    trees: TreeBatch,
    continuations: Sequence[Sequence[Continuation]],
    before: Sequence[int],
    watch: Watch,
    *,
    known: Float[Tensor, " continuation"] | None = None,
) -> Float[Tensor, " continuation"]:
    """What is read of each continuation in one forward pass: of a sentence, its mean log-probability in nats per token.

    Args:
        logits_of: trees and ``first`` to the logits at their tokens from ``first`` on, (row, pos, d_vocab).
        trees: the pass's tokens, one tree a row.
        continuations: those of each row, as its paths go.
        before: how many of its tokens the continuations of each row do not bring along.
        watch: how states are read; :func:`~safekey_interp.generation.row_readings.watched_states` of the model.
        known: log-probability of the first token of each sentence that begins where the row does, else 0; 0 when None.

    Returns:
        Float64, row by row.
    """
    every = [
        (row, continuation, path, continuation.first_logit - n)
        for row, (of_row, paths, n) in enumerate(zip(continuations, trees.paths, before, strict=True))
        for continuation, path in zip(of_row, paths, strict=True)
    ]
    # Where a path is empty all that is read of its sentence is known.
    first = min((path[max(0, begin)] for _, _, path, begin in every if path), default=0)
    places = dict.fromkeys(one.reader.place for _, one, _, _ in every if one.reader and one.reader.place)
    with watch([place for place in places if place is not None]) as states:
        logits = logits_of(trees, first=first)
    rows, at, targets, of = [], [], [], []
    scores = torch.zeros(len(every), dtype=torch.float64)
    for number, (row, one, path, begin) in enumerate(every):
        if one.reader is None:
            nodes = path[max(0, begin) : begin + one.n_tokens]
            rows += [row] * len(nodes)
            at += [node - first for node in nodes]
            targets.append(one.ids[one.start + max(0, -begin) :][: len(nodes)])
            of += [number] * len(nodes)
        elif one.reader.place is None:
            values = logits[row, [node - first for node in path[begin : len(one.ids) - before[row]]]]
            scores[number] = one.reader.read(values).cpu()
        else:
            values = states[one.reader.place][row, [path[position - before[row]] for position in one.reader.positions]]
            scores[number] = one.reader.read(values).cpu()
    if not targets:
        return scores if known is None else scores + known
    places = torch.tensor(rows, dtype=torch.int64), torch.tensor(at, dtype=torch.int64)
    logprobs = _next_logprobs(logits, *places, torch.cat(targets)).double().cpu()
    kept = torch.zeros(len(every), dtype=torch.float64).index_add(0, torch.tensor(of, dtype=torch.int64), logprobs)
    sentences = torch.tensor([one.reader is None for _, one, _, _ in every])
    n_tokens = torch.tensor([max(1, one.n_tokens) for _, one, _, _ in every])
    kept = kept if known is None else kept + known
    return torch.where(sentences, kept / n_tokens, scores)


def _next_logprobs(
    logits: Float[Tensor, "row pos d_vocab"],
    rows: Int64[Tensor, " target"],
    at: Int64[Tensor, " target"],
    targets: Int64[Tensor, " target"],
) -> Float[Tensor, " target"]:
    """Log-probabilities of next tokens, by row and position, in float32; block by block, so that no copy of all logits
    is made."""
    where, device = rows * logits.shape[1] + at, logits.device
    logprobs = torch.zeros(len(where), device=device)
    size = max(1, _MOST_COPIED // logits.shape[2])
    for number, block in enumerate(logits.flatten(0, 1).split(size)):
        inside = (where // size == number).nonzero()[:, 0]
        index = (where[inside] % size).to(device), targets[inside].to(device)
        logprobs[inside.to(device)] = block.float().log_softmax(-1)[index]
    return logprobs
