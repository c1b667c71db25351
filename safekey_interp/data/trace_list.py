"""Traces that a function is given: a list, a stream, or one alone as a list of one; all else is refused in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError


def as_traces(traces: Any, *also: type) -> Iterator[Any]:
    """The traces of what a caller gave, one by one.

    Args:
        traces: traces, as anything that can be walked through; or one trace.
        *also: types that may stand among them.

    Raises:
        InputError: no traces, at once; something else among them, when it is reached.
    """
    kinds = (Trace, *also)
    if isinstance(traces, kinds):
        return iter((traces,))
    if isinstance(traces, str):
        raise InputError(f"traces: got the text {traces[:60]!r}, expected a list of traces; read_traces reads a file")
    if isinstance(traces, Mapping) or not isinstance(traces, Iterable):
        raise InputError(f"traces: got a value of type {type(traces).__name__}, expected a list of traces")
    return _checked(traces, kinds)


def _checked(traces: Iterable[Any], kinds: tuple[type, ...]) -> Iterator[Any]:
    for trace in traces:
        if not isinstance(trace, kinds):
            got = f"a value of type {type(trace).__name__}"
            raise InputError(f"trace: got {got}, expected a Trace; ski.Trace(trace_id=…, prompt=…, response=…)")
        yield trace
