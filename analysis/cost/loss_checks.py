"""Checks of the training losses against their definitions, on a small model in float32: values and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from analysis.cost.bench import Bench
from analysis.cost.training_step import LABELS, sequences
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.training.batch import TrainingBatch, collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.losses import combine

_LENGTH, _CLOSE = 128, 1e-3


class Terms(NamedTuple):
    """The terms of the loss, by their definitions."""

    lm: Tensor
    head: Tensor
    query_mask: Tensor


def small_batch(bench: Bench) -> tuple[SafetyHead, TrainingBatch, TrainingBatch]:
    """A safety head, and a batch with K's second pass short, and with the prompt masked in full."""
    device = bench.small.device
    torch.manual_seed(0)
    head = SafetyHead(bench.small.d_model).to(device)
    rows = sequences(bench, length=_LENGTH, model=bench.small)
    short, masked = (collate(rows, LABELS, layout=layout).to(device) for layout in ("short", "masked"))
    return head, short, masked


def terms_by_definition(hf: Any, head: SafetyHead, batch: TrainingBatch) -> Terms:
    """Each term written out: loops over rows, all logits, and a second full pass with the prompt out of sight."""
    ids = batch.input_ids
    out = hf(input_ids=ids, output_hidden_states=True, use_cache=False)
    lm = functional.cross_entropy(out.logits[:, :-1][batch.response[:, 1:]], ids[:, 1:][batch.response[:, 1:]])
    by_row = []
    for states, u, c, harmful in zip(
        out.hidden_states[-1], batch.understanding, batch.context, batch.harmful, strict=True
    ):
        for span, linear in ((u, head.understanding), (c, head.context)):
            p = torch.sigmoid(linear(states[span].mean(0)))[0]
            by_row.append(-(p if harmful else 1 - p).log() / 2)
    first = batch.response.int().argmax(1)
    n = ids.shape[1]
    at = torch.arange(n, device=ids.device)
    hidden = (at[None, None, :] < first[:, None, None]) & (at[None, :, None] >= first[:, None, None])
    sees = torch.ones((n, n), dtype=torch.bool, device=ids.device).tril() & ~hidden
    again = hf(input_ids=ids, attention_mask=sees[:, None], use_cache=False).logits
    key = batch.key[:, 1:]
    masked = functional.cross_entropy(again[:, :-1][key], ids[:, 1:][key])
    return Terms(lm, torch.stack(by_row).sum() / len(ids), masked)


def check_losses(bench: Bench) -> Iterator[tuple[str, float, float]]:
    """Values of each term, and the gradient of the total."""
    hf = bench.small.hf
    head, batch, _ = small_batch(bench)
    hf.requires_grad_(True)
    try:
        ours = combine(BatchLoss(hf, head)(batch), batch.counts)
        by_definition = terms_by_definition(hf, head, batch)
        for name in Terms._fields:
            one, other = getattr(ours, name).detach(), getattr(by_definition, name).detach()
            yield f"loss: {name}", float((one - other).abs() / other.abs()), _CLOSE
        weights = [*hf.parameters(), *head.parameters()]
        total = by_definition.lm + 0.2 * by_definition.head + 0.2 * by_definition.query_mask
        grads, expected = (torch.autograd.grad(loss, weights, retain_graph=True) for loss in (ours.total, total))
        one, other = (torch.cat([grad.flatten() for grad in each]) for each in (grads, expected))
        yield "loss: gradient of the total", float((one - other).norm() / other.norm()), _CLOSE
    finally:
        hf.requires_grad_(False)
