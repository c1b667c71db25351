"""The attention hook delegates to the function that the architecture would have used itself."""

from __future__ import annotations

import copy
import sys

import pytest
import reference_forward
import torch
from tiny_models import ARCHITECTURES, tiny_model, traces
from transformers import AttentionInterface, AttentionMaskInterface

from safekey_interp.capture.attention_hook import _EAGER, _FUSED, _own_function, carried, hooked_attention
from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.recording import capture


def test_names_say_nothing_that_transformers_looks_for() -> None:
    for name in (_FUSED, _EAGER):
        assert not any(word in name for word in ("sdpa", "flash", "flex", "paged"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_name_has_a_mask_function_and_the_files_own_attention(architecture: str) -> None:
    model = tiny_model(architecture)
    decoder = model.hf.get_decoder()
    before = decoder.config._attn_implementation
    with hooked_attention(model.hf, decoder):
        name = decoder.config._attn_implementation
        assert name in AttentionInterface().valid_keys()
        assert name in AttentionMaskInterface().valid_keys()
        assert name == (_FUSED if before != "eager" and decoder._supports_sdpa else _EAGER)
    assert decoder.config._attn_implementation == before
    attention = decoder.layers[0].self_attn
    home = sys.modules[type(attention).__module__]
    assert _own_function(type(attention), "eager") is home.eager_attention_forward


@pytest.mark.parametrize("architecture", ["gpt_oss", "gemma2"])
def test_sdpa_gives_way_where_the_class_does_not_support_it(architecture: str) -> None:
    """GPT-OSS with SDPA inside is wrong by 5 in the logits without any error."""
    model = tiny_model(architecture)
    decoder = model.hf.get_decoder()
    if decoder._supports_sdpa:
        pytest.skip("this version of transformers says that it does")
    hf = copy.deepcopy(model.hf)
    hf.get_decoder().config._attn_implementation = "sdpa"
    with hooked_attention(hf, hf.get_decoder()):
        assert hf.get_decoder().config._attn_implementation == _EAGER


def test_a_subclass_uses_its_ancestors_function() -> None:
    attention = type(tiny_model("llama").hf.get_decoder().layers[0].self_attn)
    derived = type("Derived", (attention,), {"__module__": __name__})
    assert _own_function(derived, "eager") is _own_function(attention, "eager")


def test_captures_travel_with_the_forward_and_with_no_other() -> None:
    """An attention hook without a capture sees nothing and changes nothing."""
    model = tiny_model("mistral")
    batch = Batch.of(reference_forward.encodings(model, traces(2)))
    decoder = model.hf.get_decoder()
    with torch.no_grad(), hooked_attention(model.hf, decoder):
        without = model.hf(**batch.inputs("cpu")).logits
    with torch.no_grad():
        torch.testing.assert_close(model.hf(**batch.inputs("cpu")).logits, without, atol=1e-5, rtol=1e-5)
        with capture(model, batch, CaptureRequest(states=False)) as captured, carried(decoder, captured):
            model.hf(**batch.inputs("cpu"))  # carried twice, answered the same
    assert len(captured.attention) == model.n_layers
