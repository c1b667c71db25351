"""Encoding of a trace: token ids, and the tokens of the prompt, the understanding and the key sentence.

The text is what the model would have seen: the chat template up to the generation prompt, then the response exactly as
it was generated. It is tokenised once, whole; spans come from the tokenizer's offsets over that text, and a piece is
never tokenised on its own to be counted. A token belongs to the span that holds its first character that is not white
space; white space alone between two spans belongs to neither; a token whose other characters reach over a span's edge
(Llama-3's ``>Okay``) is listed as straddling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor

from safekey_interp.data.span_expressions import NumberedSpan, parse_span
from safekey_interp.data.trace import CharSpan, TokenSpan, Trace
from safekey_interp.display import MARKS, escaped, framed, span_html
from safekey_interp.errors import TraceError, TraceTooLong
from safekey_interp.models.chat_template import Rendered, Rendering, render
from safekey_interp.models.tokenisation import anchor_of, straddling_tokens, token_span, tokenise
from safekey_interp.segmentation.named_spans import NamedSpans, Part, Place

if TYPE_CHECKING:
    from safekey_interp.segmentation.segmenter import Segmentation

SPANS = ("prompt", "template", "first_token", "understanding", "key_sentence", "decision")
"""The spans of every encoding, in this order."""
BOTH = "prompt+understanding"
"""Written so, a position that only traces with both have; ``prompt + understanding`` takes either alone."""


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
    """Tokens of each of :data:`SPANS`; None where absent. ``template`` is everything before the response that is
    neither the prompt nor the first token; ``decision`` is the last position before the key sentence."""
    straddling: tuple[int, ...]
    """Tokens whose characters lie on both sides of an edge of prompt, response, understanding or key sentence."""
    reads: tuple[str, ...] = ()
    """Span expressions that the measurement needs; none for the key sentence and what comes before."""
    named: NamedSpans | None = field(default=None, repr=False, compare=False)
    """Where the trace's other spans lie; None for none."""
    shifts: Mapping[Part, int] = field(default_factory=dict, repr=False, compare=False)
    """What moves a character of each text of the conversation into ``text``."""

    @cached_property
    def end(self) -> int:
        """Tokens that a measurement needs: up to the last that ``reads`` names; without any, up to the end of the key
        sentence, else of the understanding, else all that comes before the response. Nothing after them changes what
        comes before (causality)."""
        ends = [where[-1] + 1 for where in map(self.positions, self.reads) if len(where)]
        if ends:
            return max(ends)
        for name in ("key_sentence", "understanding"):
            span = self.spans[name]
            if span is not None:
                return _last(span)
        return self.response_start

    def positions(self, expression: str) -> Sequence[int]:
        """Token positions of a span expression, ascending; empty where the trace lacks one of its spans.

        Args:
            expression: a name, such as one of :data:`SPANS`, or an expression of the grammar in
                :mod:`safekey_interp.data.span_expressions`, such as ``last(prompt)``.

        Raises:
            InputError: an expression that cannot be parsed.
            TraceError: a span of the trace's own lies outside its text, overlaps itself, or holds no token.
        """
        if expression not in self._positions:
            span = self.spans.get(expression)
            parsed = parse_span(expression)
            if expression == BOTH and not all(map(self._tokens_of, parsed.references())):
                self._positions[expression] = ()
            else:
                self._positions[expression] = (
                    parsed.positions(self._tokens_of, len(self.input_ids)) if span is None else span.positions
                )
        return self._positions[expression]

    @cached_property
    def _positions(self) -> dict[str, Sequence[int]]:
        return {}

    def _tokens_of(self, span: str | NumberedSpan) -> Iterable[int]:
        if isinstance(span, NumberedSpan) and span.kind == "token":
            n = len(self.input_ids)
            return (span.number % n,) if -n <= span.number < n else ()
        if isinstance(span, str) and span in self.spans:
            known = self.spans[span]
            return () if known is None else known.positions
        return [position for place in self._places(span) for position in self._tokens_at(span, place)]

    def _places(self, span: str | NumberedSpan) -> list[Place]:
        return [] if self.named is None else self.named.places(span)

    def _tokens_at(self, span: str | NumberedSpan, place: Place) -> Iterable[int]:
        if place.part not in self.shifts:
            raise TraceError(self.trace_id, f"span {span!s}: the chat template does not show message {place.part}")
        shift = self.shifts[place.part]
        found = token_span(self.text, self._anchors, CharSpan(place.span.start + shift, place.span.end + shift))
        if found is None:
            where = f"[{place.span.start}, {place.span.end})"
            raise TraceError(self.trace_id, f"span {span!s}: no token of its own lies in characters {where}")
        return found.positions

    def tokens_of(self, response: str, span: CharSpan) -> TokenSpan | None:
        """Tokens of a piece of the response, such as one of its sentences; None where it has none of its own.

        Args:
            response: the trace's response, which ends the text.
            span: characters of it.
        """
        shift = len(self.text) - len(response)
        return token_span(self.text, self._anchors, CharSpan(span.start + shift, span.end + shift))

    @cached_property
    def _anchors(self) -> list[int]:
        return [anchor_of(self.text, start, end) for start, end in self.offsets]

    def _repr_html_(self) -> str:
        owner = {position: name for name in MARKS for position in self.positions(name)}
        runs = groupby(range(self.end), lambda position: owner.get(position, ""))
        text = "".join(span_html(name, "".join(map(self._token_html, run))) for name, run in runs)
        counts = ", ".join(f"{mark.letter} {len(self.positions(name))}" for name, mark in MARKS.items())
        head = f"<b>{escaped(self.trace_id)}</b> {len(self.input_ids):,} tokens: {counts}"
        return framed(head, f'<div style="white-space:pre-wrap;font-family:monospace">{text}</div>')

    def _token_html(self, position: int) -> str:
        start, end = self.offsets[position]
        # A hair line where a token ends: pieces of a word are told apart without a colour.
        return (
            f'<span title="token {position}" style="box-shadow:1px 0 0 0 rgba(128,128,128,.6)">'
            f"{escaped(self.text[start:end])}</span>"
        )


