"""Finder that segments traces once: what it finds is what its finder finds, which is asked once a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import safekey_interp as ski
from safekey_interp.data.trace import Trace
from safekey_interp.models.organism import read_shipped
from safekey_interp.segmentation.once_finder import OnceFinder
from safekey_interp.segmentation.rules_finder import RulesFinder
from safekey_interp.segmentation.segmentation_record import Segmentation
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings
from safekey_interp.segmentation.segmenter import segmented


class Asked(RulesFinder):
    """The rules, and which traces they were asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Trace] = []

    def find(self, traces: Iterable[Trace]) -> Iterator[Segmentation]:
        for trace in traces:
            self.asked.append(trace)
            yield from super().find([trace])


def test_kept_traces_are_segmented_once_and_others_each_time() -> None:
    shipped = list(read_shipped())
    kept, others = (shipped[part] for part in (slice(0, 6), slice(6, 9)))
    mixed = [kept[4], others[0], others[1], kept[0], kept[4], others[2]]
    inner = Asked()
    finder = OnceFinder(inner, kept)
    assert not inner.asked, "nobody asked yet"
    expected = list(ski.segment_all(mixed))
    for _ in range(2):
        assert [found for _, found in segmented(mixed, SegmentationSettings(finder=finder))] == expected
    assert [trace for trace in inner.asked if trace in kept] == kept
    assert [trace for trace in inner.asked if trace in others] == [*others, *others]


def test_a_changed_copy_is_another_trace() -> None:
    trace, other = list(read_shipped())[:2]
    finder = OnceFinder(RulesFinder(), [trace])
    changed = trace.with_(response=other.response)
    found = list(finder.find([trace, changed]))
    assert [each.response for each in found] == [trace.response, other.response]
