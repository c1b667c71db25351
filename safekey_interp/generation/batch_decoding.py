"""Decoding of a batch by transformers' own ``generate``: prompts padded on the left, their past computed once.

What else a checkpoint's generation configuration sets (penalties, temperatures, texts to suppress) is ignored: the
likeliest token is the argmax of the plain forward pass, and
:class:`~safekey_interp.generation.sampling_settings.Sampling` decides a draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicCache

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.prefix_cache import has_prefix_cache
from safekey_interp.generation.edited_decoding import EditedDecoding
from safekey_interp.generation.sampling import OwnStreams, Sampling, TiesAlone
from safekey_interp.models.model import Model


def decode(
    model: Model,
    ids: Sequence[list[int]],
    sampling: Sampling,
    decoding: EditedDecoding,
    *,
    seeds: list[int],
    ends: list[int],
    most: int,
) -> list[list[int]]:
    """New token ids of one batch, the mark of the end and padding included.

    Args:
        model: the model.
        ids: tokens of each row's prompt and prefill.
        sampling: how tokens are drawn.
        decoding: what is changed in the model meanwhile.
        seeds: of each row's draws.
        ends: tokens that end a response.
        most: largest number of new tokens.
    """
    width = max(map(len, ids))
    padding = _padding(model, ends)
    inputs = torch.tensor([[padding] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    chosen = LogitsProcessorList()
    if not sampling.is_greedy:
        chosen.append(OwnStreams(seeds, sampling, width=width, most=most))
    elif model.dtype == torch.float32:
        chosen.append(TiesAlone(model.hf, mask, ends, lambda row: decoding.passing([row], padded=False)))
    plain = GenerationConfig(
        max_new_tokens=most, do_sample=False, use_cache=True, pad_token_id=padding, eos_token_id=ends or None
    )
    with torch.no_grad(), evaluating(model.hf), _configured(model.hf, plain), decoding.applied():
        past = _shared_past(model, ids, inputs, mask, decoding)
        options = {} if past is None else {"past_key_values": past}
        output: Tensor = model.hf.generate(input_ids=inputs, attention_mask=mask, logits_processor=chosen, **options)
    return output[:, width:].tolist()


def _shared_past(
    model: Model, ids: Sequence[list[int]], inputs: Tensor, mask: Tensor, decoding: EditedDecoding
) -> DynamicCache | None:
    """Keys and values of all but the last token of each row, computed once for rows of the same tokens and edits; None
    where that saves nothing, or the model has no such past."""
    first: dict[Any, int] = {}
    of = [first.setdefault((tuple(row), decoding.alike(number)), number) for number, row in enumerate(ids)]
    if 2 * len(first) > len(ids) or inputs.shape[1] < 2 or not has_prefix_cache(model):
        return None
    rows = sorted(first.values())
    cache = DynamicCache(config=model.config)
    before = mask[rows, :-1]
    positions = (before.cumsum(-1) - 1).clamp(min=0)
    with decoding.passing(rows):
        decoding.begins(inputs[rows, :-1], 0)
        model.hf.get_decoder()(
            input_ids=inputs[rows, :-1],
            attention_mask=before,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
    place = {row: number for number, row in enumerate(rows)}
    cache.batch_select_indices(torch.tensor([place[row] for row in of], device=inputs.device))
    return cache


@contextmanager
def _configured(hf: Any, configuration: GenerationConfig) -> Iterator[None]:
    """Has ``hf.generate`` do what is asked and no more: what is left open would come from the model's own."""
    own = hf.generation_config
    hf.generation_config = configuration
    try:
        yield
    finally:
        hf.generation_config = own


def _padding(model: Model, ends: list[int]) -> int:
    """Any token does, since the mask hides it."""
    padding: int | None = model.tokenizer.pad_token_id
    return padding if padding is not None else next(iter(ends), 0)
