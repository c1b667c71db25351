"""States as one array are those of TransformerLens's cache, whatever the batch, and come back from a file."""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference_forward
import torch
from other_architectures import HYBRIDS, OTHERS, small
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny_models import tiny_model, traces

import safekey_interp as ski
from safekey_interp.capture import state_array
from safekey_interp.capture.architecture import find_layout
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.layer_parts import layer_parts, projection_weight
from safekey_interp.capture.places import Place
from safekey_interp.capture.recording import capture
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model

FAMILIES = ["llama", "qwen3", "gemma3_text", "phi3", "gpt_oss"]
STREAM = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
POSITIONS = ("decision", "context", "prompt")
CACHED = {name: f"hook_{name}" for name in STREAM}


class Interrupt(Exception):
    pass


def cached(model: Model, ids: torch.Tensor) -> Any:
    with torch.no_grad():
        return model.bridge().run_with_cache(ids[None])[1]


def mean(states: torch.Tensor, encoding: ski.Encoding, position: str) -> np.ndarray:
    return states[list(encoding.positions(position))].mean(0).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_states_are_those_of_transformer_lens(architecture: str) -> None:
    model, given = tiny_model(architecture), reference_forward.with_spans(4)
    components = (*STREAM, "head", "ln_final")
    found = ski.states(model, given, positions=POSITIONS, components=components, head="output", finder="given")
    z = ski.states(model, given, positions=POSITIONS, components=("head",), finder="given")
    heads = tuple(f"head.{number}" for number in range(4))
    assert found.components == (*STREAM, *heads, "ln_final")
    assert found.layers == (0, 1, 2, 3)
    assert found.array.shape == (4, 3, 4, 10, 32)
    assert found.array.dtype == np.float32
    assert z.components == heads
    assert z.array.shape == (4, 3, 3, 4, 8)
    for t, encoding in enumerate(reference_forward.encodings(model, traces(4))):
        cache = cached(model, encoding.input_ids[: encoding.end])
        for p, position in enumerate(POSITIONS):
            for layer in range(3):
                by_name = dict(zip(found.components, found.array[t, p, layer], strict=True))
                for name, hook in CACHED.items():
                    assert close(by_name[name], mean(cache[f"blocks.{layer}.{hook}"][0], encoding, position)), name
                values = cache[f"blocks.{layer}.attn.hook_z"][0].reshape(encoding.end, 4, 8)
                assert close(z.array[t, p, layer], mean(values, encoding, position))
                # A norm behind the projection multiplies each feature by what it multiplied it by.
                writes = layer_parts(model.hf)[layer].heads
                assert writes is not None
                weight = projection_weight(writes.projection).detach().unflatten(1, (4, 8))
                projected = cache[f"blocks.{layer}.attn.hook_out"][0]
                factor = cache[f"blocks.{layer}.hook_attn_out"][0] / projected
                outputs = torch.einsum("phk,dhk->phd", values, weight) * factor[:, None]
                for number, head in enumerate(heads):
                    assert close(by_name[head], mean(outputs[:, number], encoding, position)), head
            assert close(found.array[t, p, 3, -1], mean(cache["ln_final.hook_out"][0], encoding, position))
    assert np.isnan(found.array[:, :, 3, :-1]).all(), "behind the last layer there is the final norm alone"
    assert np.isnan(found.array[:, :, :3, -1]).all()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_streams_are_those_of_transformers(architecture: str) -> None:
    model, given = tiny_model(architecture), reference_forward.with_spans(3)
    found = ski.states(model, given, components=["resid_pre", "resid_post", "ln_final"], finder="given")
    sdpa = "sdpa" if model.hf._supports_sdpa else "eager"
    for t, encoding in enumerate(reference_forward.encodings(model, traces(3))):
        with torch.no_grad():
            hidden = reference_forward.forward(model, encoding, attn=sdpa, patterns=False).hidden
        for layer in range(3):
            assert close(found.array[t, 0, layer, 0], mean(hidden[layer], encoding, "decision"))
            if layer < 2:
                assert close(found.array[t, 0, layer, 1], mean(hidden[layer + 1], encoding, "decision"))
        assert close(found.array[t, 0, 3, 2], mean(hidden[3], encoding, "decision"))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_padding_on_either_side_changes_nothing(architecture: str) -> None:
    model = tiny_model(architecture)
    encodings = reference_forward.encodings(model, traces(4))
    sites = (*STREAM, *(f"head.{number}" for number in range(4)))
    request = CaptureRequest(
        attention=False, positions=POSITIONS, places=tuple(Place(1, site) for site in sites), head="output"
    )

    def read(batch: Batch) -> dict[Place, torch.Tensor]:
        with torch.no_grad(), capture(model, batch, request) as captured:
            model.hf(**batch.inputs("cpu"))
        return captured.states

    alone = [read(Batch.of([encoding])) for encoding in encodings]
    for side in ("left", "right"):
        together = read(Batch.of(encodings, side=side))
        for row, one in enumerate(alone):
            for place, expected in one.items():
                assert ((together[place][row] - expected[0]).norm(dim=-1) <= 1e-5 * expected[0].norm(dim=-1)).all()


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_the_bridge_gives_the_same_array(architecture: str) -> None:
    model, given = tiny_model(architecture), reference_forward.with_spans(3)
    asked: Any = {"components": (*STREAM, "head", "ln_final"), "head": "output", "finder": "given"}
    ours, theirs = (ski.states(model, given, backend=way, **asked).array for way in ("hf", "bridge"))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_trace_without_a_position_is_nan_and_one_without_any_is_named() -> None:
    given = [*reference_forward.with_spans(2), Trace(trace_id="alone", prompt="How do I open doors?", response="")]
    model = tiny_model("llama")
    found = ski.states(model, given, positions=["last(prompt)", "decision", "prompt_end"], finder="given")
    assert found.trace_ids == ("t0", "t1", "alone")
    assert list(found.index["label"]) == ["benign", "harmful", None]
    assert list(found.index["group"]) == [trace.group for trace in given]
    assert np.isfinite(found.array[:, [0, 2]]).all()
    np.testing.assert_array_equal(found.array[:, 0], found.array[:, 2])
    assert np.isfinite(found.array[:2, 1]).all()
    assert np.isnan(found.array[2, 1]).all()
    without = ski.states(model, given, positions=["decision"], finder="given")
    assert without.trace_ids == ("t0", "t1")
    assert set(without.left_out) == {"alone"}


