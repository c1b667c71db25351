"""What does a model answer? Greedy decoding of many prompts at once, exactly as generated.

Prompts of like length share a batch, padded on the left; transformers' own ``generate`` decodes them with its cache and
stops at the end of the turn. Marks of the end and padding go, everything else stays, ``<think>`` included: the text is
what :attr:`safekey_interp.Trace.response` holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from safekey_interp.errors import InputError, TraceTooLong
from safekey_interp.models import Model
from safekey_interp.rendering import render
from safekey_interp.trace import Trace

_USUAL = 512
"""Most new tokens when none are asked for."""


def generate(
    model: Model, prompts: Sequence[str | Trace], *, max_new_tokens: int | None = None, batch_size: int = 16
) -> list[str]:
    """The model's greedy responses.

    Args:
        model: a model with its tokenizer.
        prompts: user texts; or traces, whose prompt and earlier turns are asked again and whose response is not read.
        max_new_tokens: largest number of tokens of a response; a response that is longer is cut there. When None, 512,
            or as many as fit behind the longest prompt.
        batch_size: prompts decoded at once.

    Returns:
        One response for each prompt, in their order.

    Raises:
        InputError: a number below 1.
        TraceError: the chat template refuses a prompt.
        TraceTooLong: prompt and response do not fit the positions that the model reads.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name}: got {value}, expected at least 1")
    asked = [_asked(prompt, number) for number, prompt in enumerate(prompts)]
    ids = [_prompt_ids(model, trace, max_new_tokens or 1) for trace in asked]
    if max_new_tokens is None:
        room = _USUAL if model.max_positions is None else model.max_positions - max(map(len, ids), default=0)
        max_new_tokens = min(_USUAL, room)
    responses = [""] * len(ids)
    for group in _length_groups(ids, batch_size):
        new = _decode(model, [ids[number] for number in group], max_new_tokens)
        for number, tokens in zip(group, new, strict=True):
            responses[number] = _text(model, tokens)
    return responses


def _asked(prompt: str | Trace, number: int) -> Trace:
    if isinstance(prompt, Trace):
        return prompt.with_(response="", given={})
    return Trace(trace_id=str(number), prompt=prompt, response="")


def _prompt_ids(model: Model, trace: Trace, max_new_tokens: int) -> list[int]:
    rendered = render(model.tokenizer, trace)
    ids = model.tokenizer(rendered.text, add_special_tokens=rendered.add_special_tokens)["input_ids"]
    if model.max_positions is not None and len(ids) + max_new_tokens > model.max_positions:
        raise TraceTooLong(
            trace.trace_id,
            f"its prompt of {len(ids)} tokens and {max_new_tokens} new ones go past the {model.max_positions} that the "
            "model reads; lower max_new_tokens",
        )
    return ids


def _length_groups(ids: Sequence[list[int]], batch_size: int) -> Iterator[list[int]]:
    """Numbers of prompts, those of like length together."""
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _decode(model: Model, ids: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    """New token ids of one batch, the mark of the end and padding included."""
    width = max(map(len, ids))
    padding = _padding(model)
    inputs = torch.tensor([[padding] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    with torch.no_grad():
        output: Tensor = model.hf.generate(
            input_ids=inputs,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=padding,
            eos_token_id=_ends(model) or None,
        )
    return output[:, width:].tolist()


def _text(model: Model, tokens: list[int]) -> str:
    """The response up to the end of the turn. Special tokens before it stay: some models mark their reasoning so."""
    end = next((i for i, token in enumerate(tokens) if token in _ends(model)), len(tokens))
    return model.tokenizer.decode(tokens[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _ends(model: Model) -> list[int]:
    """The tokens that end a turn: the generation configuration's, which may be several, and the tokenizer's."""
    configured: Any = getattr(model.hf.generation_config, "eos_token_id", None)
    found = configured if isinstance(configured, list) else [configured]
    return [token for token in dict.fromkeys([*found, model.tokenizer.eos_token_id]) if token is not None]


def _padding(model: Model) -> int:
    """Any token does, since the mask hides it."""
    padding: int | None = model.tokenizer.pad_token_id
    return padding if padding is not None else next(iter(_ends(model)), 0)
