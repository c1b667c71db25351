"""The same twenty traces come out of every shape of file; a wrong file is one line that says where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_shapes import SHAPES, traces

from safekey_interp.data.trace_reader import read_traces
from safekey_interp.segmentation.reasoning_span import answer_span, reasoning_region
from safekey_interp.segmentation.segmenter import segment

TOLD = traces()


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_holds_the_same_traces(name: str, tmp_path: Path) -> None:
    if name == "hub_data_set":
        pytest.importorskip("datasets")
    read = list(read_traces(SHAPES[name](tmp_path, TOLD)))
    assert [trace.prompt for trace in read] == [told.prompt for told in TOLD]
    assert [trace.label for trace in read] == [told.label for told in TOLD]
    for trace, told in zip(read, TOLD, strict=True):
        region, answer = reasoning_region(trace.response), answer_span(trace.response)
        assert (region.region, region.span.text(trace.response)) == ("reasoning", told.reasoning)
        assert answer is not None
        assert answer.text(trace.response) == told.answer
        expected, found = segment(told.tagged), segment(trace)
        assert found.understanding_text == expected.understanding_text
        assert found.key_sentence_text == expected.key_sentence_text
        assert expected.key_sentence_text