def test_neither_batches_nor_the_choice_of_layers_and_components_matter() -> None:
    model, given = tiny_model("gemma2"), reference_forward.with_spans(5)
    every = ski.states(model, given, components=(*STREAM, "head"), head="output", finder="given")
    one_by_one = ski.states(
        model, given, components=(*STREAM, "head"), head="output", finder="given", batch_size=1, max_length=500
    )
    np.testing.assert_allclose(one_by_one.array, every.array, atol=1e-5, rtol=1e-4)
    one = ski.states(model, given, layers=[-2], components=["mlp_out", "head.3"], head="output", finder="given")
    assert (one.layers, one.components) == ((1,), ("mlp_out", "head.3"))
    columns = [every.components.index(name) for name in one.components]
    np.testing.assert_allclose(one.array, every.array[:, :, [1]][:, :, :, columns], atol=1e-6, rtol=1e-5)


def test_a_layer_without_heads_is_nan() -> None:
    options, without = HYBRIDS["lfm2"]
    found = ski.states(small("lfm2", options), reference_forward.with_spans(2), components=["head"], finder="given")
    missing = np.isnan(found.array).all(axis=(0, 1, 3, 4))
    assert tuple(np.flatnonzero(missing)) == without
    assert np.isfinite(found.array[:, :, ~missing]).all()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_holds_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool) -> None:
    given = [*reference_forward.with_spans(2), Trace(trace_id="bad", prompt="How?", response="  ")]
    small_enough = ski.states(tiny_model("llama"), given, components=["attn_out", "ln_final"], finder="given")
    if mapped:
        monkeypatch.setattr(state_array, "IN_MEMORY", 0)
    found = ski.states(tiny_model("llama"), given, components=["attn_out", "ln_final"], finder="given")
    found.save(tmp_path / "states.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["states.safetensors"]
    again = ski.StateArray.load(tmp_path / "states.safetensors")
    for one in (found, again):
        assert isinstance(one.array, np.memmap) == mapped
        np.testing.assert_array_equal(one.array, small_enough.array)
        pd.testing.assert_frame_equal(one.index, small_enough.index)
    for name in ("positions", "layers", "components", "head", "model", "left_out"):
        assert getattr(again, name) == getattr(found, name)
    with pytest.raises(InputError, match="cannot be written"):
        found.save(tmp_path / "nowhere" / "states.safetensors")


def test_another_file_is_refused(tmp_path: Path) -> None:
    other, broken = tmp_path / "other.safetensors", tmp_path / "broken.safetensors"
    save_file({"states": np.zeros((1, 1, 1, 1, 2), np.float32)}, other, {"safekey_interp": "Probe"})
    broken.write_bytes(b"no tensors")
    for file, says in ((other, "got a file of Probe"), (broken, "cannot be read"), (tmp_path / "none", "cannot be")):
        with pytest.raises(InputError, match=f"{says}.*expected a file written by StateArray.save"):
            ski.StateArray.load(file)
    found = ski.states(tiny_model("llama"), reference_forward.with_spans(1), finder="given")
    found.save(other)
    with safe_open(other, framework="numpy") as file:
        about = file.metadata()
    for array in (found.array[:, :, :1], found.array.astype(np.float16)):
        save_file({"states": np.ascontiguousarray(array)}, other, about)
        with pytest.raises(InputError, match=r"got arrays .* expected one of .*'F32', 1, 1, 3, 1, 'd_model'"):
            ski.StateArray.load(other)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"components": "head"}, "components: got 'head', expected a list such as"),
        ({"positions": "decision"}, "positions: got the text 'decision', expected a list such as"),
        ({"components": []}, "components: got"),
        ({"components": ["hook_z"]}, "components: got 'hook_z', expected one of resid_pre"),
        ({"components": ["head", "attn_out"]}, "components: got head, attn_out; z of heads"),
        ({"positions": ["middle"]}, "middle"),
        ({"positions": []}, "positions: got none, expected a list"),
        ({"layers": [9]}, "layers: got"),
        ({"head": "both"}, "head: got 'both', expected one of z, output"),
    ],
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ski.states(tiny_model("llama"), reference_forward.with_spans(1), finder="given", **options)


