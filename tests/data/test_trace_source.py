"""A source of traces is a sequence that is read when it is asked for, and one trace is a list of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import safekey_interp as ski
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import InputError

N = 7
ROWS = [{"prompt": f"p{i}", "response": f"r{i}"} for i in range(N)]
SLICES = [slice(None), slice(2, 5), slice(-3, None), slice(None, None, -1), slice(5, 1, -2), slice(4, 4), slice(9, 20)]


@pytest.fixture(params=["file", "list", "generator"])
def source(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "file":
        file = tmp_path / "traces.jsonl"
        file.write_text("\n".join(map(json.dumps, ROWS)))
        return ski.read_traces(file)
    return ski.read_traces(ROWS if request.param == "list" else iter(ROWS))


def test_a_source_is_indexed_like_the_list_of_its_traces(source) -> None:
    listed = list(source)
    assert len(source) == N == len(listed)
    assert [source[i] for i in range(-N, N)] == [listed[i] for i in range(-N, N)]
    for part in SLICES:
        assert source[part] == listed[part]
    with pytest.raises(IndexError):
        source[N]
    assert list(source) == listed


def test_a_source_is_true_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text("{broken")
    assert ski.read_traces(file)


def test_one_trace_is_a_list_of_one() -> None:
    trace = ski.example()
    assert list(as_traces(trace)) == [trace] == list(ski.read_traces(trace))
    [alone], [listed] = ski.segment_all(trace), ski.segment_all([trace])
    assert alone == listed
    assert ski.find_spans(trace, {"z": "a"}) == ski.find_spans([trace], {"z": "a"})


def test_a_response_alone_is_segmented_as_text() -> None:
    text = ski.example().response
    as_trace = ski.Trace(trace_id="0", prompt="", response=text)
    assert ski.segment(text) == ski.segment(as_trace)


def test_a_text_in_place_of_a_list_is_refused_in_words() -> None:
    for call in (lambda: as_traces("t.jsonl"), lambda: ski.segment_all("t.jsonl"), lambda: ski.find_spans("t.jsonl")):
        with pytest.raises(InputError, match=r"traces: got the text 't.jsonl', expected a list of traces; read_traces"):
            call()  # type: ignore[arg-type]
