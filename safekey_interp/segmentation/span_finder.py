"""Base of the finders that read one trace at a time, each on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.segmentation.lexicon import UNREAD, lexicon_of
from safekey_interp.segmentation.reasoning_span import Delimiters, Region, reasoning_region
from safekey_interp.segmentation.segmentation_record import Segmentation
from safekey_interp.segmentation.sentence_classes import classify_aha, names_harm
from safekey_interp.segmentation.text_language import READ, language_of

NO_KEY_SENTENCE = "no sentence after the understanding"
NO_TEXT = "no sentence in the response"


def language_at(response: str, region: Region) -> str:
    """The language of a trace: that of the beginning of its reasoning."""
    return language_of(response[region.span.start : min(region.span.end, region.span.start + READ)])


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
    def spans(self, trace: Trace, region: Region, language: str) -> Spans:
        """U and K of a trace whose sentences lie in a region, in a language as :func:`language_of` tells it."""

    def find(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        """One segmentation a trace, in their order."""
        for trace in traces:
            region = reasoning_region(trace.response, self._delimiters)
            language = language_at(trace.response, region)
            spans = self.spans(trace, region, language)
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
                aha=None
                if key_sentence is None
                else classify_aha(key_sentence, understanding or "", trace.prompt, around=language),
                hint=_hint(understanding, language),
                language=language,
                finder=self.name,
                answer=region.answer,
                marks=region.marks,
                **spans._asdict(),
            )


def _hint(understanding: str | None, language: str) -> bool | None:
    if understanding is None or lexicon_of(language_of(understanding, language)) is UNREAD:
        return None
    return names_harm(understanding)