def test_a_component_that_no_layer_has_is_refused() -> None:
    model = small("gpt_neox", OTHERS["gpt_neox"])
    with pytest.raises(InputError, match=r"components: resid_mid: .*parallel block"):
        ski.states(model, reference_forward.with_spans(1), components=["resid_mid"], finder="given")
    with pytest.raises(InputError, match="no trace can be measured"):
        ski.states(model, [Trace(trace_id="x", prompt="How?", response=" ")])


def test_hooks_are_gone_when_a_stream_breaks() -> None:
    model = tiny_model("gemma3_text")
    counts = reference_forward.hook_counts(model.hf)

    def fail(_n: int) -> None:
        raise Interrupt

    for way in ("hf", "bridge"):
        with pytest.raises(Interrupt):
            ski.states(
                model, reference_forward.with_spans(2), components=["head"], finder="given", backend=way, on_batch=fail
            )
        assert reference_forward.hook_counts(model.hf) == counts


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_nothing_as_long_as_the_sequence_outlives_its_layer(architecture: str) -> None:
    """While the last layer runs, a pass that reads heads and components holds no more long tensors than a plain one."""
    model = tiny_model(architecture)
    [encoding] = reference_forward.encodings(model, traces(1))
    batch = Batch.of([encoding])
    sites = (*STREAM, *(f"head.{number}" for number in range(4)))
    places = tuple(Place(layer, site) for layer in (0, 1) for site in sites)
    request = CaptureRequest(attention=False, positions=("decision",), places=places, head="output")
    held: list[int] = []

    def count(*_: object) -> None:
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        held.append(sum(1 for tensor in tensors if tensor.is_floating_point() and encoding.end in tensor.shape))

    handle = find_layout(model.hf).layers[-1].register_forward_pre_hook(count)
    try:
        with torch.no_grad():
            model.hf(**batch.inputs("cpu"))
            with capture(model, batch, request) as captured:
                model.hf(**batch.inputs("cpu"))
    finally:
        handle.remove()
    assert len(captured.states) == len(places)
    # The weights of positions are as long as the sequence, once for all places.
    assert held[1] <= held[0] + 1


def test_xarray_has_the_names_of_the_axes() -> None:
    found = ski.states(tiny_model("llama"), reference_forward.with_spans(2), finder="given")
    if importlib.util.find_spec("xarray") is None:
        with pytest.raises(InputError, match="to_xarray: needs the package xarray; pip install xarray"):
            found.to_xarray()
        return
    named = found.to_xarray()
    assert named.dims == ("trace", "position", "layer", "component", "d_model")
    one = named.sel(trace="t1", position="decision", layer=2, component="resid_post")
    np.testing.assert_array_equal(one.to_numpy(), found.array[1, 0, 2, 0])
    assert list(named["label"].to_numpy()) == list(found.index["label"])
