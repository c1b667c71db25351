"""Finder that segments the traces of a run once, however often the run reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby

from safekey_interp.data.trace import Trace
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.segmentation_record import Segmentation


class OnceFinder:
    """A finder that keeps what it found in some traces, from when it is first asked about one of them."""

    def __init__(self, finder: Finder, traces: Sequence[Trace]) -> None:
        """Find nothing yet.

        Args:
            finder: what segments; others than ``traces``, too, each time that it is asked.
            traces: those that are kept.
        """
        self.name = finder.name
        self._finder, self._traces = finder, traces
        # By identity: a changed copy is another trace.
        self._kept = frozenset(map(id, traces))

    @cached_property
    def _found(self) -> dict[int, Segmentation]:
        return dict(zip(map(id, self._traces), self._finder.find(self._traces), strict=True))

    def find(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        """One segmentation a trace, in their order."""
        for is_kept, some in groupby(traces, lambda trace: id(trace) in self._kept):
            find = self._recall if is_kept else self._finder.find
            yield from find(some)

    def _recall(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        return (self._found[id(trace)] for trace in traces)
