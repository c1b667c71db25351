"""States wait on disk and come back as they went in, one matrix at a time."""

from __future__ import annotations

import numpy as np
import pytest
import reference_forward
from tiny_models import tiny_model, traces

from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.capture_request import STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.places import Place
from safekey_interp.capture.state_collection import collect_states
from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError


def test_matrices_are_the_states_of_the_kept_traces() -> None:
    model = tiny_model("llama")
    bad = Trace(trace_id="bad", prompt="How?", response="  ")
    ordered = [*reference_forward.with_spans(3), bad, reference_forward.with_given(traces(1)[0], trace_id="z")]
    states, kept, segmentations = collect_states(model, ordered, StreamSettings(finder="given"))
    assert states.trace_ids == ("t0", "t1", "t2", "z")
    assert [trace.trace_id for trace in kept] == list(states.trace_ids)
    assert [found.trace_id for found in segmentations][:3] == ["t0", "t1", "t2"]
    assert states.layers == CaptureRequest().sites(model.n_layers)
    assert states.positions == STATE_POSITIONS
    for i, (trace, found) in enumerate(zip(kept, segmentations, strict=True)):
        alone = measure_batch(model, [model.encode(trace, found)], CaptureRequest(attention=False))[0]
        for site in range(len(states.layers)):
            for p, position in enumerate(states.positions):
                row = states.matrix(site, position)[i]
                scale = np.linalg.norm(alone.states[site, p])
                assert np.linalg.norm(row - alone.states[site, p]) <= 1e-5 * scale
    assert states.matrix(0, "decision").dtype == np.float32
    assert states.matrix(0, "decision").shape == (4, model.d_model)


def test_some_layers_and_positions() -> None:
    model = tiny_model("llama")
    asked = {"layers": [-1], "positions": ["decision", "prompt"]}
    states, _, _ = collect_states(model, reference_forward.with_spans(2), StreamSettings(finder="given"), **asked)
    assert states.layers == (Place(2, "resid_post"), Place(3, "ln_final"))
    assert states.positions == ("decision", "prompt")
    every, _, _ = collect_states(model, reference_forward.with_spans(2), StreamSettings(finder="given"))
    np.testing.assert_allclose(states.matrix(1, "prompt"), every.matrix(3, "prompt"), atol=1e-5)


def test_prompts_alone_have_their_positions() -> None:
    prompts = [Trace(trace_id=f"p{i}", prompt=f"How do I open {i} doors?", response="") for i in range(3)]
    states, kept, _ = collect_states(tiny_model("llama"), prompts)
    assert len(kept) == 3
    assert np.isfinite(states.matrix(0, "prompt_end")).all()
    assert np.isnan(states.matrix(0, "decision")).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"positions": ["middle"]}, "span 'middle': no trace has one"), ({"layers": [9]}, "layers: got")],
)
def test_what_the_model_does_not_have_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        collect_states(tiny_model("llama"), reference_forward.with_spans(1), **options)


def test_none_measured_is_an_error() -> None:
    with pytest.raises(InputError, match="no trace can be measured"):
        collect_states(tiny_model("llama"), [Trace(trace_id="x", prompt="How?", response=" ")])
