r"""Search for named spans: regular expressions, functions of a trace and finders of key sentences.

A regular expression is one of the package ``regex``: those of ``re``, and more. Each match is an interval, or its group
where the expression has one; a match without characters is none. One that takes longer than :data:`SECONDS` for a text,
which nested repetition such as ``(a+)+b`` does, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, overload

import regex

from safekey_interp.data.span_expressions import check_span_name
from safekey_interp.data.trace import CharSpan, Spans, Trace
from safekey_interp.data.trace_list import as_traces
from safekey_interp.data.trace_reader import TraceSource
from safekey_interp.errors import InputError
from safekey_interp.segmentation.finder_registry import finder_names
from safekey_interp.segmentation.reasoning_span import Delimiters
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import segmented

SpanSource = str | re.Pattern[str] | Callable[[Trace], Iterable[Any]]
"""Where a named span comes from: a regular expression; ``@FINDER.key_sentence`` or ``@FINDER.understanding``, what a
registered finder finds; or a function of a trace that returns (start, end) of each interval."""
SECONDS = 10.0
"""The longest that a regular expression may take for one text."""
_PARTS = ("key_sentence", "understanding")

_Search = Callable[[Trace, str], Iterable[Any]]
"""Intervals of a text of a trace."""


@overload
def find_spans(
    traces: TraceSource,
    spans: Mapping[str, SpanSource] = ...,
    *,
    prompt: Mapping[str, SpanSource] = ...,
    delimiters: Delimiters | None = ...,
) -> TraceSource: ...


@overload
def find_spans(
    traces: Trace | list[Trace] | tuple[Trace, ...],
    spans: Mapping[str, SpanSource] = ...,
    *,
    prompt: Mapping[str, SpanSource] = ...,
    delimiters: Delimiters | None = ...,
) -> list[Trace]: ...


@overload
def find_spans(
    traces: Iterable[Trace],
    spans: Mapping[str, SpanSource] = ...,
    *,
    prompt: Mapping[str, SpanSource] = ...,
    delimiters: Delimiters | None = ...,
) -> Iterator[Trace]: ...


def find_spans(
    traces: Iterable[Trace] | Trace,
    spans: Mapping[str, SpanSource] = {},
    *,
    prompt: Mapping[str, SpanSource] = {},
    delimiters: Delimiters | None = None,
) -> Iterable[Trace]:
    r"""Give traces named spans of their own, to be used in span expressions.

    A trace in which a span is not found goes without it; spans of other names stay.

    Args:
        traces: any number.
        spans: name -> where its intervals of the response come from: a regular expression, such as ``r"\bWait\b"``
            (its group, where it has one); a function that takes a trace and returns (start, end) of each interval;
            ``"@llm.key_sentence"`` or ``"@llm.understanding"`` for what a registered finder finds.
        prompt: the same of the prompt, without finders.
        delimiters: marks of the reasoning for finders; the known families' when None.

    Returns:
        The traces in their order, with their texts as they are: a list for a list, a source for what ``read_traces``
        returned, else a stream.

    Raises:
        InputError: a name that cannot be one, an expression that cannot be compiled or takes too long for a text, a
            finder that is not registered, or a function that returns no intervals.
    """
    for what, sources in (("spans", spans), ("prompt", prompt)):
        if not isinstance(sources, Mapping):
            got = f"got a value of type {type(sources).__name__}"
            raise InputError(f"{what}: {got}, expected names and where they come from, {{'hedge': r'\\bmaybe\\b'}}")
    of_finders = {name: _finder_part(name, source) for name, source in spans.items() if _is_finder(source)}
    of_response = {name: _search(name, source) for name, source in spans.items() if not _is_finder(source)}
    of_prompt = {name: _search(name, source) for name, source in prompt.items()}

    def change(traces: Iterable[Trace]) -> Iterator[Trace]:
        for finder in dict.fromkeys(finder for finder, _ in of_finders.values()):
            parts = {name: part for name, (of, part) in of_finders.items() if of == finder}
            traces = _by_finder(traces, SegmentationSettings(finder=finder, delimiters=delimiters), parts)
        for trace in traces:
            yield trace.with_(
                spans=_merged(trace, trace.spans, trace.response, of_response),
                prompt_spans=_merged(trace, trace.prompt_spans, trace.prompt, of_prompt),
            )

    if isinstance(traces, TraceSource):
        return traces.changed(change, _record(spans, prompt))
    found = change(as_traces(traces))
    return list(found) if isinstance(traces, Trace | list | tuple) else found


def finders_of(spans: Mapping[str, SpanSource]) -> set[str]:
    """Names of the finders that spans come from; errors as for :func:`find_spans`."""
    return {_finder_part(name, source)[0] for name, source in spans.items() if _is_finder(source)}


def _by_finder(traces: Iterable[Trace], settings: SegmentationSettings, parts: Mapping[str, str]) -> Iterator[Trace]:
    for trace, segmentation in segmented(traces, settings):
        found = {name: getattr(segmentation, part) for name, part in parts.items()}
        kept = {name: spans for name, spans in trace.spans.items() if name not in parts}
        yield trace.with_(spans=kept | {name: [span] for name, span in found.items() if span is not None})


def _merged(trace: Trace, known: Spans, text: str, searches: Mapping[str, _Search]) -> Spans:
    if not searches:
        return known
    merged = {name: intervals for name, intervals in known.items() if name not in searches}
    for name, search in searches.items():
        with _naming(name, trace, text):
            intervals = [_interval(each) for each in search(trace, text)]
        if intervals:
            merged[name] = intervals
    return merged


class _NoInterval(Exception):
    """What a function returned among its intervals."""


@contextmanager
def _naming(name: str, trace: Trace, text: str) -> Iterator[None]:
    where = f"span {name!r}: trace {trace.trace_id}"
    try:
        yield
    except _NoInterval as error:
        [got] = error.args
        raise InputError(
            f"{where}: the function gave {got!r}, expected [(start, end), ...], 0 <= start <= end"
        ) from None
    except TimeoutError:
        raise InputError(
            f"{where}: the regular expression takes more than {SECONDS:g} s for {len(text):,} characters, expected one "
            "without repetition inside repetition, such as a+b in place of (a+)+b"
        ) from None


def _interval(each: Any) -> CharSpan:
    if isinstance(each, CharSpan):
        return each
    try:
        start, end = each
        return CharSpan(start.__index__(), end.__index__())
    except (AttributeError, TypeError, ValueError):
        raise _NoInterval(each) from None


def _is_finder(source: SpanSource) -> bool:
    return isinstance(source, str) and source.startswith("@")


def _finder_part(name: str, source: Any) -> tuple[str, str]:
    check_span_name(name)
    finder, _, part = source[1:].rpartition(".")
    if finder not in finder_names() or part not in _PARTS:
        known = ", ".join(f"@{each}.key_sentence" for each in finder_names())
        raise InputError(
            f"span {name!r}: got {source!r}, expected one of {known}, or .understanding of one; an expression that "
            "begins with @ is written [@]"
        )
    return finder, part


def _search(name: str, source: Any) -> _Search:
    check_span_name(name)
    if _is_finder(source):
        raise InputError(f"span {name!r}: got {source!r} for the prompt, expected a regular expression or a function")
    if isinstance(source, str | re.Pattern | regex.Pattern):
        return partial(_matches, _compiled(name, source))
    if callable(source):
        return partial(_called, source)
    raise InputError(
        f"span {name!r}: got a value of type {type(source).__name__}, expected a regular expression, a function of a "
        "trace, or @FINDER.key_sentence"
    )


def _compiled(name: str, source: Any) -> Any:
    try:
        pattern = regex.compile(source) if isinstance(source, str) else source
    except regex.error as error:
        raise InputError(f"span {name!r}: regular expression {source!r}: {error}; expected one of Python's") from None
    if pattern.groups > 1:
        raise InputError(
            f"span {name!r}: regular expression {pattern.pattern!r}: got {pattern.groups} groups, expected one at "
            "most; (?:...) is none"
        )
    return pattern


def _called(function: Callable[[Trace], Any], trace: Trace, text: str) -> Iterable[Any]:
    found = function(trace)
    if found is None:
        return ()
    if not isinstance(found, Iterable):
        raise _NoInterval(found)
    return found


def _matches(pattern: Any, trace: Trace, text: str) -> Iterator[tuple[int, int]]:
    limit: dict[str, Any] = {} if isinstance(pattern, re.Pattern) else {"timeout": SECONDS}
    for match in pattern.finditer(text, **limit):
        start, end = match.span(pattern.groups)
        if start < end:  # (-1, -1) of a group that took no part
            yield start, end


def _record(spans: Mapping[str, SpanSource], prompt: Mapping[str, SpanSource]) -> dict[str, Any]:
    """What a manifest says of the spans."""
    places = {"spans": spans, "prompt_spans": prompt}
    return {
        place: {name: _in_words(source) for name, source in sources.items()}
        for place, sources in places.items()
        if sources
    }


def _in_words(source: Any) -> str:
    if isinstance(source, str):
        return source
    return str(getattr(source, "pattern", None) or getattr(source, "__qualname__", type(source).__qualname__))
