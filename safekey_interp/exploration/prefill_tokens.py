"""Tokens of what a fork begins with: those that its parent wrote, as they were, and those of the text behind them.

A model may write as two tokens what its tokenizer reads as one (two line feeds, for one): tokenised again, a fork would
begin with tokens that were never there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safekey_interp.data.trace import Trace
from safekey_interp.generation.requests import Request
from safekey_interp.generation.tokens import PromptTokens, prompt_tokens
from safekey_interp.generation.written_text import WrittenText
from safekey_interp.models.chat_template import render
from safekey_interp.models.tokenisation import tokenise


def request_of(tokenizer: Any, request: Request, prefill_ids: Sequence[int] | None) -> Request:
    """A request whose prefill is of these tokens; of those of its text when None."""
    if prefill_ids is None:
        return request
    before = prompt_tokens(tokenizer, Request(trace=request.trace)).ids
    about = {name: getattr(request, name) for name in ("trace", "prefill", "edits")}
    return Request(**about, input_ids=(*before, *prefill_ids), depth=len(prefill_ids))


def prefill_ids(tokenizer: Any, trace: Trace, prefill: str, prompt: PromptTokens, known: Sequence[int]) -> Any:
    """Tokens of a prefill that begins with what is written.

    Behind the last written token that ends where a token of the whole text does, tokens are those of the text: an edit
    may grow together with what is before it.

    Args:
        tokenizer: the model's.
        trace: whose response begins so.
        prefill: the text.
        prompt: tokens of the response that it is taken from, those before it counted.
        known: the first of its response, which the prefill may begin with.

    Returns:
        tuple of int; None where they are those of the text.
    """
    rendered = render(tokenizer, trace.with_(response=prefill, given={}))
    ids, offsets = tokenise(tokenizer, rendered)
    before = prompt_tokens(tokenizer, Request(trace=trace)).ids
    if before != prompt.ids[: prompt.response_start]:  # a token reaches over the beginning of the response
        return None
    text = WrittenText(tokenizer, Request(trace=trace), PromptTokens(before, 0))
    ends = [0, *(len(text.text) if text.write(token) else -1 for token in known)]  # -1: within a character
    # Behind a token, and not before the next: some tokenizers leave out the space that a token begins with.
    behind = {end - rendered.response_start: number for number, (_, end) in enumerate(offsets, 1)}
    for n in range(len(known), 0, -1):
        if ends[n] in behind and prefill.startswith(text.text[: ends[n]]):
            made = [*before, *known[:n], *ids[behind[ends[n]] :]]
            return None if made == list(ids) else tuple(made[len(before) :])
    return None
