"""Random model of a given size with its own tokenizer, for benchmarks without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def trained_tokenizer(texts: Sequence[str], *, n_words: int) -> Any:
    """A byte-level tokenizer with a chat template, of at most so many tokens, trained on the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_words,
        special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", chat_template=_TEMPLATE)


def small_model(folder: Path, texts: Sequence[str], *, n_words: int, **sizes: Any) -> Path:
    """A Llama with random weights, saved in a folder.

    Args:
        folder: where it is saved.
        texts: what its tokenizer is trained on.
        n_words: most tokens of the tokenizer.
        **sizes: of ``LlamaConfig``; ``vocab_size`` is the tokenizer's unless it is among them.

    Returns:
        The folder.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = trained_tokenizer(texts, n_words=n_words)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    options: dict[str, Any] = {"vocab_size": len(fast), "pad_token_id": 0} | sizes
    config = LlamaConfig(**options)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
