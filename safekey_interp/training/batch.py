"""Which tensors does one training step need of its traces?

Token positions, never pieces that were tokenised apart: everything is cut from ``model.encode(trace)``. Rows are padded
on the right, without an attention mask: causality hides the padding.

The second pass, K predicted with the prompt masked, comes in three layouts with the same numbers:

- ``short``: a batch of its own, each row the tokens from the response's first to the last of K.
- ``packed``: the same tokens behind the full sequence, in the same row, as a document of their own: positions restart
  at 0, and so once more for the padding.
- ``masked``: the full sequence again up to the end of K, with an attention mask that hides all before the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safekey_interp.encoding import Encoding
from safekey_interp.errors import InputError
from safekey_interp.losses import Counts

QueryMask = Literal["short", "packed", "masked"]
"""How K is predicted with the prompt masked."""
LAYOUTS: tuple[str, ...] = get_args(QueryMask)


@dataclass(frozen=True, kw_only=True)
class QueryPass:
    """The rows in which K is predicted with the prompt masked."""

    input_ids: Int64[Tensor, "row_2 pos_2"]
    """Tokens; at least one row, so that every rank runs the same forwards."""
    attention_mask: Int64[Tensor, "row_2 pos_2"] | None
    """0 before the response; None where the prompt is not in the row at all."""
    targets: Bool[Tensor, "row_2 pos_2"]
    """Tokens of K that have a token of the response before them."""


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """One batch."""

    input_ids: Int64[Tensor, "row pos"]
    """Tokens of prompt and response; behind them, when packed, of response to the end of K again; then padding."""
    position_ids: Int64[Tensor, "row pos"] | None
    """Positions that restart with each document; None when there is one."""
    response: Bool[Tensor, "row pos"]
    """Tokens that the language modelling loss predicts."""
    understanding: Bool[Tensor, "row pos"]
    """U, in rows that the safety head counts; nothing in the others."""
    context: Bool[Tensor, "row pos"]
    """The first token to the end of U, in the same rows."""
    harmful: Float[Tensor, " row"]
    """1 for harmful, 0 for benign and for rows that do not count."""
    counted: Bool[Tensor, " row"]
    """Rows with a label and a U."""
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
    pad_id: int = 0,
) -> TrainingBatch:
    """Pad traces to a batch; without any, one token of padding of which nothing counts, so that every rank can run.

    Args:
        encodings: whole traces, prompt and response.
        labels: harmful, benign or None for each.
        layout: of the second pass; None for none.
        pad_id: any id that the model has an embedding for.

    Raises:
        InputError: an unknown layout.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"query_mask: got {layout!r}, expected one of {', '.join(LAYOUTS)}")
    again = [_again(encoding) if layout == "packed" else encoding.input_ids[:0] for encoding in encodings]
    both_lengths = (len(encoding.input_ids) + len(second) for encoding, second in zip(encodings, again, strict=True))
    width = max([1, *both_lengths])
    n_rows = max(1, len(encodings))
    shape = (n_rows, width)
    ids = torch.full(shape, pad_id, dtype=torch.int64)
    position = torch.zeros(shape, dtype=torch.int64)
    response, understanding, context, key, packed = (torch.zeros(shape, dtype=torch.bool) for _ in range(5))
    counted = torch.zeros(n_rows, dtype=torch.bool)
    harmful = torch.zeros(n_rows)
    for row, (encoding, label, second) in enumerate(zip(encodings, labels, again, strict=True)):
        n, both = len(encoding.input_ids), len(encoding.input_ids) + len(second)
        ids[row, :n], ids[row, n:both] = encoding.input_ids, second
        for document in (slice(0, n), slice(n, both), slice(both, width)):
            position[row, document] = torch.arange(len(range(width)[document]))
        # The very first token has nothing before it that could predict it.
        response[row, max(1, encoding.response_start) : n] = True
        key[row, [position for position in encoding.positions("key_sentence") if position]] = True
        if len(second):
            packed[row, n:both] = _key_in_second(encoding)
        where = list(encoding.positions("understanding"))
        if label is not None and where:
            counted[row], harmful[row] = True, float(label == "harmful")
            understanding[row, where] = True
            context[row, list(encoding.positions("context"))] = True
    return TrainingBatch(
        input_ids=ids,
        position_ids=position if layout == "packed" else None,
        response=response,
        understanding=understanding,
        context=context,
        harmful=harmful,
        counted=counted,
        key=key,
        packed=packed,
        query=_query_pass(encodings, layout, pad_id) if layout in ("short", "masked") else None,
        n_first_without_context=0 if layout is None else sum(map(_starts_the_response, encodings)),
    )


def _query_pass(encodings: Sequence[Encoding], layout: QueryMask | None, pad_id: int) -> QueryPass:
    with_key = [encoding for encoding in encodings if len(_again(encoding))]
    begins = [encoding.response_start if layout == "short" else 0 for encoding in with_key]
    rows = [encoding.input_ids[begin : encoding.end] for encoding, begin in zip(with_key, begins, strict=True)]
    shape = (max(1, len(rows)), max([1, *map(len, rows)]))
    ids = torch.full(shape, pad_id, dtype=torch.int64)
    mask, targets = torch.ones(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    for row, (encoding, begin, tokens) in enumerate(zip(with_key, begins, rows, strict=True)):
        ids[row, : len(tokens)] = tokens
        first = encoding.response_start - begin
        mask[row, :first] = 0
        targets[row, first : len(tokens)] = _key_in_second(encoding)
    return QueryPass(input_ids=ids, attention_mask=mask if layout == "masked" else None, targets=targets)


def _again(encoding: Encoding) -> Int64[Tensor, " token"]:
    """The tokens that are read once more: the response up to the end of K; none where there is no K to predict."""
    key = encoding.positions("key_sentence")
    if not len(key) or (len(key) == 1 and _starts_the_response(encoding)):
        return encoding.input_ids[:0]
    return encoding.input_ids[encoding.response_start : encoding.end]


def _key_in_second(encoding: Encoding) -> Bool[Tensor, " token"]:
    """Which tokens of :func:`_again` are predicted: K, but for a first token that has nothing before it."""
    key = torch.zeros(encoding.end - encoding.response_start, dtype=torch.bool)
    where = torch.tensor(list(encoding.positions("key_sentence"))) - encoding.response_start
    key[where] = True
    key[0] = False
    return key


def _starts_the_response(encoding: Encoding) -> bool:
    key = encoding.positions("key_sentence")
    return len(key) > 0 and key[0] == encoding.response_start


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, QueryPass):
        return QueryPass(**{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value
