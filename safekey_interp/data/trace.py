"""Record of one reasoning trace: a prompt, the response as it was generated, and what came with them.

A response is ``<think>`` U K … ``</think>`` answer. Offsets count Python characters into ``response``; every interval
is half-open. Characters and tokens have span types of their own, so that the units cannot mix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from types import MappingProxyType
from typing import Any

from safekey_interp.data.span_expressions import check_span_name
from safekey_interp.display import escaped, facts_html, framed, pieces_html

Spans = Mapping[str, Sequence[Any]]
"""Named spans: name -> :class:`CharSpan` of a text, ascending; pairs (start, end) are taken, too."""
_NO_SPANS: Mapping[str, Any] = MappingProxyType({})
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, order=True)
class _Span:
    start: int
    """First position inside."""
    end: int
    """First position after; never before ``start``."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"{type(self).__name__}: got [{self.start}, {self.end}), expected 0 <= start <= end")

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, order=True)
class CharSpan(_Span):
    """Half-open interval of characters into one text (``response`` unless said otherwise)."""

    def text(self, of: str) -> str:
        """The characters of ``of`` inside the span."""
        return of[self.start : self.end]


@dataclass(frozen=True, order=True)
class TokenSpan(_Span):
    """Half-open interval of token positions into one encoded sequence."""

    @property
    def positions(self) -> range:
        """The token positions inside."""
        return range(self.start, self.end)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One earlier turn of a conversation."""

    role: str
    """``system``, ``user`` or ``assistant``, as the chat template names it."""
    content: str
    """The turn's text."""
    spans: Spans = field(default_factory=dict, hash=False)
    """Named spans of the text: name -> character intervals."""

    def __post_init__(self) -> None:
        for name in ("role", "content"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(f"Message.{name}: got {type(value).__name__}, expected str")
            object.__setattr__(self, name, replace_surrogates(value))
        object.__setattr__(self, "spans", _checked_spans(self.spans, "Message.spans"))

    def __reduce__(self):
        return _rebuild, (Message, {"role": self.role, "content": self.content, "spans": dict(self.spans)})


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One prompt with the response that a model gave, as text.

    Lone surrogates, which crash tokenizers and Parquet, become U+FFFD one for one, so that offsets hold.
    """

    trace_id: str
    """Names the trace in every table and message; unique in a file."""
    prompt: str
    """The user's own text; of several turns, the last user turn."""
    response: str
    """What the model wrote, reasoning delimiters included; empty when only the prompt is known."""
    label: str | None = None
    """What the data say of the trace in a word: ``harmful`` or ``benign`` of its prompt, ``correct`` …; or None."""
    source: str | None = None
    """The data set it came from."""
    group: str = ""
    """Ties traces whose prompts are the same or twins: splits and intervals go by it. Default: the prompt."""
    messages: tuple[Message, ...] = ()
    """System and earlier turns, before ``prompt``."""
    steps: tuple[Message, ...] = ()
    """Turns between ``prompt`` and ``response``: what the model wrote before, and what its tools returned."""
    given: Mapping[str, CharSpan] = field(default_factory=dict, hash=False)
    """Spans that came with the data: ``understanding``, ``key_sentence``."""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Whatever else the data said; travels to the tables."""
    spans: Spans = field(default_factory=dict, hash=False)
    """Named spans of the response: name -> half-open character intervals, as pairs or :class:`CharSpan`. One that lies
    outside, has intervals that overlap, or holds no token is named where it is measured, never clipped."""
    prompt_spans: Spans = field(default_factory=dict, hash=False)
    """The same of the prompt; those of other turns are in ``messages`` and ``steps``."""

    def __post_init__(self) -> None:
        state = self.__dict__  # setting a field of a frozen record costs more, and there are millions
        for name in ("trace_id", "prompt", "response", "label", "source", "group"):
            value = state[name]
            if isinstance(value, str):
                if not value.isascii():
                    state[name] = replace_surrogates(value)
            elif value is not None or name not in ("label", "source"):
                raise TypeError(f"Trace.{name}: got {type(value).__name__}, expected str")
        if self.label is not None and not self.label.strip():
            raise ValueError(f"Trace.label: got {self.label!r}, expected a word, or None")
        state["group"] = state["group"] or state["prompt"]
        state["messages"], state["steps"] = tuple(self.messages), tuple(self.steps)
        state["given"] = MappingProxyType(dict(self.given)) if self.given else _NO_SPANS
        state["meta"] = MappingProxyType(_without_surrogates(dict(self.meta)))
        for name in ("spans", "prompt_spans"):
            state[name] = _checked_spans(state[name], f"Trace.{name}") if state[name] != {} else _NO_SPANS

    def __reduce__(self):
        # A read-only view of a mapping cannot be copied to another process; its contents can.
        state = {name: getattr(self, name) for name in self.__dataclass_fields__}
        views = {name: dict(value) for name, value in state.items() if isinstance(value, MappingProxyType)}
        return _rebuild, (Trace, state | views)

    @property
    def span_names(self) -> tuple[str, ...]:
        """Names of its own spans, of the response, the prompt and other turns, each once; none without intervals."""
        places = (self.spans, self.prompt_spans, *(turn.spans for turn in (*self.messages, *self.steps)))
        return tuple(dict.fromkeys(name for spans in places for name, intervals in spans.items() if intervals))

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation up to the response."""
        asked = Message(role="user", content=self.prompt, spans=self.prompt_spans)
        return (*self.messages, asked, *self.steps)

    def with_(self, **changes: Any) -> Trace:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def _repr_html_(self) -> str:
        return html_of(self, pieces_of(self.response, self.given))


def pieces_of(response: str, spans: Mapping[str, CharSpan | None]) -> list[tuple[str, str]]:
    """A response in pieces, each with the name of its span: ``understanding``, ``key_sentence``, or none.

    Args:
        response: the text.
        spans: of it; None, and a span that reaches beyond the text or into the one before it, is none.
    """
    pieces, at = [], 0
    for name in ("understanding", "key_sentence"):
        span = spans.get(name)
        if span is not None and at <= span.start and span.end <= len(response):
            pieces += [("", response[at : span.start]), (name, span.text(response))]
            at = span.end
    return [*pieces, ("", response[at:])]


def html_of(trace: Trace, pieces: Iterable[tuple[str, str]], verdict: str = "") -> str:
    """A trace as a notebook shows it.

    Args:
        trace: whose prompt and earlier turns are shown.
        pieces: its response, from :func:`pieces_of`.
        verdict: what a finder says of it.
    """
    rows = [
        ("trace", escaped(" · ".join([trace.trace_id, trace.label or "no label", *filter(None, [trace.source])]))),
        *((message.role, escaped(message.content)) for message in trace.messages),
        ("prompt", pieces_html([("prompt", trace.prompt)])),
        *((step.role, escaped(step.content)) for step in trace.steps),
        ("response", pieces_html(pieces)),
    ]
    return framed(facts_html([*rows, ("found", escaped(verdict))] if verdict else rows))


def replace_surrogates(text: str) -> str:
    """``text`` with each lone surrogate (U+D800 to U+DFFF) replaced by U+FFFD, so that lengths and offsets hold."""
    return _SURROGATE.sub("\ufffd", text) if _has_surrogates(text) else text


def count_surrogates(text: str) -> int:
    """How many lone surrogates ``text`` holds."""
    return len(_SURROGATE.findall(text)) if _has_surrogates(text) else 0


def _has_surrogates(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()  # thirty times faster than a look at each character, and traces are many and long
    except UnicodeEncodeError:
        return True
    return False


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(inner) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_surrogates(inner) for inner in value)
    return value


def _checked_spans(spans: Any, what: str) -> Spans:
    """Named spans as a read-only mapping to character spans, ascending; an empty one stays, without intervals."""
    if not isinstance(spans, Mapping):
        raise TypeError(f"{what}: got {type(spans).__name__}, expected a mapping of names to lists of (start, end)")
    if not spans:
        return _NO_SPANS
    checked = {}
    for name, intervals in spans.items():
        try:
            several = (intervals,) if isinstance(intervals, CharSpan) else tuple(intervals)
            checked[check_span_name(name)] = tuple(sorted(map(_char_span, several)))
        except (TypeError, ValueError):
            wanted = "whole numbers with 0 <= start <= end"
            raise ValueError(
                f"{what}[{name!r}]: got {intervals!r}, expected a list of (start, end), {wanted}"
            ) from None
    return MappingProxyType(checked)


def _char_span(interval: Any) -> CharSpan:
    if isinstance(interval, CharSpan):
        return interval
    start, end = interval
    return CharSpan(index(start), index(end))


def _rebuild(kind: type[Trace] | type[Message], state: dict[str, Any]) -> Trace | Message:
    return kind(**state)
