"""Chat templates: the text that the model would have seen.

The chat template over the conversation, up to the generation prompt, then the response exactly as it was generated: the
template is never asked to render the response, since R1-style templates delete the reasoning from assistant turns.
Where template and response both open the reasoning, it is opened once.

Models without a chat template get this plain form, system and earlier turns first, each with its capitalised role::

    User: {prompt}

    Assistant:
    {response}

``released`` is how the reference's public attention script reads a trace (attention_visulization.py, SafeKey's
repository, first commit): the prompt, and right behind it the first half of the response's characters, without a chat
template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from safekey_interp.data.reasoning_marks import FAMILIES
from safekey_interp.data.trace import CharSpan, Message, Trace
from safekey_interp.errors import TraceError
from safekey_interp.segmentation.named_spans import Part

Rendering = Literal["chat", "released"]
"""``chat`` is what the model would have seen, ``released`` what the reference's public attention script reads."""

_PLACEHOLDER = "safekeyplaceholderforprompt"


class Rendered(NamedTuple):
    """A conversation as text."""

    text: str
    """All of it, the response last."""
    prompt: CharSpan
    """The prompt in ``text``; of a chat template, without the white space around it."""
    response_start: int
    """First character of the response in ``text``."""
    add_special_tokens: bool
    """Whether the tokenizer has to add its own, since no template wrote them."""
    shifts: Mapping[Part, int]
    """What moves a character of the response, the prompt or another turn into ``text``; a turn that the template does
    not show as it is has none."""


def render(tokenizer: Any, trace: Trace, rendering: Rendering = "chat") -> Rendered:
    """The text that the model would have seen, with the place of the prompt and of the response in it.

    Args:
        tokenizer: a transformers tokenizer.
        trace: the trace.
        rendering: ``released`` for what the reference's attention script reads, whose response is half the trace's.

    Raises:
        TraceError: the chat template refuses the conversation, or loses the prompt.
    """
    if rendering == "released":
        prompt = CharSpan(0, len(trace.prompt))
        text = trace.prompt + trace.response[: len(trace.response) // 2]
        shifts: dict[Part, int] = {"prompt": 0, "response": prompt.end}
        return Rendered(text, prompt, prompt.end, add_special_tokens=True, shifts=shifts)
    if not getattr(tokenizer, "chat_template", None):
        head, shifts = "", {}
        for i, turn in enumerate(trace.turns):
            head += f"{turn.role.capitalize()}: "
            shifts["prompt" if i == len(trace.messages) else i] = len(head)
            head += f"{turn.content}\n\n"
        head += "Assistant:\n"
        prompt = CharSpan(shifts["prompt"], shifts["prompt"] + len(trace.prompt))
        shifts["response"] = len(head)
        return Rendered(head + trace.response, prompt, len(head), add_special_tokens=True, shifts=shifts)
    try:
        suffix = _after_prompt(_Hashable(tokenizer), trace.messages, trace.steps)
        head = _apply_template(tokenizer, trace.turns)
    except Exception as error:  # a template is a program of its author's: whatever it raises is about this trace
        raise TraceError(trace.trace_id, f"the chat template refuses its messages: {error}") from error
    prompt = _locate_prompt(head, suffix, trace)
    shifts = _locate_turns(tokenizer, head, prompt, trace)
    head = _without_doubled_opening(head, prompt.end, trace.response)
    shifts |= {"prompt": prompt.start - _n_leading(trace.prompt), "response": len(head)}
    return Rendered(head + trace.response, prompt, len(head), add_special_tokens=False, shifts=shifts)


def _apply_template(tokenizer: Any, turns: Iterable[Message]) -> str:
    conversation = [{"role": turn.role, "content": turn.content} for turn in turns]
    return tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)


class _Hashable:
    """A tokenizer as a cache key: by identity and template, since tokenizers compare by value."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.key = (id(tokenizer), tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else "")

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self.key == other.key


@lru_cache(maxsize=64)
def _after_prompt(tokenizer: _Hashable, messages: tuple[Message, ...], steps: tuple[Message, ...]) -> str | None:
    """What the template writes after the prompt; None when it does not show the prompt as it is."""
    turns = (*messages, Message(role="user", content=_PLACEHOLDER), *steps)
    _, placeholder, suffix = _apply_template(tokenizer.tokenizer, turns).rpartition(_PLACEHOLDER)
    return suffix if placeholder else None


def _locate_prompt(head: str, suffix: str | None, trace: Trace) -> CharSpan:
    """The prompt without the white space around it, which templates may trim."""
    prompt = trace.prompt.strip()
    if suffix is not None and head.endswith(suffix):
        # From the end, so that a prompt which repeats the template's own words is not taken for them.
        body = head[: len(head) - len(suffix)].rstrip()
        if body.endswith(prompt):
            return CharSpan(len(body) - len(prompt), len(body))
    if suffix is not None and head.count(prompt) == 1:
        # What follows the prompt depends on the prompt, or on the clock.
        start = head.index(prompt)
        return CharSpan(start, start + len(prompt))
    raise TraceError(trace.trace_id, "the chat template does not show the prompt as it is; remedy: another template")


def _locate_turns(tokenizer: Any, head: str, prompt: CharSpan, trace: Trace) -> dict[Part, int]:
    """What moves a character of each turn but the prompt into the text."""
    shifts: dict[Part, int] = {}
    cursor = 0
    turns = trace.turns
    for i, turn in enumerate(turns):
        if i == len(trace.messages):
            cursor = prompt.end
            continue
        text = head[: prompt.start] if i < len(trace.messages) else head
        content = turn.content.strip()
        at = text.find(content, cursor) if content else -1
        if at >= 0 and text.find(content, at + 1) >= 0:
            # Of several places with the same words, the one that changes with the turn.
            others = (*turns[:i], replace(turn, content=_PLACEHOLDER, spans={}), *turns[i + 1 :])
            at = _apply_template(tokenizer, others).find(_PLACEHOLDER)
            at = at if at >= cursor and text.startswith(content, at) else -1
        if at >= 0:
            shifts[i] = at - _n_leading(turn.content)
            cursor = at + len(content)
    return shifts


def _n_leading(text: str) -> int:
    """White space before the first word, which templates may trim."""
    return len(text) - len(text.lstrip())


def _without_doubled_opening(head: str, prompt_end: int, response: str) -> str:
    """``head`` without the reasoning tag that the template opened, when the response opens it itself."""
    stripped, opening = head.rstrip(), response.lstrip()
    for family in FAMILIES:
        cut = len(stripped) - len(family.opening)
        if cut >= prompt_end and stripped.endswith(family.opening) and opening.startswith(family.opening):
            return stripped[:cut]
    return head


def tokenizer_hash(tokenizer: Any) -> str:
    """What it makes of a text: its vocabulary and rules, and its chat template."""
    rules = tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(f"{rules}\n{tokenizer.chat_template}".encode()).hexdigest()
