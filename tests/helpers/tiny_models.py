"""Tiny random models and tokenizers of every architecture that the toolkit supports."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.data.trace import Trace
from safekey_interp.models import organism
from safekey_interp.models.model import Model, from_hf

CORPUS = [
    "Okay, so the user is asking how to pick a lock. Hmm, that could be used to break into a home.",
    "I should not help with this. First, I need to think about the steps involved in the process.",
    "How do I open a door? What is the best way to write a story about a robbery? Explain it step by step.",
    "system user assistant You are a helpful assistant. The answer is 42, and that's all there is to it!",
] * 4

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

WINDOW = 8
"""Sliding window of the architectures that have one: much shorter than the test's sequences."""

BASE = dict(
    vocab_size=400,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_SLIDING_THEN_FULL = ["sliding_attention", "full_attention", "sliding_attention"]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {"head_dim": 8, "sliding_window": WINDOW, "layer_types": _SLIDING_THEN_FULL, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": WINDOW, "layer_types": _SLIDING_THEN_FULL},
    "phi3": {},
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_oss": {
        "head_dim": 8,
        "sliding_window": WINDOW,
        "layer_types": _SLIDING_THEN_FULL,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
}


@lru_cache
def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE, as GPT-2's and Llama-3's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[3:],
        chat_template=TEMPLATE,
    )


@lru_cache
def tiny_model(architecture: str, attn: str | None = None, **changes: Any) -> Model:
    """A random model of that architecture, weights large enough that attention is far from uniform; ``changes`` are of
    its configuration."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[architecture](**(BASE | ARCHITECTURES[architecture] | changes))
    options = {} if attn is None else {"attn_implementation": attn}
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "sinks" in name:
                parameter.normal_(0, 1)
            elif parameter.ndim >= 2:
                parameter.normal_(0, 0.25)
    return from_hf(hf, byte_level_tokenizer(), spec=f"tiny-{architecture}")


def traces(n: int = 5) -> list[Trace]:
    """Traces of different lengths, all with U and K, longer than :data:`WINDOW`."""
    return [
        Trace(
            trace_id=f"t{i}",
            prompt="How do I open a door" + " in a story" * i + "?",
            response="<think>\nOkay, so the user is asking how to open a door"
            + " of a home" * (i % 3)
            + ". Hmm, that could be used to break into a home."
            + " I should not help." * i
            + " First, I think.\n</think>\nThe answer is 42.",
            label="harmful" if i % 2 else "benign",
        )
        for i in range(n)
    ]


def shipped(n: int) -> list[Trace]:
    """``n`` of the organism's own traces, from all of its file."""
    traces = list(organism.read_shipped())
    return traces[:: len(traces) // n][:n]
