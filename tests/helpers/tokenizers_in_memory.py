"""Tokenizers of every kind that models use, trained in memory, and chat templates of the common styles."""

from __future__ import annotations

import json
from functools import lru_cache

from tiny_models import CORPUS, TEMPLATE, byte_level_tokenizer
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
# Llama-3's and GPT-4's split: punctuation sticks to the word that follows, so that ">Okay" may be one token.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TAGGED = [f"<think>{line}</think>" for line in CORPUS]


def _wrapped(tokenizer: Tokenizer, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL[4:],
        chat_template=template,
    )


def _with_bos(tokenizer: Tokenizer, *, eos: bool = False) -> Tokenizer:
    ids = [("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
    single = "<s> $A </s>" if eos else "<s> $A"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return tokenizer


@lru_cache
def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2's kind."""
    return byte_level_tokenizer()


@lru_cache
def byte_level_trimmed() -> PreTrainedTokenizerFast:
    """The same with a post-processor that trims the space out of the offsets, as GPT-2's own file has."""
    tokenizer = Tokenizer.from_str(byte_level_tokenizer().backend_tokenizer.to_str())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    wrapped = byte_level_tokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=wrapped.chat_template,
    )


@lru_cache
def tiktoken_style() -> PreTrainedTokenizerFast:
    """Byte-level after Llama-3's split, with a BOS that the tokenizer adds by itself; holds ``>Okay`` as one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TAGGED * 20, trainer)
    return _wrapped(_with_bos(tokenizer))


@lru_cache
def whitespace_bpe() -> PreTrainedTokenizerFast:
    """Plain BPE after a split at white space, with unknown tokens: white space has no token at all."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    )
    return _wrapped(_with_bos(tokenizer, eos=True))


@lru_cache
def word_piece() -> PreTrainedTokenizerFast:
    """WordPiece that lower-cases and strips accents."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    )
    return _wrapped(_with_bos(tokenizer, eos=True))


@lru_cache
def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's unigram model with Metaspace and NFKC."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=250, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
    )
    return _wrapped(_with_bos(tokenizer))


@lru_cache
def llama_style() -> PreTrainedTokenizerFast:
    """Llama-2's: BPE over ``▁`` with a dummy prefix by the normalizer and bytes for what it does not know."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=[*SPECIAL, *bytes_], show_progress=False)
    )
    # Bytes are ordinary pieces of the vocabulary, special tokens alone are added.
    text = trained.to_str()
    vocab, merges = trained.get_vocab(), json.loads(text)["model"]["merges"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[tuple(merge) for merge in merges],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return _wrapped(_with_bos(tokenizer))


TOKENIZERS = {
    "byte level": byte_level,
    "byte level, trimmed": byte_level_trimmed,
    "tiktoken": tiktoken_style,
    "whitespace": whitespace_bpe,
    "word piece": word_piece,
    "unigram": unigram,
    "llama": llama_style,
}

THINKING = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
"""Opens the reasoning in the generation prompt, as R1's and Qwen3-Thinking's do."""
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}"
    "{% if m.role == 'user' %}<|User|>{{ m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
"""Deletes everything before ``</think>`` from assistant turns."""
UNTRIMMED = TEMPLATE.replace(" | trim", "")
BARE = "{% for m in messages %}{{ m.content }}{% endfor %}"
"""No BOS and no words of its own: the prompt begins at the first token."""
SYSTEM_FIRST = TEMPLATE.replace(
    "{{ bos_token }}",
    "{{ bos_token }}{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}",
)
"""Writes a system turn of its own, as Qwen2's does."""
TEMPLATES = {
    "trimmed": TEMPLATE,
    "untrimmed": UNTRIMMED,
    "thinking": THINKING,
    "r1": R1,
    "bare": BARE,
    "system first": SYSTEM_FIRST,
    "none": None,
}


def with_template(tokenizer: PreTrainedTokenizerFast, template: str | None) -> PreTrainedTokenizerFast:
    """The same tokenizer under another chat template."""
    other = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token=tokenizer.unk_token,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    other.chat_template = template
    return other
