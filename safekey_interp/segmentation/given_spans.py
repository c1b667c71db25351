"""Finder of key sentences that came with the data: offsets of SafeKey's training file, or of annotators."""

from __future__ import annotations

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.segmentation.reasoning_span import Region
from safekey_interp.segmentation.span_finder import SpanFinder, Spans

NOT_GIVEN = "the data gives no key sentence"


class GivenFinder(SpanFinder):
    """Uses the spans of ``trace.given`` without surrounding white space; those outside the response are refused."""

    name = "given"

    def spans(self, trace: Trace, region: Region, language: str) -> Spans:
        """U and K as they are given."""
        understanding, key_sentence = _inside(trace, "understanding"), _inside(trace, "key_sentence")
        if "key_sentence" not in trace.given:
            return Spans(understanding, None, 0.0, NOT_GIVEN)
        if key_sentence is None:
            return Spans(understanding, None, 0.0, "the given key sentence is empty or lies outside the response")
        if understanding is not None and understanding.end > key_sentence.start:
            return Spans(None, None, 0.0, "the given understanding does not end before the key sentence")
        return Spans(understanding, key_sentence, 1.0, "given with the data")


def _inside(trace: Trace, name: str) -> CharSpan | None:
    """The given span without surrounding white space; None when absent, empty or not inside the response."""
    span = trace.given.get(name)
    if span is None or span.end > len(trace.response):
        return None
    text = span.text(trace.response)
    start = span.start + len(text) - len(text.lstrip())
    end = span.start + len(text.rstrip())
    return CharSpan(start, end) if start < end else None
