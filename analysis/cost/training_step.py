"""Cost of a training step with SafeKey's losses: forward and backward pass.

Without the optimizer, which all ways share. Two sequences, with the spans of STAR-1's median trace. The literal way
runs the model twice in full, the second time with the prompt masked, with all logits both times, as the reference does.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from analysis.cost.bench import Bench
from analysis.cost.entry import Entry, Ways, forward_flops
from analysis.cost.timing import Way
from safekey_interp.data.trace import TokenSpan
from safekey_interp.models.encoding import Encoding, TokenSet
from safekey_interp.models.model import Model
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.training.batch import QueryMask, collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.losses import combine, head_loss

_ROWS, _LENGTH, _PROMPT, _U, _K = 2, 640, 48, 28, 17
LABELS = ["harmful", "benign"]
_OURS = "both of SafeKey's losses, 2 x 640 tokens, forward and backward pass"


def sequences(bench: Bench, *, length: int = _LENGTH, model: Model | None = None) -> list[Encoding]:
    """Sequences of random tokens: a prompt, then U, K, and the rest of the response."""
    begin, u_end, k_end = _PROMPT, _PROMPT + _U, _PROMPT + _U + _K
    spans = {
        "prompt": TokenSpan(1, begin - 1),
        "template": TokenSet((TokenSpan(begin - 1, begin),)),
        "first_token": TokenSpan(0, 1),
        "understanding": TokenSpan(begin, u_end),
        "key_sentence": TokenSpan(u_end, k_end),
        "decision": TokenSpan(u_end - 1, u_end),
    }
    made = (bench.encoding(length + row, name=str(row), model=model) for row in range(_ROWS))
    return [
        replace(one, input_ids=one.input_ids[:length], response_start=begin, spans=MappingProxyType(spans))
        for one in made
    ]


def _step(bench: Bench, length: int, layout: QueryMask | None) -> Way:
    hf = bench.model.hf
    torch.manual_seed(0)
    head = SafetyHead(bench.model.d_model).to(bench.model.device) if layout else None
    batch = collate(sequences(bench, length=length), LABELS, layout=layout).to(bench.model.device)
    loss = BatchLoss(hf, head)

    def run() -> None:
        with _trained(hf):
            combine(loss(batch), batch.counts).total.backward()

    return run


def literal_loss(hf: Any, head: SafetyHead, batch: Any) -> torch.Tensor:
    """The total loss by its definition: all logits, and once more with the prompt masked."""
    ids = batch.input_ids
    labels = ids.masked_fill(~batch.response, -100)
    out = hf(input_ids=ids, labels=labels, output_hidden_states=True, use_cache=False)
    logits = head(out.hidden_states[-1], batch.understanding, batch.context)
    by_head = head_loss(logits, batch.harmful, batch.counted) / batch.counted.sum()
    first = batch.response.int().argmax(1)
    mask = (torch.arange(ids.shape[1], device=ids.device)[None] >= first[:, None]).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    again = hf(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    # What the first token of the response is predicted from lies in the prompt, which is masked.
    key = batch.key[:, 1:]
    masked = functional.cross_entropy(again[:, :-1][key].float(), ids[:, 1:][key])
    return out.loss + 0.2 * by_head + 0.2 * masked


def _literal(bench: Bench, length: int) -> Way:
    hf = bench.model.hf
    head = SafetyHead(bench.model.d_model).to(bench.model.device)
    batch = collate(sequences(bench, length=length), LABELS, layout="masked").to(bench.model.device)

    def run() -> None:
        with _trained(hf):
            literal_loss(hf, head, batch).backward()

    return run


class _trained:
    """A block in which the weights have gradients, which are let go at its end."""

    def __init__(self, hf: Any) -> None:
        self._hf = hf

    def __enter__(self) -> None:
        self._hf.requires_grad_(True)

    def __exit__(self, *error: object) -> None:
        self._hf.zero_grad(set_to_none=True)
        self._hf.requires_grad_(False)


def _length(bench: Bench) -> int:
    return min(_LENGTH, bench.length)


def _against_lm(bench: Bench) -> Ways:
    n = _length(bench)
    flops = 3 * _ROWS * forward_flops(bench, n)
    return Ways(_step(bench, n, "short"), _step(bench, n, None), flops=flops)


def _against_literal(bench: Bench) -> Ways:
    n = _length(bench)
    return Ways(_step(bench, n, "short"), _literal(bench, n))


def _against_transformers(bench: Bench) -> Ways:
    n, hf = _length(bench), bench.model.hf
    batch = collate(sequences(bench, length=n), LABELS, layout=None).to(bench.model.device)
    labels = batch.input_ids.masked_fill(~batch.response, -100)

    def theirs() -> None:
        with _trained(hf):
            hf(input_ids=batch.input_ids, labels=labels, use_cache=False).loss.backward()

    return Ways(_step(bench, n, None), theirs)


ENTRIES = (
    Entry(
        name="training-step",
        what=_OURS,
        baseline="the same with the language-modelling loss alone",
        ways=_against_lm,
    ),
    Entry(
        name="training-step-against-literal",
        what=_OURS,
        baseline="the literal way: two full passes with all logits",
        ways=_against_literal,
    ),
    Entry(
        name="language-modelling-step",
        what="the language-modelling loss of the package, 2 x 640 tokens, forward and backward pass",
        baseline="transformers' own loss (labels=…)",
        ways=_against_transformers,
    ),
)
