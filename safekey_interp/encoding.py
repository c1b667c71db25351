"""Which tokens are the prompt, the understanding and the key sentence?

The text is what the model would have seen: the chat template up to the generation prompt, then the response exactly as it
was generated. It is tokenised once, whole; spans come from the tokenizer's offsets over that text, and a piece is never
tokenised on its own to be counted. A token belongs to the span that holds its first character that is not white space;
white space alone between two spans belongs to neither; a token whose other characters reach over a span's edge (Llama-3's
``>Okay``) is listed as straddling.

Models without a chat template get this plain form, system and earlier turns first, each with its capitalised role::

    User: {prompt}

    Assistant:
    {response}
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor

from safekey_interp.errors import ModelError, TraceError, TraceTooLong
from safekey_interp.finders.reasoning import FAMILIES
from safekey_interp.trace import CharSpan, Message, TokenSpan, Trace

if TYPE_CHECKING:
    from safekey_interp.segmentation import Segmentation

SPANS = ("prompt", "template", "first_token", "understanding", "key_sentence", "decision")
"""The spans of every encoding, in this order."""

_PLACEHOLDER = "safekeyplaceholderforprompt"


@dataclass(frozen=True)
class TokenSet:
    """Token positions in several pieces: the template surrounds the prompt."""

    spans: tuple[TokenSpan, ...]
    """The pieces, in order, none empty."""

    @property
    def positions(self) -> list[int]:
        """The token positions inside, ascending."""
        return [position for span in self.spans for position in span.positions]

    def __len__(self) -> int:
        return sum(map(len, self.spans))


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """One trace as the model reads it."""

    trace_id: str
    """The trace."""
    text: str
    """What was tokenised: rendered prompt, then the response."""
    input_ids: Int64[Tensor, " pos"]
    """Token ids of the whole text."""
    offsets: tuple[tuple[int, int], ...]
    """Characters of ``text`` behind each token, half-open; (0, 0) for tokens that the tokenizer added."""
    response_start: int
    """First token of the response; the number of tokens when there is no response."""
    spans: Mapping[str, TokenSpan | TokenSet | None]
    """Tokens of each of :data:`SPANS`; None where absent. ``template`` is everything before the response that is neither
    the prompt nor the first token; ``decision`` is the last position before the key sentence."""
    straddling: tuple[int, ...]
    """Tokens whose characters lie on both sides of an edge of prompt, response, understanding or key sentence."""

    @property
    def end(self) -> int:
        """Tokens that a measurement needs: up to the end of the key sentence, else of the understanding, else all that
        comes before the response. Nothing after them changes what comes before (causality)."""
        for name in ("key_sentence", "understanding"):
            span = self.spans[name]
            if span is not None:
                return _last(span)
        return self.response_start

    def positions(self, name: str) -> Sequence[int]:
        """Token positions of a span or of a derived position; empty where absent.

        Args:
            name: one of :data:`SPANS`, or ``context`` (the first token to the end of U: what SafeKey's second head reads),
                ``prompt+understanding``, ``prompt_end`` (the prompt's last token).
        """
        if name in self.spans:
            span = self.spans[name]
            return span.positions if span is not None else ()
        prompt, understanding = self.spans["prompt"], self.spans["understanding"]
        if name == "context" and understanding is not None:
            return range(_last(understanding))
        if name == "prompt+understanding" and prompt is not None and understanding is not None:
            return [*prompt.positions, *understanding.positions]
        if name == "prompt_end" and prompt is not None:
            return range(_last(prompt) - 1, _last(prompt))
        if name in ("context", "prompt+understanding", "prompt_end"):
            return ()
        raise KeyError(f"no position {name!r}; expected one of {[*SPANS, 'context', 'prompt+understanding', 'prompt_end']}")

    def _repr_html_(self) -> str:
        colours = {"prompt": "#56b4e955", "understanding": "#e69f0066", "key_sentence": "#cc79a766"}
        owner = {p: name for name in colours for p in self.positions(name)}
        pieces = [
            f'<span title="{position}{" " + owner[position] if position in owner else ""}" '
            f'style="background:{colours.get(owner.get(position, ""), "transparent")}">'
            f"{html.escape(self.text[start:end])}</span>"
            for position, (start, end) in enumerate(self.offsets[: self.end])
        ]
        return f'<div style="white-space:pre-wrap;font-family:monospace">{"".join(pieces)}</div>'


@dataclass(frozen=True)
class _Rendered:
    text: str
    prompt: CharSpan
    """Into ``text``."""
    response_start: int
    """Character."""
    add_special_tokens: bool


def encode(
    tokenizer: Any, trace: Trace, segmentation: Segmentation, *, max_length: int | None = None
) -> Encoding:
    """Token ids and token spans of one trace.

    Args:
        tokenizer: a transformers tokenizer that reports offsets.
        trace: the trace.
        segmentation: where U and K lie in ``trace.response``, in characters.
        max_length: largest number of tokens up to the end of the key sentence.

    Raises:
        TraceTooLong: more tokens than ``max_length``; no span is ever clipped.
        TraceError: the chat template refuses the conversation, or loses the prompt.
        ModelError: the tokenizer reports no offsets.
    """
    rendered = render(tokenizer, trace)
    tokens = _tokenise(tokenizer, rendered)
    offsets, text = tokens["offset_mapping"], rendered.text
    anchors = [_anchor(text, start, end) for start, end in offsets]
    shift = rendered.response_start

    def in_text(span: CharSpan | None) -> CharSpan | None:
        return None if span is None else CharSpan(span.start + shift, span.end + shift)

    understanding, key_sentence = in_text(segmentation.understanding), in_text(segmentation.key_sentence)
    response_start = next(
        (i for i, (start, end) in enumerate(offsets) if end > start and max(start, anchors[i]) >= shift), len(offsets)
    )
    spans: dict[str, TokenSpan | TokenSet | None] = {
        "prompt": _token_span(offsets, anchors, rendered.prompt),
        "first_token": TokenSpan(0, 1) if offsets else None,
        "understanding": _token_span(offsets, anchors, understanding),
        "key_sentence": _token_span(offsets, anchors, key_sentence),
    }
    prompt, key = spans["prompt"], spans["key_sentence"]
    spans["template"] = _around(TokenSpan(min(1, response_start), response_start), prompt)
    spans["decision"] = TokenSpan(key.start - 1, key.start) if isinstance(key, TokenSpan) and key.start else None
    edges = [rendered.prompt, CharSpan(shift, len(text)), understanding, key_sentence]
    encoding = Encoding(
        trace_id=trace.trace_id,
        text=text,
        input_ids=torch.tensor(tokens["input_ids"], dtype=torch.int64),
        offsets=tuple(map(tuple, offsets)),
        response_start=response_start,
        spans=MappingProxyType({name: spans[name] for name in SPANS}),
        straddling=_straddling(text, offsets, [edge for edge in edges if edge is not None]),
    )
    if max_length is not None and encoding.end > max_length:
        raise TraceTooLong(
            trace.trace_id,
            f"{_furthest(encoding)} ends at token {encoding.end}, past {max_length} tokens; raise --max-length",
        )
    return encoding


def render(tokenizer: Any, trace: Trace) -> _Rendered:
    """The text that the model would have seen, with the place of the prompt and of the response in it."""
    if not getattr(tokenizer, "chat_template", None):
        before = "".join(f"{m.role.capitalize()}: {m.content}\n\n" for m in trace.messages) + "User: "
        head = f"{before}{trace.prompt}\n\nAssistant:\n"
        prompt = CharSpan(len(before), len(before) + len(trace.prompt))
        return _Rendered(head + trace.response, prompt, len(head), add_special_tokens=True)
    try:
        prefix, suffix = _surroundings(_Hashable(tokenizer), trace.messages)
        head = _apply_template(tokenizer, trace.messages, trace.prompt)
    except Exception as error:  # a template is a program of its author's: whatever it raises is about this trace
        raise TraceError(trace.trace_id, f"the chat template refuses its messages: {error}") from error
    prompt = _locate_prompt(head, prefix, suffix, trace)
    head = _without_doubled_opening(head, trace.response)
    return _Rendered(head + trace.response, prompt, len(head), add_special_tokens=False)


def _apply_template(tokenizer: Any, messages: tuple[Message, ...], prompt: str) -> str:
    turns = [{"role": m.role, "content": m.content} for m in messages] + [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


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
def _surroundings(tokenizer: _Hashable, messages: tuple[Message, ...]) -> tuple[str, str]:
    """What the template writes before and after the prompt."""
    prefix, found, suffix = _apply_template(tokenizer.tokenizer, messages, _PLACEHOLDER).partition(_PLACEHOLDER)
    return (prefix, suffix) if found else ("", "")


def _locate_prompt(head: str, prefix: str, suffix: str, trace: Trace) -> CharSpan:
    inner_end = len(head) - len(suffix)
    if head.startswith(prefix) and head.endswith(suffix) and inner_end >= len(prefix):
        inner = head[len(prefix) : inner_end]
        if inner == trace.prompt or inner == trace.prompt.strip():
            return CharSpan(len(prefix), inner_end)
    start = head.rfind(trace.prompt.strip())
    if start < 0:
        raise TraceError(trace.trace_id, "the chat template does not show the prompt as it is; remedy: another template")
    return CharSpan(start, start + len(trace.prompt.strip()))


def _without_doubled_opening(head: str, response: str) -> str:
    """``head`` without the reasoning tag that the template opened, when the response opens it itself."""
    stripped, opening = head.rstrip(), response.lstrip()
    for family in FAMILIES:
        if stripped.endswith(family.opening) and opening.startswith(family.opening):
            return stripped[: -len(family.opening)]
    return head


def _tokenise(tokenizer: Any, rendered: _Rendered) -> Mapping[str, Any]:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"tokenizer {type(tokenizer).__name__}: reports no character offsets, so that spans cannot be placed; "
            "expected one with a tokenizer.json (a fast tokenizer)"
        )
    return tokenizer(
        rendered.text,
        add_special_tokens=rendered.add_special_tokens,
        return_offsets_mapping=True,
        return_attention_mask=False,
        truncation=False,
        verbose=False,
    )


def _anchor(text: str, start: int, end: int) -> int:
    """First character of a token that is not white space; its first character when all are; -1 when it has none."""
    if end <= start:
        return -1
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()) if not piece.isspace() else start


def _token_span(
    offsets: Sequence[tuple[int, int]], anchors: Sequence[int], span: CharSpan | None
) -> TokenSpan | None:
    if span is None or not len(span):
        return None
    # The span is stripped, so that white space whose first character lies inside it lies inside it whole.
    inside = [i for i, anchor in enumerate(anchors) if span.start <= anchor < span.end]
    return TokenSpan(inside[0], inside[-1] + 1) if inside else None


def _around(whole: TokenSpan, hole: TokenSpan | TokenSet | None) -> TokenSet | None:
    if isinstance(hole, TokenSpan):
        pieces = [(whole.start, min(hole.start, whole.end)), (max(hole.end, whole.start), whole.end)]
    else:
        pieces = [(whole.start, whole.end)]
    spans = tuple(TokenSpan(start, end) for start, end in pieces if start < end)
    return TokenSet(spans) if spans else None


def _straddling(text: str, offsets: Sequence[tuple[int, int]], edges: Sequence[CharSpan]) -> tuple[int, ...]:
    cuts = sorted({edge.start for edge in edges} | {edge.end for edge in edges})
    found = []
    for i, (start, end) in enumerate(offsets):
        if end - start < 2:
            continue
        for cut in cuts:
            if start < cut < end and text[start:cut].strip() and text[cut:end].strip():
                found.append(i)
                break
    return tuple(found)


def _last(span: TokenSpan | TokenSet) -> int:
    return span.end if isinstance(span, TokenSpan) else span.spans[-1].end


def _furthest(encoding: Encoding) -> str:
    for name in ("key_sentence", "understanding"):
        if encoding.spans[name] is not None:
            return name.replace("_", " ")
    return "prompt"
