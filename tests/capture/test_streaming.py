"""Traces pass in file order, each measured or left out with its reason, whatever their number."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import reference_forward
from tiny_models import tiny_model, traces

from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.streaming import CHUNK, StreamSettings, in_chunks, measure_chunk, measure_stream, prepare
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError
from safekey_interp.measures.attention import measure_attention
from safekey_interp.models.model import load
from safekey_interp.models.organism import TRACES

GIVEN = StreamSettings(finder="given")


@pytest.mark.parametrize("n", [0, 1, 7, 8, 20])
def test_chunks_are_the_stream(n: int) -> None:
    stream = reference_forward.with_spans(1) * n
    chunks = list(in_chunks(iter(stream), 8))
    assert [trace for chunk in chunks for trace in chunk] == stream
    assert all(len(chunk) == 8 for chunk in chunks[:-1])


def test_it_asks_for_a_chunk_at_a_time() -> None:
    """A hundred thousand traces never stand in memory at once."""
    asked = 0

    def source() -> Iterator[Trace]:
        nonlocal asked
        for i in range(10 * CHUNK):
            asked += 1
            yield reference_forward.with_given(traces(1)[0], trace_id=f"t{i}")

    request = CaptureRequest(layers=(0,), attention=False)
    stream = measure_stream(tiny_model("llama"), source(), request, GIVEN)
    first = next(stream)
    assert first.trace.trace_id == "t0"
    assert asked == CHUNK


def test_the_bad_are_left_out_with_their_reason_and_the_good_are_measured() -> None:
    long = reference_forward.with_given(traces(1)[0], trace_id="long", prompt="How do I open a door? " * 300)
    no_key = Trace(trace_id="no key", prompt="How?", response="   ")
    whitespace = Trace(trace_id="blank", prompt="How?", response="a  b", given={"key_sentence": CharSpan(1, 3)})
    ordered = [reference_forward.with_spans(1)[0], long, reference_forward.with_spans(2)[1], no_key, whitespace]
    done: list[int] = []
    entries = list(measure_stream(tiny_model("llama"), ordered, CaptureRequest(), GIVEN, on_batch=done.append))
    assert [entry.trace.trace_id for entry in entries] == [trace.trace_id for trace in ordered]
    assert [entry.measured is not None for entry in entries] == [True, False, True, False, False]
    assert all((entry.left_out is None) == (entry.measured is not None) for entry in entries)
    assert "past 512 tokens" in entries[1].left_out
    assert not entries[1].left_out.startswith("trace "), "the trace is named beside it"
    assert "no key sentence" in entries[3].left_out
    assert entries[4].left_out
    assert sum(done) == len(ordered), "the progress counts each once"


def test_none_left_is_an_error_that_says_why() -> None:
    bad = [Trace(trace_id="x", prompt="How?", response="  ")]
    with pytest.raises(InputError, match="no trace can be measured; trace x: no key sentence"):
        list(measure_stream(tiny_model("llama"), bad, CaptureRequest(), GIVEN))
    with pytest.raises(InputError, match="no trace can be measured; there are none"):
        list(measure_stream(tiny_model("llama"), [], CaptureRequest(), GIVEN))


def test_batch_sizes_change_nothing() -> None:
    model = tiny_model("gemma3_text")
    results = [
        list(measure_stream(model, reference_forward.with_spans(), CaptureRequest(), replace(GIVEN, batch_size=size)))
        for size in (1, 2, "auto")
    ]
    for entries in results[1:]:
        for a, b in zip(results[0], entries, strict=True):
            np.testing.assert_allclose(a.measured.attention.mass, b.measured.attention.mass, atol=1e-5)
            np.testing.assert_array_equal(a.measured.attention.n_random, b.measured.attention.n_random)


def test_a_repeated_run_is_the_same_to_the_bit() -> None:
    first, second = (
        list(measure_stream(tiny_model("qwen3"), reference_forward.with_spans(), CaptureRequest(), GIVEN))
        for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.measured.states, b.measured.states)
        np.testing.assert_array_equal(a.measured.attention.random, b.measured.attention.random)


def test_token_weights_are_kept_of_the_traces_asked_for_alone() -> None:
    model = tiny_model("llama")
    entries = list(prepare(model, reference_forward.with_spans(), GIVEN))
    done = measure_chunk(model, entries, CaptureRequest(states=False), GIVEN, token_weights_of=["t3"])
    assert [entry.measured.token_weights is not None for entry in done] == [False, False, False, True, False]
    assert done[3].measured.token_weights.shape[-1] == done[3].encoding.end
    np.testing.assert_allclose(done[3].measured.token_weights.sum(-1), 1, atol=1e-5)


def test_a_prompt_alone_is_prepared() -> None:
    entry = next(prepare(tiny_model("llama"), [Trace(trace_id="p", prompt="How?", response="")], GIVEN))
    assert entry.left_out is None
    assert entry.encoding is not None
    assert entry.encoding.spans["key_sentence"] is None


def test_a_text_that_the_tokenizer_does_not_know_is_warned_of() -> None:
    model = load("organism")
    english = Trace(
        trace_id="e", prompt="How do I fix a bicycle?", response="<think>\nA user asks. First, oil.\n</think>\n"
    )
    with pytest.warns(UserWarning, match=r"organism: \d+% of the tokens of what it reads are unknown"):
        measure_attention(model, [english])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_attention(model, [next(iter(read_traces(TRACES)))])
