"""States on disk: what a matrix holds is what the forward pass gave, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_model, traces

from safekey_interp.capture import state_collection as states_module
from safekey_interp.capture.capture_request import STATE_POSITIONS, CaptureRequest
from safekey_interp.capture.hidden_states import States, write_states
from safekey_interp.capture.state_collection import collect_states
from safekey_interp.capture.streaming import StreamSettings, measure_stream
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

REQUEST = CaptureRequest(attention=False)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


def test_matrices_are_the_measured_states(tmp_path: Path, model: Model) -> None:
    entries = list(measure_stream(model, traces(7), REQUEST, StreamSettings()))
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    write_states(files[0], entries[:4], STATE_POSITIONS)
    write_states(files[1], entries[4:], STATE_POSITIONS)
    states = States(files, [e.trace.trace_id for e in entries], REQUEST.sites(model.n_layers), STATE_POSITIONS)
    assert [site.site for site in states.layers] == ["resid_post"] * 3 + ["ln_final"]
    for index in range(len(states.layers)):
        for p, position in enumerate(states.positions):
            rows = [entry.measured.states[index, p] for entry in entries if entry.measured is not None]
            np.testing.assert_array_equal(states.matrix(index, position), np.stack(rows))


def test_an_absent_position_is_a_row_of_nan(model: Model) -> None:
    data = [*traces(2), Trace(trace_id="prompt", prompt="How do I open it?", response="")]
    states, kept, _ = collect_states(model, data, positions=("prompt_end", "decision"))
    assert [trace.trace_id for trace in kept] == list(states.trace_ids) == ["t0", "t1", "prompt"]
    assert np.isfinite(states.matrix(0, "prompt_end")).all()
    assert np.isnan(states.matrix(0, "decision")).all(1).tolist() == [False, False, True]


def test_collected_in_several_files_or_one(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [*traces(5), Trace(trace_id="none", prompt="x", response="<think>"), *traces(8)[5:]]
    whole, kept, found = collect_states(model, data, layers=[1, -1])
    monkeypatch.setattr(states_module, "CHUNK", 3)
    pieces, _, _ = collect_states(model, data, layers=[1, -1])
    assert (len(whole.files), len(pieces.files)) == (1, 3)
    assert [site.layer for site in whole.layers] == [1, 2, 3]
    assert [trace.trace_id for trace in kept] == [f"t{i}" for i in range(8)] == [s.trace_id for s in found]
    for index in range(3):
        np.testing.assert_array_equal(whole.matrix(index, "context"), pieces.matrix(index, "context"))


def test_files_live_as_long_as_the_states(model: Model) -> None:
    states, _, _ = collect_states(model, traces(2), positions=("prompt",))
    file = states.files[0]
    assert file.is_file()
    del states
    assert not file.exists()


def test_an_unknown_position_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="span 'nowhere': no trace has one"):
        collect_states(model, traces(1), positions=("nowhere",))
