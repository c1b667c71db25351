"""Base of the finders that read one trace at a time, each on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.segmentation.reasoning_span import Delimiters, Region, reasoning_region
from safekey_interp.segmentation.segmentation_record import Segmentation
from safekey_interp.segmentation.sentence_classes import classify_aha, names_harm

NO_KEY_SENTENCE = "no sentence after the understanding"
NO_TEXT = "no sentence in the response"


class Spans(NamedTuple):
    """Understanding and key sentence of one trace, before they are classified."""

    understanding: CharSpan | None
    key_sentence: CharSpan | None
    confidence: float
    reason: str


class SpanFinder(ABC):
    """A finder that says where U and K lie; what they say is read here."""

    name: str
    """Goes to ``Segmentation.finder``."""

    def __init__(self, delimiters: Delimiters | None = None) -> None:
        reasoning_region("", delimiters)  # wrong delimiters are refused before any trace is read
        self._delimiters = delimiters

    @abstractmethod
    def spans(self, trace: Trace, region: Region) -> Spans:
        """U and K of a trace whose sentences lie in a region."""

    def find(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        """One segmentation a trace, in their order."""
        for trace in traces:
            region = reasoning_region(trace.response, self._delimiters)
            spans = self.spans(trace, region)
            understanding, key_sentence = (
                None if span is None else span.text(trace.response)
                for span in (spans.understanding, spans.key_sentence)
            )
            yield Segmentation(
                trace_id=trace.trace_id,
                response=trace.response,
                reasoning=region.span,
                region=region.region,
                family=region.family,
                aha=None if key_sentence is None else classify_aha(key_sentence, understanding or "", trace.prompt),
                hint=None if understanding is None else names_harm(understanding),
                finder=self.name,
                answer=region.answer,
                marks=region.marks,
                **spans._asdict(),
            )
