"""Which architectures are measured, which layers of a hybrid are n/a, and who is refused with a reason."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference_forward
import torch
from other_architectures import HYBRIDS, OTHERS, REFUSED, small
from tiny_models import ARCHITECTURES, tiny_model, traces
from transformers import PretrainedConfig

from safekey_interp.capture.batch_runner import Measured, measure_batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.self_check import check_attention
from safekey_interp.errors import ModelError
from safekey_interp.models.model import Model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_promised_architectures_pass_and_keep_no_hook(architecture: str) -> None:
    """Not even transformers' own, which it leaves behind where it is asked for attentions."""
    model = tiny_model(architecture)
    model = Model(copy.deepcopy(model.hf), model.tokenizer, spec=model.spec)
    attn, hooks = model.hf.config._attn_implementation, reference_forward.hook_counts(model.hf)
    check_attention(model)
    assert reference_forward.hook_counts(model.hf) == hooks
    assert model.hf.config._attn_implementation == attn
    model.hf.set_attn_implementation("eager")
    for _ in range(2):
        patterns = reference_forward.forward(model, reference_forward.encodings(model, traces(1))[0]).patterns
        assert len(patterns) == model.n_layers, "whoever asks transformers for attentions still gets them"


@pytest.mark.parametrize("architecture", OTHERS)
def test_any_decoder_that_goes_through_the_interface_works(architecture: str) -> None:
    model = small(architecture, OTHERS[architecture])
    check_attention(model)
    encodings = reference_forward.encodings(model, traces(3))
    for entry, encoding in zip(measure_batch(model, encodings, CaptureRequest()), encodings, strict=True):
        with torch.no_grad():
            expected = reference_forward.forward(model, encoding, attn="eager")
        np.testing.assert_allclose(
            entry.attention.mass, reference_forward.masses(expected.patterns, encoding).float().numpy(), atol=1e-5
        )
        own = reference_forward.forward(model, encoding, patterns=False)
        for site in reference_forward.checkable_sites(model.n_layers):
            row = site.layer if site.site == "resid_post" else -1
            reference = reference_forward.state(own.hidden, encoding, site, "decision").detach().numpy()
            found = entry.states[row, list(CaptureRequest().positions).index("decision")]
            assert np.linalg.norm(found - reference) <= 1e-5 * np.linalg.norm(reference)


@pytest.mark.parametrize("architecture", HYBRIDS)
def test_layers_of_linear_attention_are_not_available_and_the_rest_is(architecture: str) -> None:
    options, without = HYBRIDS[architecture]
    model = small(architecture, options)
    check_attention(model)
    entries = measure_batch(model, reference_forward.encodings(model, traces(3)), CaptureRequest(token_weights=True))
    for entry in entries:
        assert isinstance(entry, Measured)
        assert entry.layers_without_pattern == without
        for layer in range(model.n_layers):
            for values in (entry.attention.mass, entry.attention.random, entry.attention.uniform, entry.token_weights):
                assert np.isnan(values[layer]).all() == (layer in without)
        assert np.isfinite(entry.states).all(), "states have no pattern to lack"
        full = [layer for layer in range(model.n_layers) if layer not in without]
        np.testing.assert_allclose(entry.attention.total[full], 1, atol=1e-5)
    only = measure_batch(model, reference_forward.encodings(model, traces(1)), CaptureRequest(layers=(1,)))[0]
    assert only.layers_without_pattern == ()
    np.testing.assert_allclose(only.attention.mass[0], entries[0].attention.mass[1], atol=1e-6)


@pytest.mark.parametrize("architecture", REFUSED)
def test_who_is_refused_hears_why(architecture: str) -> None:
    options, reason = REFUSED[architecture]
    model = small(architecture, options)
    hooks, attn = reference_forward.hook_counts(model.hf), model.hf.config._attn_implementation
    with pytest.raises(ModelError, match=reason) as caught:
        check_attention(model)
    assert "\n" not in str(caught.value)
    assert reference_forward.hook_counts(model.hf) == hooks
    assert model.hf.config._attn_implementation == attn


def test_a_term_that_the_tap_does_not_know_is_noticed() -> None:
    model = tiny_model("qwen3")
    model = Model(copy.deepcopy(model.hf), model.tokenizer, spec="biased")
    attention = model.hf.get_decoder().layers[1].self_attn
    forward = attention.forward
    attention.forward = lambda *args, **kwargs: _more_on_itself(forward(*args, **kwargs))
    with pytest.raises(ModelError, match=r"layer 1 the attention read differs by .* a term that cannot be read here"):
        check_attention(model)


def _more_on_itself(returned: tuple[torch.Tensor, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor | None]:
    output, weights = returned
    if weights is None:
        return returned
    return output, (weights + 0.3 * torch.eye(weights.shape[-1])) / 1.3


def test_weights_that_are_not_finite_are_named() -> None:
    model = tiny_model("llama")
    model = Model(copy.deepcopy(model.hf), model.tokenizer, spec="broken")
    with torch.no_grad():
        model.hf.get_decoder().layers[0].self_attn.q_proj.weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match="attention of layer 0 is not finite; are its weights whole"):
        check_attention(model)


def test_the_check_holds_in_training_mode_with_dropout() -> None:
    model = tiny_model("llama")
    hf = copy.deepcopy(model.hf)
    hf.config.attention_dropout = 0.5
    for layer in hf.get_decoder().layers:
        layer.self_attn.attention_dropout = 0.5
    model = Model(hf, model.tokenizer, spec="dropout")
    hf.train()
    check_attention(model)
    encodings = reference_forward.encodings(model, traces(2))
    first, second = (measure_batch(model, encodings, CaptureRequest()) for _ in range(2))
    assert hf.training, "the mode is put back"
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.states, b.states)


def test_a_configuration_without_its_layers_is_refused() -> None:
    model = tiny_model("llama")
    hf = copy.deepcopy(model.hf)
    assert isinstance(hf.config, PretrainedConfig)
    hf.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="no list of 7 decoder layers found"):
        check_attention(Model(hf, model.tokenizer, spec="short"))
