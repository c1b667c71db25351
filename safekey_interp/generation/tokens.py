"""Tokens of a request, and the text of the tokens that answer it.

Prompt and prefill are rendered and tokenised once, whole. A response is decoded with the tokens before it, since some
tokenizers drop a space at the beginning of what they decode, and a prefill may end within a character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from safekey_interp.errors import TraceTooLong
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.sampling import USUAL_TOKENS
from safekey_interp.models.chat_template import render
from safekey_interp.models.tokenisation import tokenise

_BEFORE = 8
"""Tokens decoded before the ones that count: longer than any character, so that they begin at a whole one."""


class PromptTokens(NamedTuple):
    """A request as the model reads it."""

    ids: list[int]
    """Tokens of prompt and prefill."""
    n_prefill: int
    """How many of them, the last, hold the prefill."""

    @property
    def response_start(self) -> int:
        """Position of the response's first token."""
        return len(self.ids) - self.n_prefill


def prompt_tokens(tokenizer: Any, request: Request) -> PromptTokens:
    """Tokens of a request's prompt and prefill.

    Raises:
        TraceError: the chat template refuses the conversation.
    """
    if request.input_ids is not None:
        return PromptTokens(list(request.input_ids), request.depth or 0)
    rendered = render(tokenizer, request.trace.with_(response=request.prefill, given={}))
    ids, offsets = tokenise(tokenizer, rendered)
    n_prefill = sum(end > rendered.response_start for _, end in offsets)
    return PromptTokens(list(ids), n_prefill)


def usual_limit(tokenizer: Any, requests: Sequence[Request], max_positions: int | None) -> int:
    """New tokens when no number is given: 512, or as many as fit behind the longest prompt."""
    if max_positions is None:
        return USUAL_TOKENS
    longest = max((len(prompt_tokens(tokenizer, request).ids) for request in requests), default=0)
    return max(1, min(USUAL_TOKENS, max_positions - longest))


def check_room(request: Request, n_prompt: int, max_new_tokens: int, max_positions: int | None) -> None:
    """Refuse a prompt that leaves no room for its response.

    Raises:
        TraceTooLong: with the numbers.
    """
    if max_positions is not None and n_prompt + max_new_tokens > max_positions:
        what = "prompt and prefill" if request.prefill else "prompt"
        raise TraceTooLong(
            request.trace.trace_id,
            f"its {what} of {n_prompt} tokens and {max_new_tokens} new ones go past the {max_positions} that the model "
            "reads; lower max_new_tokens",
        )


def room_behind(request: Request, n_prompt: int, wanted: int | None, max_positions: int | None) -> int:
    """Most new tokens: as many as are wanted, 512 when None, or as fit behind a prompt.

    Raises:
        TraceTooLong: none does.
    """
    wanted = USUAL_TOKENS if wanted is None else wanted
    if max_positions is None:
        return wanted
    if n_prompt >= max_positions:
        raise TraceTooLong(
            request.trace.trace_id,
            f"its prompt of {n_prompt} tokens fills the {max_positions} that the model reads; shorten it",
        )
    return min(wanted, max_positions - n_prompt)


def before_end(new: Sequence[int], ends: Iterable[int]) -> list[int]:
    """New tokens up to the first that ends a turn."""
    marks = set(ends)
    end = next((number for number, token in enumerate(new) if token in marks), len(new))
    return list(new[:end])


def response_text(tokenizer: Any, request: Request, prompt: PromptTokens, new: Sequence[int]) -> str:
    """Prefill and new tokens as text. Special tokens stay: some models mark their reasoning so."""
    start = prompt.response_start
    whole = _decoded(tokenizer, prompt.ids[max(0, start - _BEFORE) : start], [*prompt.ids[start:], *new])
    if whole.startswith(request.prefill):
        return whole
    # Tokens that reach over the prefill's edge, or a tokenizer that does not give back what it was given.
    return request.prefill + _decoded(tokenizer, prompt.ids[-_BEFORE:], new)


def generated_from(
    tokenizer: Any,
    request: Request,
    prompt: PromptTokens,
    new: Sequence[int],
    *,
    cut: bool,
    engine: str,
    seed: int | None,
    edited: Sequence[Sequence[int]] = (),
) -> Generated:
    """The response of an engine that knows its tokens.

    Args:
        tokenizer: the model's.
        request: what was asked.
        prompt: its tokens.
        new: tokens that the model wrote, without the mark of the end.
        cut: whether the largest number of tokens ended the response.
        engine: name of the engine.
        seed: of the draw; None at temperature 0.
        edited: tokens that each edit touched; those behind the response are left out.
    """
    n = len(prompt.ids) + len(new)
    return Generated(
        request=request,
        response=response_text(tokenizer, request, prompt, new),
        cut=cut,
        n_tokens=len(new),
        engine=engine,
        seed=seed,
        input_ids=tuple(prompt.ids),
        response_start=prompt.response_start,
        new_ids=tuple(new),
        edited=tuple(tuple(token for token in tokens if token < n) for tokens in edited),
    )


def _decoded(tokenizer: Any, before: Sequence[int], ids: Sequence[int]) -> str:
    """The text that ``ids`` add to that of ``before``."""
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    known = tokenizer.decode(list(before), **options)
    text = tokenizer.decode([*before, *ids], **options)
    return text[len(known) :] if text.startswith(known) else tokenizer.decode(list(ids), **options)
