"""Replies of an OpenAI-compatible endpoint: the answer, and the reasoning before it.

Thinking is kept apart from the answer where the server reports it apart: as ``reasoning_content`` (vLLM, SGLang,
DeepSeek), as ``reasoning`` (vLLM since 0.11, OpenRouter, Groq), or as parts of the content (Mistral). A server that
leaves its tags in the content has them there in the reply, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple


class BadReply(Exception):
    """A reply came and cannot be used; the message says why in words that a model can mend."""


class Reply(NamedTuple):
    """What an endpoint replied."""

    content: str
    """The answer; empty when the model wrote none."""
    reasoning: str = ""
    """What the model thought, where the server tells it apart from the answer."""
    finish: str | None = None
    """Why it ended there, as the server says: ``stop``, ``length``, ``content_filter``."""
    n_tokens: int | None = None
    """Tokens that the model wrote, thinking included; None when the server does not count them."""

    def text(self) -> str:
        """The answer.

        Raises:
            BadReply: it is empty.
        """
        if not self.content.strip():
            raise BadReply("the reply held no text")
        return self.content


def read_reply(body: bytes) -> Reply:
    """The reply in a chat completion; the client does not check what it was sent.

    Args:
        body: as it was sent; JSON is UTF-8 between hosts, whatever a header says (RFC 8259).

    Raises:
        BadReply: not UTF-8, no chat completion, or no text in it.
    """
    try:
        completion = json.loads(body.decode("utf-8-sig"))
        choice = completion["choices"][0]
        message = choice["message"]
        parts = {name: message.get(name) for name in ("content", "reasoning_content", "reasoning", "refusal")}
    except UnicodeDecodeError:
        raise BadReply("the reply was not UTF-8") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BadReply("the reply was no chat completion") from None
    content, thought = _parts(parts["content"])
    if content is None:
        content = parts["refusal"] if isinstance(parts["refusal"], str) else None
    apart = (parts[name] for name in ("reasoning_content", "reasoning"))
    reasoning = next((text for text in apart if isinstance(text, str) and text), thought)
    if content is None and not reasoning:
        raise BadReply("the reply held no text")
    finish, usage = choice.get("finish_reason"), completion.get("usage")
    n_tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return Reply(
        content or "",
        reasoning,
        finish if isinstance(finish, str) else None,
        n_tokens if isinstance(n_tokens, int) else None,
    )


def _parts(content: object) -> tuple[str | None, str]:
    """Answer and thought of a message's content, which is a text or a list of parts; None for no answer."""
    if not isinstance(content, list):
        return (content if isinstance(content, str) else None), ""
    answer, thought = "", ""
    for part in content:
        if isinstance(part, Mapping) and part.get("type") == "thinking":
            inner = part.get("thinking")
            thought += inner if isinstance(inner, str) else _parts(inner)[0] or ""
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            answer += part["text"]
    return answer, thought
