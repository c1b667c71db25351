"""Which sentences of the reasoning are its units, and which tokens are theirs?"""

from __future__ import annotations

from typing import NamedTuple

from safekey_interp.encoding import Encoding
from safekey_interp.errors import TraceError
from safekey_interp.finders.sentences import iterate_sentences
from safekey_interp.segmentation import Segmentation
from safekey_interp.trace import CharSpan, TokenSpan, Trace


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


def reasoning_sentences(trace: Trace, found: Segmentation, encoding: Encoding, *, most: int) -> list[Sentence]:
    """The first sentences of a trace's reasoning; U and K are as the segmentation has them.

    Args:
        trace: the trace.
        found: its segmentation.
        encoding: its tokens.
        most: sentences at most.

    Raises:
        TraceError: fewer than two sentences have tokens.
    """
    spans: list[tuple[str, CharSpan]] = []
    for span in iterate_sentences(
        trace.response, found.reasoning.start, found.reasoning.end, len(found.reasoning) or 1
    ):
        part = "rest"
        for name in ("understanding", "key_sentence"):
            whole = getattr(found, name)
            if whole is not None and whole.start <= span.start < whole.end:
                part = name
        if part == "key_sentence" and spans and spans[-1][0] == "key_sentence":
            spans[-1] = (part, CharSpan(spans[-1][1].start, span.end))
        else:
            spans.append((part, span))
    sentences: list[Sentence] = []
    for part, span in spans[:most]:
        tokens = encoding.tokens_of(trace.response, span)
        if tokens is not None:
            sentences.append(Sentence(len(sentences), part, span.text(trace.response), tokens))
    if len(sentences) < 2:
        raise TraceError(trace.trace_id, "its reasoning has fewer than two sentences")
    return sentences
