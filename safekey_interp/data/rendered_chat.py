"""Conversations rendered by a chat template, as one text: ChatML, Llama, Gemma, DeepSeek, Mistral, Phi, transcripts.

Files of rollouts, of fine-tuning and of preferences hold the prompt as the model was given it. Here it is taken apart
into turns again, so that the template of the model that is measured writes it, once. The marks of reasoning inside an
answer stay as they are.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from safekey_interp.data.turn_text import OPENING, ROLES, Turn


class _Template(NamedTuple):
    """How one family of templates marks its turns."""

    opening: re.Pattern[str]
    """Begins a turn; its group ``role`` is the role, its last word at least."""
    closing: tuple[str, ...]
    """Ends a turn."""


def _template(opening: str, *closing: str) -> _Template:
    return _Template(re.compile(opening), closing)


_NOTHING = re.compile(r"\s*(?:<\|begin_of_text\|>|<bos>|<s>|<｜begin▁of▁sentence｜>|<\|endoftext\|>)?\s*")
"""What may stand before the first turn."""
_TEMPLATES = (
    _template(r"<\|im_start\|>(?P<role>[a-z_]+)\n", "<|im_end|>", "<|endoftext|>"),
    _template(r"<\|start_header_id\|>(?P<role>[a-z_]+)<\|end_header_id\|>\s*", "<|eot_id|>", "<|end_of_text|>"),
    _template(r"<start_of_turn>(?P<role>[a-z_]+)\n", "<end_of_turn>", "<eos>"),
    _template(r"<｜(?P<role>User|Assistant)｜>", "<｜end▁of▁sentence｜>"),
    _template(r"<\|start\|>(?P<role>system|developer|user|assistant)(?:<\|message\|>)?", "<|end|>", "<|return|>"),
    _template(r"<\|(?P<role>system|user|assistant)\|>\n?", "<|end|>", "</s>", "<|endoftext|>"),
    _template(r"(?P<role>\[INST\]|\[/INST\])", "</s>", "<s>"),
    _template(r"(?:^|\n\n)(?P<role>Human|Assistant): ?"),
)
_ROLES = {**ROLES, "[INST]": "user", "[/INST]": "assistant"}
_MAY_BEGIN = frozenset("<[H\n ")


def read_rendered(text: str, read_from: str = "") -> list[Turn] | None:
    """The turns of a rendered conversation; None where the text is none.

    Args:
        text: from the first turn; a mark of a text's beginning may stand before it, an open turn of the assistant,
            as templates write before generation, at its end.
        read_from: the column that it stood in.
    """
    if text[:1] not in _MAY_BEGIN:
        return None
    for opening, closing in _TEMPLATES:
        first = opening.search(text)
        # DeepSeek's system text stands before the first mark of a turn, behind that of the text's beginning.
        if first and (_NOTHING.fullmatch(text[: first.start()]) or ("｜" in first[0] and text.startswith("<｜begin"))):
            return _turns(text, opening, closing, read_from)
    return None


def _turns(text: str, opening: re.Pattern[str], closing: tuple[str, ...], read_from: str) -> list[Turn] | None:
    found = list(opening.finditer(text))
    turns = []
    if before := text[: found[0].start()].partition("｜>")[2].strip():
        turns.append(Turn("system", before))
    for match, end in zip(found, [*(one.start() for one in found[1:]), len(text)], strict=True):
        content = text[match.end() : end]
        content = _without(content, closing)
        role = _ROLES.get(match["role"], _ROLES.get(match["role"].lower(), match["role"].lower()))
        is_open = end == len(text) and role == "assistant" and content.strip() in ("", OPENING)
        if not is_open:
            turns.append(Turn(role, content, read_from=("", read_from)))
        if len(turns) > 1 and turns[-2].role == role == "assistant":  # harmony's channels are messages of their own
            *turns, channel, rest = turns
            turns.append(channel._replace(text=f"{channel.text}<|end|>{match[0]}{rest.text}"))
    return turns if any(turn.role == "user" for turn in turns) else None


def _without(content: str, closing: tuple[str, ...]) -> str:
    """The text of a turn without its end and the white space that the template puts around it."""
    content = content.strip()
    while mark := next((mark for mark in closing if content.endswith(mark)), None):
        content = content.removesuffix(mark).rstrip()
    return content
