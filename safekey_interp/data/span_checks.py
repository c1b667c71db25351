"""Check of span expressions against the spans that traces have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from safekey_interp.data.span_expressions import check_spans
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_list import as_traces


class PartOf(list[Any]):
    """Some of the traces of a file, or pairs of them, which knows the names of the spans that any trace of it has."""

    def __init__(self, items: Iterable[Any], span_names: Collection[str]) -> None:
        super().__init__(items)
        self.span_names = frozenset(span_names)
        """Of the whole file."""


def span_names_of(traces: Iterable[Any]) -> frozenset[str]:
    """Names of the spans that traces, or pairs of them, have of their own."""
    if isinstance(traces, PartOf):
        return traces.span_names
    each = (trace for item in traces for trace in ([item] if isinstance(item, Trace) else item))
    return frozenset(name for trace in each if isinstance(trace, Trace) for name in trace.span_names)


def with_known_spans(traces: Iterable[Trace] | Trace, expressions: Sequence[str]) -> Iterable[Trace]:
    """The traces as they are, from anything that :func:`~safekey_interp.data.trace_list.as_traces` takes.

    Raises:
        InputError: an expression names a span that none of them has; at once where they are a list, or one trace, else
            at the end. What is no traces is refused at once.
    """
    listed = [traces] if isinstance(traces, Trace) else traces
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        check_spans(expressions, span_names_of(listed))
        return as_traces(listed)
    return _checked_at_the_end(as_traces(listed), expressions)


def _checked_at_the_end(traces: Iterable[Trace], expressions: Sequence[str]) -> Iterator[Trace]:
    own: set[str] = set()
    for trace in traces:
        own.update(getattr(trace, "span_names", ()))
        yield trace
    check_spans(expressions, own)
