"""Readings of one batch: log-probability of the sentences that its rows end with, or what else is read of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.generation.row_readings import Watch

if TYPE_CHECKING:
    from safekey_interp.generation.continuation import Continuation


def score_batch(
    logits_of: Callable[..., Tensor],
    continuations: Sequence[Continuation],
    before: Sequence[int],
    watch: Watch,
    *,
    n_inputs: Sequence[int] | None = None,
    known: Float[Tensor, " row"] | None = None,
) -> Float[Tensor, " row"]:
    """What is read of each row of one forward pass: of a sentence, its mean log-probability in nats a token; float64.

    Args:
        logits_of: (row, pos) token ids and ``first`` to the logits at positions from ``first`` on.
        continuations: one a row.
        before: how many of its tokens each row does not bring along.
        watch: how states are read; :func:`~safekey_interp.generation.row_readings.watched_states` of the model.
        n_inputs: how many of its tokens go through the model, those before counted; when None all but a sentence's
            last, which predicts nothing of it.
        known: log-probability of the first token of each sentence that begins where the row does, else 0; 0 when None.
    """
    tails = [row.ids[n:] for row, n in zip(continuations, before, strict=True)]
    ids = torch.zeros((len(tails), max(map(len, tails))), dtype=torch.int64)
    for row, tail in zip(ids, tails, strict=True):
        row[: len(tail)] = tail
    begins = [row.first_logit - n for row, n in zip(continuations, before, strict=True)]
    first = max(0, min(begins))
    if n_inputs is None:
        n_inputs = [row.n_inputs for row in continuations]
    width = max(total - n for total, n in zip(n_inputs, before, strict=True))
    places = dict.fromkeys(row.reader.place for row in continuations if row.reader and row.reader.place)
    with watch([place for place in places if place is not None]) as states:
        logits = logits_of(ids[:, :width], first=first)
    sentences = [number for number, row in enumerate(continuations) if row.reader is None]
    scores = torch.zeros(len(continuations), dtype=torch.float64)
    known = scores if known is None else known
    if len(sentences) == len(continuations):
        return _mean_logprobs(logits, ids[:, first + 1 :], [begin - first for begin in begins], continuations, known)
    if sentences:
        of_sentences = [begins[number] - first for number in sentences], [continuations[number] for number in sentences]
        targets = ids[sentences, first + 1 :]
        scores[sentences] = _mean_logprobs(logits[sentences], targets, *of_sentences, known[sentences])
    for number, (row, n) in enumerate(zip(continuations, before, strict=True)):
        reader = row.reader
        if reader is None:
            continue
        if reader.place is None:
            values = logits[number, begins[number] - first : len(row.ids) - n - first]
        else:
            values = states[reader.place][number, [position - n for position in reader.positions]]
        scores[number] = reader.read(values).cpu()
    return scores


def _mean_logprobs(
    logits: Tensor,
    targets: Int64[Tensor, "row pos"],
    begins: Sequence[int],
    sentences: Sequence[Continuation],
    known: Float[Tensor, " row"],
) -> Float[Tensor, " row"]:
    """Of the sentences of some rows.

    Args:
        logits: (row, pos, d_vocab) at the last positions of the rows.
        targets: the tokens behind these positions, padded on the right.
        begins: index into the logits' positions of what predicts each sentence's first token; -1 before them.
        sentences: one a row.
        known: log-probability of the tokens that are predicted before these positions.
    """
    # Of all rows at once: one token after another, and the padding counts nothing.
    targets = targets.to(logits.device)
    next_ids = rearrange(targets, "row token -> row token 1")
    logprobs = logits[:, : targets.shape[1]].float().log_softmax(-1).gather(-1, next_ids)[..., 0]
    counted = torch.zeros(targets.shape, dtype=torch.bool)
    for row, (sentence, begin) in enumerate(zip(sentences, begins, strict=True)):
        counted[row, max(0, begin) : begin + sentence.n_tokens] = True
    kept = logprobs.double().where(counted.to(logits.device), 0.0).sum(-1).cpu()
    return (kept + known) / torch.tensor([row.n_tokens for row in sentences])
