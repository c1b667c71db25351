"""Laws of the draw: by seed, in order, whole groups, each stratum by its share; a larger draw holds a smaller one."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError

ROWS = [
    {"id": str(n), "prompt": f"p{n // 2}", "label": "harmful" if n % 20 < 14 else "benign", "source": "ab"[n % 40 < 10]}
    for n in range(400)
]
"""200 requests of two traces each; labels 7 : 3, sources 3 : 1."""


def drawn(limit: int, seed: int = 0) -> list[Trace]:
    return list(read_traces(ROWS, limit=limit, seed=seed))


def test_strata_have_their_shares() -> None:
    shares = Counter((row["label"], row["source"]) for row in ROWS)
    for limit in (40, 100, 200):
        counts = Counter((trace.label, trace.source) for trace in drawn(limit))
        for stratum, n in shares.items():
            assert abs(counts[stratum] - limit * n / len(ROWS)) <= 2, (limit, stratum)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 450), st.integers(0, 5))
def test_a_draw_holds_so_many_in_order_and_whole_groups(limit: int, seed: int) -> None:
    traces = drawn(limit, seed)
    ids = [int(trace.trace_id) for trace in traces]
    assert len(ids) == min(limit, len(ROWS))
    assert ids == sorted(set(ids))
    assert sum(n == 1 for n in Counter(trace.group for trace in traces).values()) == limit % 2 * (limit < len(ROWS))


def test_larger_draws_hold_smaller_ones_and_seeds_differ() -> None:
    draws = [{trace.trace_id for trace in drawn(limit)} for limit in (10, 50, 51, 300)]
    assert all(small < large for small, large in pairwise(draws))
    assert draws[1] != {trace.trace_id for trace in drawn(50, seed=1)}


def test_a_draw_is_the_same_in_another_process() -> None:
    code = (
        "from safekey_interp.data.trace_reader import read_traces\n"
        "rows = [{'id': str(n), 'prompt': f'p{n}', 'label': 'harmful' if n % 3 else 'benign'} for n in range(90)]\n"
        "print([trace.trace_id for trace in read_traces(rows, limit=9)])"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1


def test_what_is_read_once_is_drawn_from_too() -> None:
    assert list(read_traces(iter(ROWS), limit=30)) == drawn(30)


def test_the_record_says_how_many_of_how_many() -> None:
    source = read_traces(ROWS, limit=30, seed=3)
    assert source.record()["drawn"] == {"limit": 30, "seed": 3, "of": 400}
    assert source.notes[-1].startswith("30 of these 400 traces drawn by seed 3")
    assert len(source) == source.n_read == 30
    assert read_traces(ROWS, first=30).record()["first"] == 30


def test_the_first_are_the_first() -> None:
    assert [trace.trace_id for trace in read_traces(ROWS, first=5)] == ["0", "1", "2", "3", "4"]
    with pytest.raises(InputError, match="limit, first: got both"):
        read_traces(ROWS, first=5, limit=5)
    with pytest.raises(InputError, match="first: got 0"):
        read_traces(ROWS, first=0)
