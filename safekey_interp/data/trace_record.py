"""JSON record of a trace, for temporary files and hashes."""

from __future__ import annotations

import json
from typing import Any

from safekey_interp.data.trace import CharSpan, Message, Spans, Trace

_TEXTS = ("trace_id", "prompt", "response", "label", "source", "group")


def record_of(trace: Trace) -> tuple[bytes, bool]:
    """A trace as JSON, and whether that is all of it: values that JSON does not have become text."""
    turns = [[turn.role, turn.content] for turn in trace.messages]
    given = {name: [span.start, span.end] for name, span in trace.given.items()}
    record = [*(getattr(trace, name) for name in _TEXTS), turns, given, dict(trace.meta)]
    spans, steps = spans_record(trace), [[step.role, step.content] for step in trace.steps]
    if spans or steps:
        record.append(spans)
    if steps:
        record.append(steps)
    try:
        return json.dumps(record).encode(), True
    except TypeError:
        return json.dumps(record, default=str).encode(), False


def trace_of(record: list[Any]) -> Trace:
    """The trace of a record."""
    n = len(_TEXTS)
    turns, given, meta, *more = record[n:]
    steps = more[1] if len(more) > 1 else []
    spans, prompt_spans, *of_turns = more[0] if more and more[0] else ({}, {}, *({} for _ in (*turns, *steps)))
    messages = [
        Message(role=role, content=content, spans=named)
        for (role, content), named in zip((*turns, *steps), of_turns, strict=True)
    ]
    return Trace(
        **dict(zip(_TEXTS, record[:n], strict=True)),
        messages=tuple(messages[: len(turns)]),
        steps=tuple(messages[len(turns) :]),
        given={name: CharSpan(*ends) for name, ends in given.items()},
        meta=meta,
        spans=spans,
        prompt_spans=prompt_spans,
    )


def spans_record(trace: Trace) -> list[dict[str, list[list[int]]]]:
    """Intervals of its own spans by name: of the response, of the prompt, of each turn; nothing where it has none."""
    places = (trace.spans, trace.prompt_spans, *(turn.spans for turn in (*trace.messages, *trace.steps)))
    return [intervals_of(spans) for spans in places] if any(places) else []


def intervals_of(spans: Spans) -> dict[str, list[list[int]]]:
    """Named spans as a column of a file has them."""
    return {name: [[span.start, span.end] for span in intervals] for name, intervals in spans.items()}
