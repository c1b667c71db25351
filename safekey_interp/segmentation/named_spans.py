"""Named spans of a trace: where each span of an expression lies, in characters of the response, prompt and turns.

Built in: prompt, reasoning, answer, understanding, key_sentence, ``sentence(n)`` of the reasoning, the system message,
``turn(n)`` of the conversation (user and assistant messages, the prompt and the response; the system message is none),
and ``understanding(n)`` and ``key_sentence(n)`` of turn n where the model wrote it. All others are the trace's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from safekey_interp.data.span_expressions import NumberedSpan
from safekey_interp.data.trace import CharSpan, Message, Spans, Trace
from safekey_interp.errors import TraceError
from safekey_interp.segmentation.reasoning_span import answer_span
from safekey_interp.segmentation.segmentation_record import Segmentation
from safekey_interp.segmentation.segmenter import finder_names, segment
from safekey_interp.segmentation.sentence_splitter import iterate_sentences

Part = Literal["response", "prompt"] | int
"""A text of the conversation: the response, the prompt, or another turn by its index in the conversation."""
_SYSTEM = ("system", "developer")


class Place(NamedTuple):
    """Characters of one text of the conversation."""

    part: Part
    """The text."""
    span: CharSpan
    """Characters of it."""


class NamedSpans:
    """Spans of one trace by name, each looked for when it is asked for."""

    def __init__(self, trace: Trace, segmentation: Segmentation) -> None:
        self._trace, self._segmentation = trace, segmentation

    def places(self, span: str | NumberedSpan) -> list[Place]:
        """Where a span lies; nowhere when the trace lacks it.

        Args:
            span: a name, or a numbered span but ``token``.

        Raises:
            TraceError: intervals of it lie outside their text, or overlap.
        """
        if isinstance(span, NumberedSpan):
            return self._numbered(span)
        trace, segmentation = self._trace, self._segmentation
        if span == "prompt":
            return _whole("prompt", trace.prompt)
        if span == "system":
            turns = enumerate(trace.messages)
            return [place for i, turn in turns if turn.role in _SYSTEM for place in _whole(i, turn.content)]
        of_response = {
            "understanding": lambda: segmentation.understanding,
            "key_sentence": lambda: segmentation.key_sentence,
            "reasoning": lambda: segmentation.reasoning if segmentation.region == "reasoning" else None,
            "answer": self._answer,
        }
        return _in_response(of_response[span]()) if span in of_response else self._own(span)

    def _own(self, span: str) -> list[Place]:
        trace = self._trace
        texts: list[tuple[Part, str, Spans]] = [
            ("response", trace.response, trace.spans),
            ("prompt", trace.prompt, trace.prompt_spans),
            *((i, turn.content, turn.spans) for i, turn in enumerate(trace.turns) if i != len(trace.messages)),
        ]
        return [
            place for part, text, spans in texts for place in _checked(trace, span, part, text, spans.get(span, ()))
        ]

    def _answer(self) -> CharSpan | None:
        segmentation = self._segmentation
        if segmentation.region == "answer":
            return segmentation.reasoning
        if segmentation.answer is None and segmentation.family != "given":
            return answer_span(self._trace.response)
        return segmentation.answer

    def _numbered(self, span: NumberedSpan) -> list[Place]:
        kind, number = span
        if kind == "sentence":
            return _in_response(_nth([sentence for _, sentence in sentence_spans(self._segmentation)], number))
        turn = _nth([i for i, message in enumerate(self._turns()) if message.role not in _SYSTEM], number)
        if turn is None:
            return []
        message, part = self._turns()[turn], self._part(turn)
        if kind == "turn":
            return _whole(part, message.content)
        if part == "response":
            return self.places(kind)
        if message.role != "assistant":
            return []
        finder = self._segmentation.finder
        asked = next((m.content for m in reversed(self._turns()[:turn]) if m.role == "user"), "")
        earlier = Trace(trace_id=self._trace.trace_id, prompt=asked, response=message.content)
        found = segment(earlier, finder=finder if finder in finder_names() else "rules")
        where: CharSpan | None = getattr(found, kind)
        return [] if where is None else [Place(part, where)]

    def _turns(self) -> list[Message]:
        return [*self._trace.turns, Message(role="assistant", content=self._trace.response)]

    def _part(self, turn: int) -> Part:
        trace = self._trace
        if turn == len(trace.messages) + 1 + len(trace.steps):
            return "response"
        return "prompt" if turn == len(trace.messages) else turn


def sentence_spans(segmentation: Segmentation) -> Iterator[tuple[str, CharSpan]]:
    """Sentences of the reasoning (of the answer where there is none), each with its part: ``understanding``,
    ``key_sentence`` or ``rest``; the key sentence is one, whatever the splitter makes of it."""
    begun: CharSpan | None = None
    reasoning = segmentation.reasoning
    for span in iterate_sentences(segmentation.response, reasoning.start, reasoning.end, len(reasoning) or 1):
        part = "rest"
        for name in ("understanding", "key_sentence"):
            whole: CharSpan | None = getattr(segmentation, name)
            if whole is not None and whole.start <= span.start < whole.end:
                part = name
        if part == "key_sentence":
            begun = span if begun is None else CharSpan(begun.start, span.end)
            continue
        if begun is not None:
            yield "key_sentence", begun
            begun = None
        yield part, span
    if begun is not None:
        yield "key_sentence", begun


def _nth(items: Iterable, number: int):
    listed = list(items)
    return listed[number] if -len(listed) <= number < len(listed) else None


def _whole(part: Part, text: str) -> list[Place]:
    return [Place(part, CharSpan(0, len(text)))] if text else []


def _in_response(span: CharSpan | None) -> list[Place]:
    return [] if span is None or not len(span) else [Place("response", span)]


def _checked(trace: Trace, name: str, part: Part, text: str, spans: Iterable[CharSpan]) -> list[Place]:
    listed = list(spans)
    where = f"message {part}" if isinstance(part, int) else part
    for span in listed:
        if span.end > len(text):
            raise TraceError(
                trace.trace_id,
                f"span {name!r}: [{span.start}, {span.end}) lies outside the {where} of {len(text)} characters",
            )
    for before, after in pairwise(listed):
        if after.start < before.end:
            both = f"[{before.start}, {before.end}) and [{after.start}, {after.end})"
            raise TraceError(trace.trace_id, f"span {name!r}: {both} of the {where} overlap")
    return [Place(part, span) for span in listed]
