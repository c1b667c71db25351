"""Random models of named architectures and sizes, made on their device without a download.

What a pass costs depends on shapes, not on what the weights have learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from analysis.cost.small_model import trained_tokenizer
from safekey_interp.errors import InputError
from safekey_interp.models.model import Model, from_hf

_LONG = {"max_position_embeddings": 131_072}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-8b": (
        "llama",
        _LONG
        | dict(vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32)
        | dict(num_attention_heads=32, num_key_value_heads=8),
    ),
    "qwen2.5-7b": (
        "qwen2",
        _LONG
        | dict(vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28)
        | dict(num_attention_heads=28, num_key_value_heads=4),
    ),
    "qwen2.5-14b": (
        "qwen2",
        _LONG
        | dict(vocab_size=152_064, hidden_size=5120, intermediate_size=13_824, num_hidden_layers=48)
        | dict(num_attention_heads=40, num_key_value_heads=8),
    ),
    "qwen3-moe": (
        "qwen3_moe",
        _LONG
        | dict(vocab_size=151_936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=48)
        | dict(num_attention_heads=32, num_key_value_heads=4, head_dim=128)
        | dict(num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768),
    ),
    "smollm2-135m": (
        "llama",
        dict(vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
        | dict(num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True),
    ),
    "tiny": (
        "llama",
        dict(vocab_size=2400, hidden_size=64, intermediate_size=128, num_hidden_layers=3)
        | dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048),
    ),
}
"""Family and sizes by name; qwen3-moe is Qwen3-30B-A3B."""


def shape_config(name: str, **changes: Any) -> PretrainedConfig:
    """The configuration of a shape, with other sizes where they are given.

    Raises:
        InputError: no such shape.
    """
    if name not in SHAPES:
        raise InputError(f"model: got {name!r}, expected one of {', '.join(SHAPES)}")
    family, sizes = SHAPES[name]
    return CONFIG_MAPPING[family](**(sizes | changes))


def random_model(name: str, texts: Sequence[str], *, device: str, dtype: torch.dtype, **changes: Any) -> Model:
    """A model of that shape with random weights.

    Args:
        name: one of :data:`SHAPES`.
        texts: what its tokenizer is trained on.
        device: where it is made.
        dtype: of its weights.
        **changes: other sizes.
    """
    config = shape_config(name, **changes)
    torch.manual_seed(0)
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return from_hf(hf.requires_grad_(False), trained_tokenizer(texts, n_words=2000), spec=name)
