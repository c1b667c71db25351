"""Text of a chat turn: content, content parts and reasoning of OpenAI, vLLM, DeepSeek, OpenRouter, Anthropic, Gemini.

APIs take the reasoning out of what the model wrote. Here it stands before the answer again, ``<think>`` reasoning
``</think>`` answer, where it is found in :data:`~safekey_interp.data.column_names.REASONING_FIELDS` of the turn or in
parts of its content (:data:`PARTS`). White space that the API took from the ends of the reasoning becomes what the chat
templates of DeepSeek-R1, QwQ and Qwen3 write there. Text that has its marks is left as it is.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from safekey_interp.data.cell_values import json_value, kind_in_words
from safekey_interp.data.column_names import REASONING_FIELDS
from safekey_interp.data.reasoning_marks import FAMILIES, is_marked
from safekey_interp.data.row_spans import Intervals, moved, read_spans
from safekey_interp.errors import InputError

OPENING, CLOSING = FAMILIES[0].opening, FAMILIES[0].closing
_FOLDED = '<details type="reasoning"'
_SWITCHES = ("", "on", "off", "true", "false", "none", "null")
"""What a column of reasoning holds where it only says whether there is any."""
_CUT = ("length", "max_tokens", "MAX_TOKENS", "incomplete")
"""Why a reply ended that was cut by its largest number of tokens, as the APIs say it."""

_PLAIN = {"role", "content"}
ROLE_FIELDS = ("role", "from", "speaker", "author", "sender")
CONTENT_FIELDS = ("content", "value", "text", "parts", "body", "generated_text", "answer")
ROLES: Mapping[str, str] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "ai", "chatgpt", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}
"""Roles that several names stand for; other names stay as they are."""

PARTS: Mapping[str | None, tuple[Literal["text", "reasoning"], tuple[str, ...]]] = {
    None: ("text", ("text", "content", "answer")),  # Gemini's parts have no type
    "text": ("text", ("text",)),
    "input_text": ("text", ("text",)),
    "output_text": ("text", ("text",)),
    "refusal": ("text", ("refusal",)),
    "thinking": ("reasoning", ("thinking", "text")),
    "thoughts": ("reasoning", ("thoughts",)),  # of ChatGPT's export
    "thought": ("reasoning", ("thought", "text")),
    "reasoning": ("reasoning", ("reasoning", "content", "summary", "text")),
    "reasoning_text": ("reasoning", ("text",)),
    "summary_text": ("reasoning", ("text",)),
    "reasoning.text": ("reasoning", ("text",)),
    "reasoning.summary": ("reasoning", ("summary",)),
}
"""Parts of a content by their ``type``: what they hold, and the fields that may have it; other types are left out."""


class Turn(NamedTuple):
    """One turn of a conversation as text."""

    role: str
    text: str
    spans: Mapping[str, Intervals] = {}
    """Named spans of the text."""
    read_from: tuple[str, str] = ("", "")
    """Where its reasoning, if that stood apart, and its answer were."""
    left_out: tuple[str, ...] = ()
    """Kinds of parts that are no text."""
    shift: int = 0
    """Characters of reasoning and its marks that were put before the answer."""

    @property
    def has_reasoning(self) -> bool:
        """Whether reasoning is marked in the text."""
        return is_marked(self.text)


class _Piece(NamedTuple):
    kind: Literal["text", "reasoning"]
    text: str


def read_turn(turn: Any, where: str, *, role: str | None = None, finish: Any = None) -> Turn:
    """A message of any API as text.

    Args:
        turn: an object with role and content; reasoning in a field of its own, or in parts of the content.
        where: how messages name it.
        role: of a turn that need not say it.
        finish: why the reply ended, as the API says; one that was cut in its reasoning leaves it open.

    Raises:
        InputError: no role, no content, or values of another kind.
    """
    if not isinstance(turn, Mapping):
        raise InputError(f"{where}: got {kind_in_words(turn)}, expected role and content")
    if turn.keys() == _PLAIN and type(turn["role"]) is type(turn["content"]) is str:  # most turns, and there are many
        said, content = ROLES.get(turn["role"].lower(), turn["role"]), turn["content"]
        if not content.startswith(_FOLDED):
            return Turn(said, content, read_from=("", "content"))
    said = next((turn[name] for name in ROLE_FIELDS if name in turn), None)
    # OpenCompass has a turn's text in "prompt"; a reply may repeat what it answers there, and has no role.
    fields = CONTENT_FIELDS if said is None else (*CONTENT_FIELDS, "prompt")
    content_field, said = next((name for name in fields if name in turn), None), said or role
    said = said.get("role") if isinstance(said, Mapping) else said  # as ChatGPT's export has its author
    content = turn.get(content_field) if content_field else None
    calls = bool(turn.get("tool_calls") or turn.get("function_call"))
    reasoning_field, reasoning = _reasoning_of(turn)
    if content is None and turn.get("refusal"):
        content_field, content = "refusal", turn["refusal"]
    if said is None or (content_field is None and not reasoning and not calls):
        raise InputError(f"{where}: got the fields {', '.join(map(str, turn))}, expected role and content")
    if not isinstance(said, str):
        raise InputError(f"{where}.role: got {kind_in_words(said)}, expected text")
    if content is None and (reasoning or calls):
        content = ""
    if isinstance(content, str) and not reasoning and content.startswith(_FOLDED):
        reasoning_field, reasoning, content = content_field or "", *_unfolded(content)
    at = f"{where}.{content_field or 'content'}"
    said = ROLES.get(said.lower(), said)
    spans = read_spans(turn.get("spans"), f"{where}.spans") or {}
    if isinstance(content, str) and not reasoning and turn.get("channel") != "analysis":
        return Turn(said, content, spans, ("", content_field or ""), ("tool_call",) if calls else ())
    left_out: list[str] = ["tool_call"] if calls else []
    pieces = list(_pieces(content, at, left_out))
    if turn.get("channel") == "analysis":  # harmony's messages, one a channel
        pieces = [_Piece("reasoning", piece.text) for piece in pieces]
    in_parts = any(piece.kind == "reasoning" for piece in pieces)
    marked = any(is_marked(piece.text) for piece in pieces)
    if reasoning and not in_parts and not marked:
        pieces.insert(0, _Piece("reasoning", reasoning))
    text, shift = _written(pieces, is_cut=finish in _CUT)
    found = f"{content_field} parts" if in_parts else "" if marked else reasoning_field
    return Turn(said, text, moved(spans, shift), (found, content_field or ""), tuple(left_out), shift)


def with_reasoning(turn: Turn, reasoning: Any, column: str) -> Turn:
    """A turn with the reasoning of a column before it; as it is where it has marks, or the column has no text."""
    thought = _thought(reasoning)
    if not thought or turn.has_reasoning:
        return turn
    text, shift = _written([_Piece("reasoning", thought), _Piece("text", turn.text)], is_cut=False)
    read_from = column, turn.read_from[1]
    return turn._replace(text=text, spans=moved(turn.spans, shift), read_from=read_from, shift=shift)


def merged_channels(turns: Sequence[Turn]) -> list[Turn]:
    """Turns, of which those that hold reasoning alone are one with the assistant's next."""
    merged: list[Turn] = []
    for turn in turns:
        last = merged[-1] if merged else None
        if last and last.role == turn.role == "assistant" and last.text.endswith(CLOSING) and not turn.has_reasoning:
            text = f"{last.text}{_after(turn.text)}"
            shift = len(text) - len(turn.text)
            read_from = last.read_from[0] or "the channel analysis", turn.read_from[1]
            left_out = last.left_out + turn.left_out
            merged[-1] = Turn(last.role, text, moved(turn.spans, shift), read_from, left_out, shift)
        else:
            merged.append(turn)
    return merged


