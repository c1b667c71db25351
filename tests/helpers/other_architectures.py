"""Small models of further architectures: readable ones, hybrids with linear attention, and refused ones."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import BASE, byte_level_tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.models.model import Model, from_hf

_SMALL_GPT = dict(vocab_size=400, n_embd=32, n_layer=3, n_head=4, n_positions=512, bos_token_id=1, eos_token_id=2)
_SMALL = BASE | {"num_key_value_heads": 4}
_HYBRID = BASE | {"num_hidden_layers": 4}
_MIXED = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 1}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}

OTHERS = {
    "gpt2": _SMALL_GPT,
    "gpt_bigcode": _SMALL_GPT,
    "opt": dict(
        vocab_size=400, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=32
    ),
    "gpt_neox": _SMALL,
    "phi": _SMALL,
    "olmo2": BASE,
    "starcoder2": BASE,
    "smollm3": BASE,
    "granite": BASE,
    "cohere2": _HYBRID | {"sliding_window": 8},
    "deepseek_v3": _SMALL
    | dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=4)
    | dict(num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=16, first_k_dense_replace=1),
}
HYBRIDS = {
    "lfm2": (_HYBRID | {"layer_types": ["conv", "full_attention", "conv", "full_attention"]}, (0, 2)),
    "qwen3_next": (
        _HYBRID | _EXPERTS | _LINEAR | {"head_dim": 8, "shared_expert_intermediate_size": 16, "layer_types": _MIXED},
        (0, 2),
    ),
    "bamba": (_HYBRID | _MAMBA | {"attn_layer_indices": [1]}, (0, 2, 3)),
    "minimax": (
        _HYBRID | {"head_dim": 8, "layer_types": _MIXED, "num_local_experts": 2, "block_size": 16},
        (0, 2),
    ),
}
REFUSED = {
    "bloom": (dict(vocab_size=400, hidden_size=32, n_layer=3, n_head=4), "attention interface"),
    "mpt": (dict(vocab_size=400, d_model=32, n_layers=3, n_heads=4), "attention interface"),
    "falcon": (
        dict(vocab_size=400, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, alibi=True),
        "attention interface",
    ),
    "gptj": (_SMALL_GPT | {"rotary_dim": 4}, "attention interface"),
    "stablelm": (BASE, "showed its attention"),
    "mamba": (dict(vocab_size=400, hidden_size=32, num_hidden_layers=3), "showed its attention"),
    "rwkv": (dict(vocab_size=400, hidden_size=32, num_hidden_layers=3), "decoder layers"),
    "bert": (
        dict(vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4),
        "attends to later tokens; expected a causal model",
    ),
}


def small(architecture: str, options: dict[str, Any]) -> Model:
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**options), dtype=torch.float32)
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.25)
    return from_hf(hf, byte_level_tokenizer(), spec=f"tiny-{architecture}")
