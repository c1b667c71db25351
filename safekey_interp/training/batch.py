"""Batches of training: the tensors of one step.

Token positions, never pieces that were tokenised apart: everything is cut from ``model.encode(trace)``. Rows are padded
on the right, without an attention mask: causality hides the padding. Or, where the model keeps documents in one row
apart (``packing``), all traces lie behind one another in one row, and positions restart with each.

The second pass, K predicted with the prompt masked, comes in three layouts with the same numbers:

- ``short``: a batch of its own, each row the tokens from the response's first to the last of K.
- ``packed``: the same tokens behind the full sequence, in the same row, as a document of their own: positions restart
  at 0, and so once more for the padding.
- ``masked``: the full sequence again up to the end of K, with an attention mask that hides all before the response.

With another trace's prompt in place of the mask (:mod:`~safekey_interp.training.other_prompts`) that prompt's tokens
stand before the response, in ``short`` and in ``packed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safekey_interp.data.class_labels import HARM
from safekey_interp.errors import InputError
from safekey_interp.models.encoding import Encoding
from safekey_interp.training.losses import Counts

QueryMask = Literal["short", "packed", "masked"]
"""How K is predicted with the prompt masked."""
LAYOUTS: tuple[str, ...] = get_args(QueryMask)


@dataclass(frozen=True, kw_only=True)
class QueryPass:
    """The rows in which K is predicted with the prompt masked, or with another in its place."""

    input_ids: Int64[Tensor, "row_2 pos_2"]
    """Tokens; at least one row, so that every rank runs the same forwards."""
    attention_mask: Int64[Tensor, "row_2 pos_2"] | None
    """0 before the response; None where the prompt is not in the row at all."""
    targets: Bool[Tensor, "row_2 pos_2"]
    """Tokens of K that have a token before them."""


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """One batch."""

    input_ids: Int64[Tensor, "row pos"]
    """Tokens of prompt and response; behind them, when packed, of response to the end of K again; then padding. A row
    is a trace, or with packing all of them."""
    position_ids: Int64[Tensor, "row pos"] | None
    """Positions that restart with each document; None when there is one."""
    response: Bool[Tensor, "row pos"]
    """Tokens that the language modelling loss predicts."""
    beginnings: Int64[Tensor, "trace pos_u"] | None
    """Where in the one row the first tokens of each trace lie, as many as the safety head reads; None where each trace
    has a row, and ``pos_u`` is ``pos``."""
    understanding: Bool[Tensor, "trace pos_u"]
    """U, in traces that the safety head counts; nothing in the others."""
    context: Bool[Tensor, "trace pos_u"]
    """The first token to the end of U, in the same traces."""
    harmful: Float[Tensor, " trace"]
    """1 for harmful, 0 for benign and for traces that do not count."""
    counted: Bool[Tensor, " trace"]
    """Traces with a label and a U."""
    key: Bool[Tensor, "row pos"]
    """K, the prompt in sight."""
    packed: Bool[Tensor, "row pos"]
    """Tokens of K in the second document; nothing unless packed."""
    query: QueryPass | None
    """The second pass; None when packed, or when there is no such loss."""
    n_first_without_context: int
    """Key sentences whose first token has nothing before it once the prompt is masked: that token is left out."""

    @property
    def counts(self) -> Counts:
        """What the terms of this batch are divided by."""
        key = self.packed if self.query is None else self.query.targets
        return Counts(self.response.sum(), self.counted.sum(), key.sum(), self.key.sum())

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same on a device."""
        return TrainingBatch(**{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})


