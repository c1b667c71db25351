"""A sample of whole groups depends on the seed and on what the stream holds, not on its order or its length so far."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from safekey_interp.data.group_sample import GroupSample
from safekey_interp.data.trace import Trace


def stream(n: int, n_groups: int) -> list[Trace]:
    return [Trace(trace_id=str(i), prompt="p", response="", group=str(i % n_groups)) for i in range(n)]


def drawn(traces: list[Trace], n: int, seed: int = 0) -> list[Trace]:
    sample = GroupSample(n, seed)
    for trace in traces:
        sample.add(trace)
    assert sample.n_offered == len(traces)
    return sample.traces()


@pytest.mark.parametrize("n", [1, 7, 30, 31, 100])
def test_it_holds_as_many_as_were_asked_for_in_whole_groups_but_the_last(n: int) -> None:
    traces = stream(300, 60)
    found = drawn(traces, n)
    assert len(found) == n
    assert [trace for trace in traces if trace in found] == found
    sizes = Counter(trace.group for trace in found).values()
    assert sum(size < 5 for size in sizes) <= 1


def test_it_is_the_same_in_any_order_of_the_stream_and_another_for_another_seed() -> None:
    traces = stream(400, 200)
    shuffled = random.Random(1).sample(traces, len(traces))
    ids = {trace.trace_id for trace in drawn(traces, 50)}
    assert {trace.trace_id for trace in drawn(shuffled, 50)} == ids
    assert {trace.trace_id for trace in drawn(traces, 50, seed=1)} != ids


def test_a_larger_sample_holds_the_smaller_one() -> None:
    traces = stream(400, 100)
    assert {trace.trace_id for trace in drawn(traces, 40)} <= {trace.trace_id for trace in drawn(traces, 60)}


def test_each_group_is_as_likely_as_another() -> None:
    traces = stream(40, 40)
    counts = Counter(trace.group for seed in range(400) for trace in drawn(traces, 10, seed))
    assert len(counts) == 40
    assert max(abs(count - 100) for count in counts.values()) < 5 * 8.7, "within five standard deviations"


def test_it_never_holds_more_than_twice_as_many() -> None:
    for n_groups in (1, 3, 5_000):
        sample = GroupSample(20, 0)
        for trace in stream(5_000, n_groups):
            sample.add(trace)
            assert sample._n_held == sum(map(len, sample._held.values())) <= 40


def test_what_is_out_is_counted_alone() -> None:
    sample = GroupSample(5, 0)
    for trace in stream(10, 10):
        sample.add(trace, is_out=trace.trace_id != "3")
    assert (sample.n_offered, [trace.trace_id for trace in sample.traces()]) == (10, ["3"])
