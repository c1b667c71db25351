"""Spans of their own that cannot be read leave a trace out, with the reason; others are measured where they lie."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import safekey_interp as ski
from safekey_interp.capture.capture_request import STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.measured_spans import measured_spans
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.capture.streaming import prepare
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

RESPONSE = "<think>They ask. Wait, it is.</think>Yes."
HUGE = 10**30


@pytest.fixture(scope="module")
def model() -> Model:
    return ski.load("organism")


def trace(name: str, **fields) -> ski.Trace:
    return ski.Trace(trace_id=name, prompt="Is it late?", response=RESPONSE, **fields)


def left_out(model: Model, traces: list[ski.Trace], *reads: str) -> dict[str, str | None]:
    request = CaptureRequest(attention=False, positions=reads)
    return {entry.trace.trace_id: entry.left_out for entry in prepare(model, traces, StreamSettings(), request)}


@pytest.mark.parametrize(
    ("spans", "why"),
    [
        ([(0, HUGE)], f"span 'z': [0, {HUGE}) lies outside the response of {len(RESPONSE)} characters"),
        ([(0, len(RESPONSE) + 1)], "lies outside the response"),
        ([(0, 5), (4, 9)], "[0, 5) and [4, 9) of the response overlap"),
        ([(3, 3)], "no token of its own lies in characters [3, 3)"),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named(model: Model, spans: list, why: str) -> None:
    good = trace("good", spans={"z": [(17, 22)]})
    reasons = left_out(model, [trace("bad", spans={"z": spans}), good], "z")
    assert reasons["good"] is None
    assert why in (reasons["bad"] or "")
    bad = trace("bad", messages=[ski.Message(role="user", content=RESPONSE, spans={"z": spans})])
    assert left_out(model, [bad, good], "z")["bad"] is not None


def test_a_trace_without_the_span_is_left_out_and_a_name_that_none_has_is_refused(model: Model) -> None:
    good, without = trace("good", spans={"wait": [(17, 22)]}), trace("without", spans={"wait": []})
    assert left_out(model, [good, without], "wait")["without"].startswith("no token in wait")  # type: ignore[union-attr]
    with pytest.raises(InputError, match="span 'wait': no trace has one"):
        left_out(model, [without], "wait")
    with pytest.raises(InputError, match="span 'wiat': no trace has one; did you mean 'wait'"):
        left_out(model, [good], "wiat")


MEASURES = (
    ski.measure_attention,
    ski.measure_separability,
    partial(ski.measure_transfer, by="source"),
    ski.fit_directions,
    ski.knockout,
    partial(ski.states, positions=["prompt"]),
)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_path_of_a_file_is_no_list_of_traces(model: Model, measure: Any) -> None:
    with pytest.raises(
        InputError, match=r"traces: got the text 'traces.jsonl', expected a list of traces; read_traces"
    ):
        measure(model, "traces.jsonl")


def test_surrogates_shift_nothing(model: Model) -> None:
    plain = ski.find_spans(ski.Trace(trace_id="t", prompt="p", response="\ufffd Wait, it is."), {"z": "Wait"})
    broken = ski.find_spans(ski.Trace(trace_id="t", prompt="p", response="\ud800 Wait, it is."), {"z": "Wait"})
    request = CaptureRequest(attention=False, positions=("z",))
    [one], [other] = (list(prepare(model, traces, StreamSettings(), request)) for traces in (plain, broken))
    assert one.encoding is not None
    assert other.encoding is not None
    positions = list(one.encoding.positions("z"))
    assert positions == list(other.encoding.positions("z"))
    spelled = "".join(one.encoding.text[slice(*one.encoding.offsets[position])] for position in positions)
    assert "Wait" in spelled


@pytest.mark.parametrize(
    ("positions", "measured"),
    [
        (("prompt_end",), ["with K", "without K"]),
        (("prompt_end", "decision"), ["with K", "without K"]),
        (("decision",), ["with K"]),
        (("decision", "last(prompt)"), ["with K", "without K"]),
        (("decision", "wait"), ["with K"]),
        (STATE_POSITIONS, ["with K"]),
    ],
)
def test_a_trace_is_measured_where_it_has_one_of_what_is_named(
    model: Model, positions: tuple[str, ...], measured: list[str]
) -> None:
    traces = [trace("with K", spans={"wait": [(17, 22)]}), trace("without K").with_(response="<think></think>")]
    request = CaptureRequest(attention=False, positions=positions)
    entries = list(prepare(model, traces, StreamSettings(), request))
    assert [entry.trace.trace_id for entry in entries if entry.left_out is None] == measured
    assert all("no key sentence" in entry.left_out for entry in entries if entry.left_out)
    by_run = measured_spans(None, None, positions)
    assert by_run.request.needs == request.needs
    assert by_run.request.reads == request.reads


def test_built_in_positions_alone_have_the_same_states_as_among_others(model: Model) -> None:
    all_of_them, of_one = (ski.states(model, [trace("t")], positions=at) for at in (STATE_POSITIONS, ["prompt_end"]))
    np.testing.assert_array_equal(of_one.array[:, 0], all_of_them.array[:, STATE_POSITIONS.index("prompt_end")])
