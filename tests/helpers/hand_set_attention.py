"""Model with attention set by hand: each head a function of distance, with sinks, windows and planted effects.

Queries and keys are constants that RoPE turns by their positions, so that a head's scores are Σ_j a_j cos(θ_j d) +
b_j sin(θ_j d); the coefficients are fitted to log f(d). Two pairs of dimensions that hardly turn carry what depends on
the token: a first token that takes attention at any distance, and words of one kind that look at words of another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.models.model import Model, from_hf

REACH = 450
"""Distances to which the shapes are fitted."""
WINDOW = 24
"""Sliding window of the model that has one."""
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flat": np.ones_like,
    "linear": lambda d: 1 - d / 500,
    "exponential": lambda d: np.exp(-0.03 * d),
    "steep exponential": lambda d: np.exp(-0.2 * np.minimum(d, 60)),
    "power law": lambda d: 1 / (1 + d),
    "ALiBi": lambda d: np.exp(-d / 256 * 8),
    "rising": lambda d: np.exp(d / 300),
    "bump": lambda d: 0.05 + np.exp(-(((d - 12) / 6) ** 2)),
}
"""f(d), one a head."""
_WORDS = [f"{kind}{i}" for kind in "xuk" for i in range(50)]
_HEAD, _BASE = 64, 10_000.0
_HIDDEN = 8


def hand_set(
    *,
    sink: float = 0.0,
    window: int | None = None,
    own_sink: float | None = None,
    planted: float = 1.0,
) -> Model:
    """One layer whose heads are :data:`SHAPES`.

    Args:
        sink: added to the first token's score.
        window: sliding window.
        own_sink: score of a sink of the model's own, as GPT-OSS has.
        planted: factor on the weight that words of K give to words of U.
    """
    kind = "gpt_oss" if own_sink is not None else "llama" if window is None else "mistral"
    config = CONFIG_MAPPING[kind](
        vocab_size=4 + len(_WORDS),
        hidden_size=_HIDDEN,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=len(SHAPES),
        num_key_value_heads=len(SHAPES),
        head_dim=_HEAD,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": _BASE},
        **({"sliding_window": window} if window else {}),
        **(
            {"layer_types": ["full_attention"], "num_local_experts": 2, "num_experts_per_tok": 2}
            if own_sink is not None
            else {}
        ),
    )
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    layer = hf.model.layers[0]
    with torch.no_grad():
        embedding = torch.zeros(4 + len(_WORDS), _HIDDEN)
        embedding[:, 0] = 1  # constant
        embedding[1, 1] = 1  # the first token
        names = ["", "", "", "", *_WORDS]
        embedding[[i for i, name in enumerate(names) if name.startswith("u")], 2] = 1
        embedding[[i for i, name in enumerate(names) if name.startswith("k")], 3] = 1
        embedding[:, 4] = (embedding[:, 1:4].sum(-1) == 0).float()  # so that every norm is the same
        hf.model.embed_tokens.weight.copy_(embedding)
        layer.input_layernorm.weight.fill_(2**0.5 / _HIDDEN**0.5)  # undoes the norm: the layer reads the embedding
        queries, keys = torch.zeros(len(SHAPES), _HEAD, _HIDDEN), torch.zeros(len(SHAPES), _HEAD, _HIDDEN)
        half = _HEAD // 2
        for head, shape in enumerate(SHAPES.values()):
            cosines, sines = _fitted(shape)
            queries[head, : half - 2, 0] = torch.as_tensor(cosines * _HEAD**0.5)
            queries[head, half:-2, 0] = torch.as_tensor(-sines * _HEAD**0.5)
            keys[head, : half - 2, 0] = 1
            queries[head, half - 1, 0], keys[head, half - 1, 1] = sink * _HEAD**0.5, 1
            queries[head, half - 2, 3], keys[head, half - 2, 2] = float(np.log(planted)) * _HEAD**0.5, 1
        attention = layer.self_attn
        for projection, weight in ((attention.q_proj, queries), (attention.k_proj, keys)):
            projection.weight.copy_(weight.flatten(0, 1))
            if projection.bias is not None:
                projection.bias.zero_()
        if own_sink is not None:
            attention.sinks.fill_(own_sink)
    return from_hf(hf, word_tokenizer(), spec="hand-set")


def made_trace(n_prompt: int, n_understanding: int, n_key: int, *, trace_id: str = "t", first: int = 0) -> Trace:
    """A trace of so many words, with its own spans; ``first`` is the number of the first word of each kind."""
    x, u, k = (
        " ".join(f"{kind}{(first + i) % 50}" for i in range(n))
        for kind, n in zip("xuk", (n_prompt, n_understanding, n_key), strict=True)
    )
    spans = {"understanding": CharSpan(0, len(u)), "key_sentence": CharSpan(len(u) + 1, len(u) + 1 + len(k))}
    return Trace(trace_id=trace_id, prompt=x, response=f"{u} {k}", given=spans)


@lru_cache
def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, with a first token of its own and a chat template that adds two words around the prompt."""
    vocabulary = {"<pad>": 0, "<s>": 1, "<unk>": 2, "said": 3} | {word: 4 + i for i, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    template = "{{ bos_token }} said said said {{ messages[-1].content }} said said said "
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", chat_template=template
    )


def _fitted(shape: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of cosines and sines, so that their sum is log f(d) but for a constant."""
    frequencies = _BASE ** (-np.arange(_HEAD // 2 - 2) / (_HEAD // 2))
    d = np.arange(REACH, dtype=float)
    waves = np.concatenate([np.cos(np.outer(d, frequencies)), np.sin(np.outer(d, frequencies))], axis=1)
    wanted = np.log(shape(d))
    ridge = 1e-3 * np.eye(waves.shape[1])
    coefficients = np.linalg.solve(waves.T @ waves + ridge, waves.T @ (wanted - wanted.mean()))
    cosines, sines = np.split(coefficients, 2)
    return cosines.astype(np.float32), sines.astype(np.float32)