def encode(
    tokenizer: Any,
    trace: Trace,
    segmentation: Segmentation,
    *,
    rendering: Rendering = "chat",
    reads: Iterable[str] = (),
) -> Encoding:
    """Token ids and token spans of one trace.

    Args:
        tokenizer: a transformers tokenizer that reports offsets.
        trace: the trace.
        segmentation: where U and K lie in ``trace.response``, in characters.
        rendering: ``released`` for what the reference's attention script reads.
        reads: span expressions that the measurement needs; none for the key sentence and what comes before.

    Raises:
        InputError: an expression that cannot be parsed.
        TraceError: a span that is read cannot be placed; the chat template refuses the conversation, or loses the
            prompt; no token to measure; U or K lies behind the half of the response that ``released`` reads.
        ModelError: the tokenizer reports no offsets.
    """
    rendered = render(tokenizer, trace, rendering)
    read = len(rendered.text) - rendered.response_start
    for span in (segmentation.understanding, segmentation.key_sentence):
        if span is not None and span.end > read:
            raise TraceError(
                trace.trace_id,
                f"K ends at character {span.end} of the response, of which the released script reads the first {read}",
            )
    return encode_tokens(trace, segmentation, rendered, tokenise(tokenizer, rendered), reads)


Read = tuple[Sequence[int], Sequence[tuple[int, int]]]
"""Tokens of a text, and the characters behind each."""


def encode_tokens(
    trace: Trace, segmentation: Segmentation, rendered: Rendered, read: Read, reads: Iterable[str] = ()
) -> Encoding:
    """As :func:`encode`, of a text whose tokens are known, such as those that a model wrote."""
    input_ids, offsets = read
    text = rendered.text
    anchors = [anchor_of(text, start, end) for start, end in offsets]
    shift = rendered.response_start

    def in_text(span: CharSpan | None) -> CharSpan | None:
        return None if span is None else CharSpan(span.start + shift, span.end + shift)

    understanding, key_sentence = in_text(segmentation.understanding), in_text(segmentation.key_sentence)
    response_start = next(
        (i for i, (start, end) in enumerate(offsets) if end > start and max(start, anchors[i]) >= shift), len(offsets)
    )
    spans: dict[str, TokenSpan | TokenSet | None] = {
        "prompt": token_span(text, anchors, rendered.prompt),
        "first_token": TokenSpan(0, 1) if offsets else None,
        "understanding": token_span(text, anchors, understanding),
        "key_sentence": token_span(text, anchors, key_sentence),
    }
    prompt, key = spans["prompt"], spans["key_sentence"]
    spans["template"] = _around(TokenSpan(min(1, response_start), response_start), prompt)
    spans["decision"] = TokenSpan(key.start - 1, key.start) if isinstance(key, TokenSpan) and key.start else None
    edges = [rendered.prompt, CharSpan(shift, len(text)), understanding, key_sentence]
    encoding = Encoding(
        trace_id=trace.trace_id,
        text=text,
        input_ids=torch.tensor(list(input_ids), dtype=torch.int64),
        offsets=tuple((start, end) for start, end in offsets),
        response_start=response_start,
        spans=MappingProxyType({name: spans[name] for name in SPANS}),
        straddling=straddling_tokens(text, offsets, [edge for edge in edges if edge is not None]),
        reads=tuple(reads),
        named=NamedSpans(trace, segmentation),
        shifts=rendered.shifts,
    )
    if encoding.end == 0:
        raise TraceError(trace.trace_id, "no token to measure: prompt and response are empty, and so is the template")
    return encoding


def check_length(encoding: Encoding, *, max_length: int | None = None, max_positions: int | None = None) -> None:
    """Refuse a trace that is too long to measure; no span is ever clipped.

    Args:
        encoding: the trace.
        max_length: largest number of tokens up to the end of the key sentence that the user asked for.
        max_positions: the same, as far as the model reads.

    Raises:
        TraceTooLong: more tokens than either.
    """
    span = next((name for name in ("key_sentence", "understanding") if encoding.spans[name] is not None), "prompt")
    # Without any span that is read, the end is that of a built-in one.
    span = next((name for name in encoding.reads if encoding.end - 1 in encoding.positions(name)), span)
    for limit, remedy in ((max_length, "raise --max-length"), (max_positions, "the model reads no further")):
        if limit is not None and encoding.end > limit:
            where = f"{span.replace('_', ' ')} ends at token {encoding.end}, past {limit} tokens"
            raise TraceTooLong(encoding.trace_id, f"{where}; {remedy}")


def _around(whole: TokenSpan, hole: TokenSpan | TokenSet | None) -> TokenSet | None:
    if isinstance(hole, TokenSpan):
        pieces = [(whole.start, min(hole.start, whole.end)), (max(hole.end, whole.start), whole.end)]
    else:
        pieces = [(whole.start, whole.end)]
    spans = tuple(TokenSpan(start, end) for start, end in pieces if start < end)
    return TokenSet(spans) if spans else None


def _last(span: TokenSpan | TokenSet) -> int:
    return span.end if isinstance(span, TokenSpan) else span.spans[-1].end
