"""Key sentences that came with the data: offsets of SafeKey's training file, or of annotators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.segmentation.reasoning_span import Delimiters, reasoning_region
from safekey_interp.segmentation.rules_finder import Found, describe
from safekey_interp.segmentation.segmentation_record import Segmentation

NOT_GIVEN = "the data gives no key sentence"


class GivenFinder:
    """Takes ``trace.given`` at its word, but for white space, and refuses what lies outside the response."""

    name = "given"

    def __init__(self, delimiters: Delimiters | None = None) -> None:
        reasoning_region("", delimiters)  # wrong delimiters are refused before any trace is read
        self._delimiters = delimiters

    def find(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        """One segmentation a trace, in their order."""
        for trace in traces:
            region = reasoning_region(trace.response, self._delimiters)
            yield describe(trace, region, _found(trace), self.name)


def _found(trace: Trace) -> Found:
    if "key_sentence" not in trace.given:
        return Found(_inside(trace, "understanding"), None, 0.0, NOT_GIVEN)
    understanding, key_sentence = _inside(trace, "understanding"), _inside(trace, "key_sentence")
    if key_sentence is None:
        return Found(understanding, None, 0.0, "the given key sentence is empty or lies outside the response")
    if understanding is not None and understanding.end > key_sentence.start:
        return Found(None, None, 0.0, "the given understanding does not end before the key sentence")
    return Found(understanding, key_sentence, 1.0, "given with the data")


def _inside(trace: Trace, name: str) -> CharSpan | None:
    """The given span without surrounding white space; None when absent, empty or not inside the response."""
    span = trace.given.get(name)
    if span is None or span.end > len(trace.response):
        return None
    text = span.text(trace.response)
    start = span.start + len(text) - len(text.lstrip())
    end = span.start + len(text.rstrip())
    return CharSpan(start, end) if start < end else None
