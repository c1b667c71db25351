"""The decoder and its layers are found in every architecture, wrapped or not."""

from __future__ import annotations

import copy

import pytest
from tiny_models import ARCHITECTURES, tiny_model

from safekey_interp.capture.architecture import find_layout


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_layers_are_the_decoders(architecture: str) -> None:
    model = tiny_model(architecture)
    layout = find_layout(model.hf)
    assert layout.decoder is model.hf.get_decoder()
    assert layout.layers is model.hf.get_decoder().layers


def test_experts_as_many_as_layers_are_not_the_layers() -> None:
    model = tiny_model("qwen3_moe")
    assert len(find_layout(model.hf).layers) == model.n_layers
    assert find_layout(copy.deepcopy(model.hf)).layers[0].self_attn.layer_idx == 0
