"""Check of span expressions against the spans that traces have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from safekey_interp.data.span_expressions import check_spans
from safekey_interp.data.trace import Trace


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


def with_known_spans(traces: Iterable[Trace], expressions: Sequence[str]) -> Iterable[Trace]:
    """The traces as they are.

    Raises:
        InputError: an expression names a span that none of them has; at the end, unless they are a list.
    """
    if isinstance(traces, Sequence):
        check_spans(expressions, span_names_of(traces))
        return traces
    return _checked_at_the_end(traces, expressions) if isinstance(traces, Iterable) else traces


def _checked_at_the_end(traces: Iterable[Trace], expressions: Sequence[str]) -> Iterator[Trace]:
    own: set[str] = set()
    for trace in traces:
        own.update(getattr(trace, "span_names", ()))
        yield trace
    check_spans(expressions, own)
