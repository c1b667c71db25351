"""Sentences of the reasoning and their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace import TokenSpan, Trace
from safekey_interp.errors import TraceError
from safekey_interp.measures.trace_tables import concatenate_tables
from safekey_interp.models.encoding import Encoding
from safekey_interp.segmentation.named_spans import sentence_spans
from safekey_interp.segmentation.segmenter import Segmentation, segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model


class Sentence(NamedTuple):
    """One sentence of the reasoning."""

    number: int
    """0 for the first."""
    part: str
    """``understanding``, ``key_sentence`` or ``rest``."""
    text: str
    """Its words."""
    tokens: TokenSpan
    """Its tokens, none of them another sentence's."""


def reasoning_sentences(trace: Trace, segmentation: Segmentation, encoding: Encoding, *, most: int) -> list[Sentence]:
    """The first sentences of a trace's reasoning; U and K are as the segmentation has them.

    Args:
        trace: the trace.
        segmentation: where its U and K lie.
        encoding: its tokens.
        most: sentences at most.

    Raises:
        TraceError: fewer than two sentences have tokens.
    """
    sentences: list[Sentence] = []
    for part, span in islice(sentence_spans(segmentation), most):
        tokens = encoding.tokens_of(trace.response, span)
        if tokens is not None:
            sentences.append(Sentence(len(sentences), part, span.text(trace.response), tokens))
    if len(sentences) < 2:
        raise TraceError(trace.trace_id, "its reasoning has fewer than two sentences")
    return sentences


class Reasoning(NamedTuple):
    """A trace whose reasoning is taken sentence by sentence."""

    trace: Trace
    """The trace."""
    encoding: Encoding
    """Its tokens."""
    sentences: list[Sentence]
    """Its first sentences."""

    @property
    def end(self) -> int:
        """Tokens up to the end of the last sentence."""
        return self.sentences[-1].tokens.end

    @property
    def about(self) -> dict[str, object]:
        """The columns that say which trace it is."""
        return {"trace_id": self.trace.trace_id, "group": self.trace.group, "label": self.trace.label}


def measure_reasonings(
    model: Model, traces: Iterable[Trace], measure: Callable[[Reasoning], list[pd.DataFrame]],
    settings: StreamSettings, *, most: int, least: int = 2, on_trace: Callable[[int], object],
) -> pd.DataFrame:  # fmt: skip
    """The tables of all traces whose reasoning has enough sentences.

    Args:
        model: and ``on_trace``: see :mod:`safekey_interp.interventions`.
        traces: any number.
        measure: a trace's reasoning to its tables; may raise TraceError.
        settings: how U and K are found, and the longest trace.
        most: first sentences of the reasoning that are taken.
        least: fewest sentences.

    Raises:
        NothingMeasured: there is no such trace.
    """
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    for trace, segmentation in segmented(traces, settings):
        try:
            encoding = model.encode(trace, segmentation)
            sentences = reasoning_sentences(trace, segmentation, encoding, most=most)
            reasoning = Reasoning(trace, encoding, sentences)
            if len(sentences) < least:
                raise TraceError(trace.trace_id, f"{len(sentences)} sentences, fewer than {least}")
            if settings.max_length is not None and reasoning.end > settings.max_length:
                raise TraceError(trace.trace_id, f"{reasoning.end} tokens, more than {settings.max_length}")
            tables += measure(reasoning)
        except TraceError as error:
            left_out[trace.trace_id] = error.reason
        on_trace(1)
    return concatenate_tables(tables, left_out, f"no trace has at least {least} sentences of reasoning")