def _unfolded(content: str) -> tuple[str, str]:
    """Reasoning and answer of a text with the block in which Open WebUI folds reasoning away, each line a quotation."""
    block, _, answer = content.partition("</details>")
    thought = block.partition("</summary>")[2].strip("\n")
    lines = [html.unescape(line.removeprefix(">").removeprefix(" ")) for line in thought.split("\n")]
    return "\n".join(lines), answer.lstrip("\n")


def _reasoning_of(turn: Mapping[str, Any]) -> tuple[str, str]:
    for name in REASONING_FIELDS:
        if name in turn and (text := _thought(turn[name])):
            return name, text
    return "", ""


def _thought(value: Any) -> str:
    """The text of what may be reasoning: a text, an object or a list of parts; empty where there is none."""
    value = json_value(value, ("[{", "{"))
    if isinstance(value, str):
        return "" if value.strip().lower() in _SWITCHES else value
    if isinstance(value, Mapping):
        if value.get("type") not in PARTS:
            return ""
        return next(
            (text for name in ("text", *PARTS[value.get("type")][1]) if (text := _thought(value.get(name)))), ""
        )
    if isinstance(value, list | tuple):
        return "\n\n".join(text for item in value if (text := _thought(item)))
    return ""


def _pieces(content: Any, where: str, left_out: list[str]):
    if isinstance(content, str):
        yield _Piece("text", content)
        return
    if isinstance(content, Mapping):  # one part; in ChatGPT's export an object with a list of them
        parts = content.get("parts")
        content = parts if isinstance(parts, list) else [{"type": content.get("content_type"), **content}]
    if not isinstance(content, list | tuple):
        raise InputError(f"{where}: got {kind_in_words(content)}, expected text")
    for number, part in enumerate(content):
        if isinstance(part, str):
            yield _Piece("text", part)
            continue
        if not isinstance(part, Mapping):
            raise InputError(f"{where}[{number}]: got {kind_in_words(part)}, expected text or a part of a message")
        if isinstance(inner := part.get("reasoningContent"), Mapping):  # of Bedrock's Converse
            part = {"type": "reasoning", **{"text": "", **inner, **(inner.get("reasoningText") or {})}}  # noqa: PLW2901
        kind, fields = PARTS.get(part.get("type"), ("", ("",)))
        kind = "reasoning" if part.get("thought") is True and kind == "text" else kind
        if kind == "reasoning" and (text := _thought({"type": part.get("type"), **part})):
            yield _Piece("reasoning", text)
        elif kind == "text" and (text := _first_text(part, fields)) is not None:
            yield _Piece("text", text)
        else:
            left_out.append(str(part.get("type") or next(iter(part), "part")))


def _first_text(part: Mapping[str, Any], fields: tuple[str, ...]) -> str | None:
    return next((part[name] for name in fields if isinstance(part.get(name), str)), None)


def _written(pieces: Sequence[_Piece], *, is_cut: bool) -> tuple[str, int]:
    """The pieces in one text, and where the first that is no reasoning begins in it."""
    text, shift = "", 0
    groups = [(kind, [piece.text for piece in group]) for kind, group in groupby(pieces, key=attrgetter("kind"))]
    answered = any(text.strip() for kind, texts in groups if kind == "text" for text in texts)
    for number, (kind, texts) in enumerate(groups):
        if kind == "text":
            joined = "".join(texts)
            text += _after(joined) if number and joined else joined
            shift = shift or len(text) - len(joined)
            continue
        thought = "\n\n".join(texts)
        text += OPENING + ("" if thought[:1].isspace() else "\n") + thought
        if answered or not is_cut:
            text += ("" if thought[-1:].isspace() else "\n") + CLOSING
    return text, shift


def _after(answer: str) -> str:
    return answer if answer[:1].isspace() else f"\n\n{answer}"
