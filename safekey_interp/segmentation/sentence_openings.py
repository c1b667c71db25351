"""Sentences from the key sentence on, and the turning point of a trace: its first safe one, wherever that comes.

Most traces decide at K; in some the first safe sentence comes later. Each sentence from K on can be measured as K is: a
copy of the trace with that sentence as its ``given`` key sentence (``finder="given"``) has attention, hidden states and
the aha score at the sentence's start. The model is causal, so nothing after a sentence changes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

import pandas as pd

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.errors import InputError
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import Segmentation, segmented
from safekey_interp.segmentation.sentence_classes import Aha, classify_aha
from safekey_interp.segmentation.sentence_splitter import iterate_sentences


@dataclass(frozen=True, kw_only=True)
class SentenceStart:
    """One sentence of a trace's reasoning."""

    number: int
    """0 for K, counted from there."""
    span: CharSpan
    """Where it lies in the response."""
    text: str
    """Its words."""
    aha: Aha | None
    """What it decides, read as a key sentence is; None when its language is not read."""


def sentence_starts(trace: Trace, segmentation: Segmentation, *, most: int = 64) -> list[SentenceStart]:
    """The sentences of the reasoning from K on; none without a key sentence.

    Args:
        trace: the trace.
        segmentation: its segmentation.
        most: sentences at most.

    Raises:
        InputError: ``most`` is below 1.
    """
    if most < 1:
        raise InputError(f"most: got {most}, expected at least 1")
    key = segmentation.key_sentence
    if key is None:
        return []
    understanding = segmentation.understanding_text or ""
    end = max(segmentation.reasoning.end, key.end)
    rest = iterate_sentences(trace.response, key.end, end, limit=max(1, end - key.end))
    starts = []
    for number, span in enumerate(islice(chain([key], rest), most)):
        text = span.text(trace.response)
        aha = segmentation.aha if number == 0 else None
        aha = aha or classify_aha(text, understanding, trace.prompt, around=segmentation.language)
        starts.append(SentenceStart(number=number, span=span, text=text, aha=aha))
    return starts


def turning_points(
    traces: Iterable[Trace],
    *,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    most: int = 64,
) -> pd.DataFrame:
    """The first safe sentence of each trace, wherever it comes.

    Args:
        traces: any number; those without a key sentence are left out.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        most: sentences from K on that are read.

    Returns:
        One row per trace: trace_id, group, label, key_sentence (what K decides), n_sentences (read), turn (number of
        the first safe sentence, 0 for K; missing where there is none), relapse (number of the first unsafe sentence
        after it; missing where there is none), kind: ``at once`` (K is safe), ``late``, or ``never``.
        ``attrs["left_out"]`` maps the other traces to their reasons.
    """
    rows, left_out = [], {}
    for trace, segmentation in segmented(traces, SegmentationSettings(finder=finder, delimiters=delimiters)):
        starts = sentence_starts(trace, segmentation, most=most)
        if not starts:
            left_out[trace.trace_id] = f"no key sentence: {segmentation.reason}"
            continue
        turn = next((start.number for start in starts if start.aha == "safe"), None)
        after = starts[len(starts) if turn is None else turn + 1 :]
        rows.append(
            {
                "trace_id": trace.trace_id,
                "group": trace.group,
                "label": trace.label,
                "key_sentence": starts[0].aha,
                "n_sentences": len(starts),
                "turn": turn,
                "relapse": next((start.number for start in after if start.aha == "unsafe"), None),
                "kind": "never" if turn is None else "late" if turn else "at once",
            }
        )
    columns = ["trace_id", "group", "label", "key_sentence", "n_sentences", "turn", "relapse", "kind"]
    table = pd.DataFrame(rows, columns=columns).astype({"turn": "Int64", "relapse": "Int64", "label": object})
    table.attrs["left_out"] = left_out
    return table
