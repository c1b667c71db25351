"""Trust in a finder on the data at hand: traces that it read, their languages, its confidence, agreement with people.

Counted while traces are segmented, in constant memory; ``run.json`` of a run has the record as ``finder_trust``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from safekey_interp.data.trace import Trace
from safekey_interp.segmentation.segmentation_record import Segmentation
from safekey_interp.segmentation.unread_languages import unread_language

_STEP = 0.01
"""Confidences are told apart by this, so that their median takes no list of them."""


class FinderTrust:
    """Counts of segmented traces, one after another."""

    def __init__(self) -> None:
        self.n = self.n_read = self.n_annotated = self.n_as_annotated = self.n_cut = self.n_cut_known = 0
        self._languages: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._confidences: Counter[int] = Counter()

    @classmethod
    def of(cls, pairs: Iterable[tuple[Trace, Segmentation]]) -> FinderTrust:
        """The counts of traces with their segmentations."""
        counted = cls()
        for trace, segmentation in pairs:
            counted.add(trace, segmentation)
        return counted

    def add(self, trace: Trace, segmentation: Segmentation) -> None:
        """Count one trace: read where its key sentence has an outcome, annotated where the data came with its span."""
        self.n += 1
        self._languages[segmentation.language] += 1
        if (language := unread_language(segmentation)) is not None:
            self._unread[language] += 1
        if segmentation.aha is not None:
            self.n_read += 1
            self._confidences[round(segmentation.confidence / _STEP)] += 1
        annotated = trace.given.get("key_sentence")
        if annotated is not None and segmentation.finder != "given":
            self.n_annotated += 1
            self.n_as_annotated += segmentation.key_sentence == annotated
        if isinstance(trace.meta.get("cut"), bool):
            self.n_cut_known += 1
            self.n_cut += trace.meta["cut"]

    def record(self) -> dict[str, Any]:
        """The counts for ``run.json``: ``languages`` by ISO 639-1 code, ``unread`` by the names of languages that the
        finder does not read, ``median_confidence`` of the traces that were read (None where there is none), and of how
        many responses it is known whether the largest number of tokens cut them."""
        return {
            "n": self.n,
            "n_read": self.n_read,
            "languages": dict(self._languages.most_common()),
            "unread": dict(self._unread.most_common()),
            "median_confidence": self._median(),
            "n_annotated": self.n_annotated,
            "n_as_annotated": self.n_as_annotated,
            "n_cut": self.n_cut,
            "n_cut_known": self.n_cut_known,
        }

    def _median(self) -> float | None:
        """The lower median, to two places."""
        left = (self.n_read + 1) // 2
        for step in sorted(self._confidences):
            left -= self._confidences[step]
            if left <= 0:
                return round(step * _STEP, 2)
        return None
