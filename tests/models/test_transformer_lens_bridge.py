"""The bridge shares every parameter, answers with the same numbers, and leaves the fast path as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference_forward
import torch
from tiny_models import ARCHITECTURES, byte_level_tokenizer, tiny_model, traces

from safekey_interp.capture.batch_runner import measure_batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model, from_hf


@pytest.fixture(params=ARCHITECTURES, scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    return tiny_model(request.param)


def test_it_shares_storage_and_the_fast_path_keeps_its_attention(model: Model) -> None:
    attn = model.hf.config._attn_implementation
    ids = model.encode(traces(1)[0], reference_forward.segmentation(traces(1)[0])).input_ids[None]
    with torch.no_grad():
        before = model.hf(ids).logits
    bridge = model.bridge()
    assert model.bridge() is bridge, "made once"
    assert bridge.original_model is not model.hf
    # The storage, since TransformerLens makes views of the pieces of Phi-3's fused projections.
    mine = {tensor.untyped_storage().data_ptr() for tensor in model.hf.parameters()}
    theirs = {tensor.untyped_storage().data_ptr() for tensor in bridge.original_model.parameters()}
    assert mine == theirs
    assert model.hf.config._attn_implementation == attn
    assert bridge.original_model.config._attn_implementation == "eager"
    hooks = reference_forward.hook_counts(model.hf)
    with torch.no_grad():
        torch.testing.assert_close(model.hf(ids).logits, before, atol=0, rtol=0)
        through = bridge(ids, return_type="logits")
    torch.testing.assert_close(through, before, atol=1e-4, rtol=1e-5)
    eager_before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    with torch.no_grad():
        torch.testing.assert_close(through, model.hf(ids).logits, atol=1e-5, rtol=1e-5)
    model.hf.set_attn_implementation(eager_before)
    assert reference_forward.hook_counts(model.hf) == hooks


def test_it_answers_the_same_request_with_the_same_numbers(model: Model) -> None:
    encodings = reference_forward.encodings(model, traces())
    request = CaptureRequest(token_weights=True)
    fast = measure_batch(model, encodings, request)
    slow = measure_batch(model, encodings, request, backend="bridge")
    for a, b in zip(fast, slow, strict=True):
        for name in ("mass", "total", "random", "matched", "uniform", "entropy"):
            np.testing.assert_allclose(
                getattr(a.attention, name), getattr(b.attention, name), atol=1e-4, rtol=0, err_msg=name
            )
        np.testing.assert_array_equal(a.attention.n_random, b.attention.n_random)
        np.testing.assert_allclose(a.token_weights, b.token_weights, atol=1e-4, rtol=0)
        scale = np.linalg.norm(a.states, axis=-1, keepdims=True)
        assert (np.abs(a.states - b.states) <= 1e-4 * scale).all()
    assert not any(point.has_hooks() for point in model.bridge().hook_dict.values()), "its hooks are gone"


def test_some_layers_and_states_alone_through_the_bridge() -> None:
    model = tiny_model("qwen2")
    encodings = reference_forward.encodings(model, traces(2))
    every = measure_batch(model, encodings, CaptureRequest(), backend="bridge")
    last = measure_batch(model, encodings, CaptureRequest(layers=(2,), attention=False), backend="bridge")
    for a, b in zip(every, last, strict=True):
        assert b.attention is None
        np.testing.assert_array_equal(a.states[-2:], b.states)


def test_padding_tokens_in_a_prompt_are_text() -> None:
    """The pad token's own text in a prompt is a token like others, not the end of the row."""
    model = tiny_model("llama")
    texts = traces(2)
    texts = [trace.with_(prompt=f"<pad> {trace.prompt} <pad>") for trace in texts]
    encodings = reference_forward.encodings(model, texts)
    fast = measure_batch(model, encodings, CaptureRequest())
    slow = measure_batch(model, encodings, CaptureRequest(), backend="bridge")
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a.attention.mass, b.attention.mass, atol=1e-4)


def test_its_hooks_are_gone_after_a_failure() -> None:
    model = tiny_model("llama")
    encodings = reference_forward.encodings(model, traces(1))
    layer = model.bridge().original_model.get_decoder().layers[1]

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    handle = layer.register_forward_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            measure_batch(model, encodings, CaptureRequest(), backend="bridge")
    finally:
        handle.remove()
    assert not any(point.has_hooks() for point in model.bridge().hook_dict.values())
    assert measure_batch(model, encodings, CaptureRequest(), backend="bridge")


def test_a_changed_weight_changes_both() -> None:
    model = tiny_model("llama")
    model = Model(copy.deepcopy(model.hf), model.tokenizer, spec=model.spec)
    bridge = model.bridge()
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        model.hf.get_decoder().layers[0].mlp.down_proj.weight.mul_(-1)
        torch.testing.assert_close(bridge(ids, return_type="logits"), model.hf(ids).logits, atol=1e-4, rtol=1e-4)


def test_an_architecture_without_an_adapter_is_refused() -> None:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING["doge"](vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    model = from_hf(AutoModelForCausalLM.from_config(config), byte_level_tokenizer(), spec="doge")
    with pytest.raises(ModelError, match="TransformerLens cannot bridge DogeForCausalLM") as caught:
        model.bridge()
    assert "\n" not in str(caught.value)