def collate(
    encodings: Sequence[Encoding],
    labels: Sequence[str | None],
    *,
    layout: QueryMask | None = "short",
    packing: bool = False,
    pad_id: int = 0,
    prompts: Sequence[Encoding | None] | None = None,
) -> TrainingBatch:
    """Traces as a batch; without any, one token of padding of which nothing counts, so that every rank can run.

    Args:
        encodings: whole traces, prompt and response.
        labels: harmful or benign for each; another, or None, does not count.
        layout: of the second pass; None for none.
        packing: all traces in one row, in place of a row each, padded.
        pad_id: any id that the model has an embedding for.
        prompts: for each trace, the one whose prompt stands before its response in the second pass; None for a trace
            that is left out of that pass. Each prompt is masked when None.

    Raises:
        InputError: an unknown layout, or one that masks the prompt where another takes its place.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"query_mask: got {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if layout == "masked" and prompts is not None:
        raise InputError("query_mask: got masked with other prompts, expected short or packed")
    given = [_MASKED] * len(encodings) if prompts is None else prompts
    seconds = [_second(encoding, prompt, layout) for encoding, prompt in zip(encodings, given, strict=True)]
    behind_each = [second.ids if layout == "packed" else second.ids[:0] for second in seconds]
    lengths = [len(encoding.input_ids) + len(ids) for encoding, ids in zip(encodings, behind_each, strict=True)]
    n_traces = max(1, len(encodings))
    starts = [0, *accumulate(lengths[:-1])] if packing else [0] * n_traces
    shape = (1, max(1, sum(lengths))) if packing else (n_traces, max([1, *lengths]))
    ids = torch.full(shape, pad_id, dtype=torch.int64)
    position = torch.arange(shape[1]).repeat(shape[0], 1)
    response, key, packed = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for number, (encoding, second, start) in enumerate(zip(encodings, behind_each, starts, strict=False)):
        row = 0 if packing else number
        first, behind, end = start, start + len(encoding.input_ids), start + lengths[number]
        ids[row, first:behind], ids[row, behind:end] = encoding.input_ids, second
        for document in (first, behind, end):
            position[row, document:] = torch.arange(shape[1] - document)
        # The very first token has nothing before it that could predict it.
        response[row, start + max(1, encoding.response_start) : behind] = True
        key[row, [start + where for where in encoding.positions("key_sentence") if where]] = True
        if len(second):
            packed[row, behind:end] = seconds[number].targets
    read = _read_by_head(encodings, labels, width=None if packing else shape[1])
    restarts = layout == "packed" or (packing and len(encodings) > 1)
    return TrainingBatch(
        input_ids=ids,
        position_ids=position if restarts else None,
        response=response,
        beginnings=_beginnings(starts, read.context) if packing else None,
        understanding=read.understanding,
        context=read.context,
        harmful=read.harmful,
        counted=read.counted,
        key=key,
        packed=packed,
        query=_query_pass(seconds, pad_id, masks=layout == "masked") if layout in ("short", "masked") else None,
        n_first_without_context=0 if layout is None or prompts is not None else sum(map(_starts_response, encodings)),
    )


class _ReadByHead(NamedTuple):
    understanding: Tensor
    context: Tensor
    harmful: Tensor
    counted: Tensor


def _read_by_head(encodings: Sequence[Encoding], labels: Sequence[str | None], width: int | None) -> _ReadByHead:
    """What the safety head reads of each trace, from the trace's first token on; as wide as needed when None."""
    counts = [
        label in HARM and len(e.positions("understanding")) > 0 for e, label in zip(encodings, labels, strict=True)
    ]
    if width is None:
        read = (encoding for encoding, is_read in zip(encodings, counts, strict=True) if is_read)
        width = max([1, *(encoding.positions("context")[-1] + 1 for encoding in read)])
    n = max(1, len(encodings))
    understanding, context = (torch.zeros((n, width), dtype=torch.bool) for _ in range(2))
    harmful, counted = torch.zeros(n), torch.zeros(n, dtype=torch.bool)
    for number, (encoding, label) in enumerate(zip(encodings, labels, strict=True)):
        if counts[number]:
            counted[number], harmful[number] = True, float(label == "harmful")
            understanding[number, list(encoding.positions("understanding"))] = True
            context[number, list(encoding.positions("context"))] = True
    return _ReadByHead(understanding, context, harmful, counted)


def _beginnings(starts: Sequence[int], context: Tensor) -> Int64[Tensor, "trace pos_u"]:
    """Columns of the row; a place that the head does not read points at the trace's first token."""
    offsets = torch.arange(context.shape[1]).where(context, 0)
    return torch.tensor(starts)[:, None] + offsets


def _query_pass(seconds: Sequence[_Second], pad_id: int, *, masks: bool) -> QueryPass:
    rows = [second for second in seconds if len(second.ids)]
    shape = (max(1, len(rows)), max([1, *(len(second.ids) for second in rows)]))
    ids = torch.full(shape, pad_id, dtype=torch.int64)
    mask, targets = torch.ones(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    for row, second in enumerate(rows):
        ids[row, : len(second.ids)] = second.ids
        mask[row, : second.n_masked] = 0
        targets[row, : len(second.ids)] = second.targets
    return QueryPass(input_ids=ids, attention_mask=mask if masks else None, targets=targets)


class _Second(NamedTuple):
    """What is read once more of a trace."""

    ids: Int64[Tensor, " token"]
    """The response up to the end of K, behind what stands in the prompt's place; none where no K is predicted."""
    targets: Bool[Tensor, " token"]
    """Tokens of K, but for one that has nothing before it."""
    n_masked: int = 0
    """Tokens at the beginning that are masked."""


_MASKED: Any = object()
"""Stands for the prompt that is masked."""


def _second(encoding: Encoding, prompt: Encoding | None, layout: QueryMask | None) -> _Second:
    key, start = encoding.positions("key_sentence"), encoding.response_start
    nothing = encoding.input_ids[:0]
    masks = prompt is _MASKED
    if layout is None or prompt is None or not len(key) or (masks and len(key) == 1 and key[0] == start):
        return _Second(nothing, nothing.bool())
    before = nothing
    if not masks:
        before = prompt.input_ids[: prompt.response_start]
    elif layout == "masked":
        before = encoding.input_ids[:start]
    ids = torch.cat([before, encoding.input_ids[start : encoding.end]])
    targets = torch.zeros(len(ids), dtype=torch.bool)
    targets[torch.tensor(list(key)) - start + len(before)] = True
    if masks or not len(before):
        targets[len(before)] = False
    return _Second(ids, targets, len(before) if masks else 0)


def _starts_response(encoding: Encoding) -> bool:
    key = encoding.positions("key_sentence")
    return len(key) > 0 and key[0] == encoding.response_start


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, QueryPass):
        return QueryPass(**{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value
