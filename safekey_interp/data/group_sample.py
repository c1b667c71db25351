"""Sample of whole groups from a stream of traces, by a hash of the group (bottom-k sampling).

A group's place in the order is the hash of the seed and the group, so that the sample is a function of the seed and of
what the stream holds, however the stream is cut. The first groups in that order are kept that hold as many traces as
were asked for; the last of them is cut where it does not fit. At most twice as many traces are in memory.
"""

from __future__ import annotations

import hashlib
from bisect import insort

from safekey_interp.data.trace import Trace


class GroupSample:
    """A sample that traces are offered to, one by one."""

    def __init__(self, n: int, seed: int) -> None:
        """Nothing is kept yet.

        Args:
            n: traces of the sample.
            seed: of its draw.
        """
        self.n_offered = 0
        """Traces so far."""
        self._n, self._seed = n, seed
        self._order: list[str] = []
        self._held: dict[str, list[tuple[int, Trace]]] = {}
        self._n_held = 0
        self._end: str | None = None  # the first place of a group that is known to be out

    def add(self, trace: Trace, *, is_out: bool = False) -> None:
        """Offer the next trace of the stream; one that ``is_out`` is counted alone."""
        at = self.n_offered
        self.n_offered += 1
        if is_out:
            return
        place = hashlib.sha256(f"{self._seed} {trace.group}".encode()).hexdigest()
        if self._end is not None and place >= self._end:
            return
        if place not in self._held:
            insort(self._order, place)
            self._held[place] = []
        if len(self._held[place]) == self._n:
            return
        self._held[place].append((at, trace))
        self._n_held += 1
        while self._n_held - len(self._held[self._order[-1]]) >= self._n:
            self._end = self._order.pop()
            self._n_held -= len(self._held.pop(self._end))

    def traces(self) -> list[Trace]:
        """The sample, in the order of the stream."""
        drawn = [pair for place in self._order for pair in self._held[place]][: self._n]
        return [trace for _, trace in sorted(drawn, key=lambda pair: pair[0])]
