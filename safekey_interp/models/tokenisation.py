"""Tokenisation of a text, and the tokens of its character spans.

A text is tokenised once, whole. A token belongs to the span that holds its anchor: its first character that is not
white space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safekey_interp.data.trace import CharSpan, TokenSpan
from safekey_interp.errors import InputError, ModelError
from safekey_interp.models.chat_template import Rendered


def tokenise(tokenizer: Any, rendered: Rendered) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a rendered conversation, and the characters behind each; without an end that the tokenizer adds.

    Raises:
        ModelError: the tokenizer reports no offsets.
    """
    check_offsets(tokenizer)
    tokens = tokenizer(
        rendered.text,
        add_special_tokens=rendered.add_special_tokens,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )
    input_ids, offsets = tokens["input_ids"], tokens["offset_mapping"]
    end = len(offsets)
    # An end of sequence that the tokenizer adds was not there when the model wrote its response.
    while end and tokens["special_tokens_mask"][end - 1] and offsets[end - 1][0] == offsets[end - 1][1]:
        end -= 1
    return input_ids[:end], offsets[:end]


def single_token(tokenizer: Any, text: str) -> int:
    """The token that a text is: its only one, else the entry of the vocabulary that is written so.

    Raises:
        InputError: it is several tokens, or none.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 and text in tokenizer.get_vocab():
        ids = [tokenizer.get_vocab()[text]]
    if len(ids) != 1:
        pieces = ", ".join(repr(tokenizer.decode([each])) for each in ids[:6])
        raise InputError(
            f"token {text!r}: got {len(ids)} tokens ({pieces}), expected one; write it with the white space that "
            "belongs before it, or take logprob"
        )
    return ids[0]


def check_offsets(tokenizer: Any) -> None:
    """Refuse a tokenizer that reports no character offsets.

    Raises:
        ModelError: it is no fast tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"tokenizer {type(tokenizer).__name__}: reports no character offsets, so that spans cannot be placed; "
            "expected one with a tokenizer.json (a fast tokenizer)"
        )


def anchor_of(text: str, start: int, end: int) -> int:
    """First character of a token that is not white space; its first character when all are; -1 when it has none."""
    if end <= start:
        return -1
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()) if not piece.isspace() else start


def token_span(text: str, anchors: Sequence[int], span: CharSpan | None) -> TokenSpan | None:
    """The tokens whose anchors lie in a span of the text; None without a span, and where it has none of its own."""
    if span is None:
        return None
    # Without the white space at its edges: a token of nothing else belongs to no span there.
    words = span.text(text)
    end = span.start + len(words.rstrip())
    start = end - len(words.strip())
    inside = [i for i, anchor in enumerate(anchors) if start <= anchor < end]
    return TokenSpan(inside[0], inside[-1] + 1) if inside else None


def straddling_tokens(text: str, offsets: Sequence[tuple[int, int]], edges: Sequence[CharSpan]) -> tuple[int, ...]:
    """Tokens with words on both sides of an edge of a span."""
    cuts = sorted({edge.start for edge in edges} | {edge.end for edge in edges})
    tokens = []
    for i, (start, end) in enumerate(offsets):
        if end - start < 2:
            continue
        for cut in cuts:
            if start < cut < end and text[start:cut].strip() and text[cut:end].strip():
                tokens.append(i)
                break
    return tuple(tokens)
