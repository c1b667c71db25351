"""Word-level tokenizer of the toy language, whose decoding is plain concatenation.

A token is a word or a mark with the space before it (``" blick"``, ``"The"``, ``"."``), or a line break; so offsets are
exact, and the decoded tokens put together are the text again. ``<think>`` and ``</think>`` are tokens that decoding
keeps; the marks of turns are special. The response opens its reasoning itself: the generation prompt does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from safekey_interp.models.organism.language import LANGUAGE, Language, covering_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, SYSTEM, USER, ASSISTANT, END, DOCUMENT = (
    "<pad>", "<unk>", "<system>", "<user>", "<assistant>", "<end>", "<document>",
)  # fmt: skip
THINK, END_OF_THOUGHT = "<think>", "</think>"
_SPECIAL = (PAD, UNKNOWN, SYSTEM, USER, ASSISTANT, END, DOCUMENT)
# The same in Python and in the tokenizer's own regular expressions.
_PIECE = r" ?[^\W\d_]+|\n\n|\n| ?[^\w\s]|\s|\w"
_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Every token: the marks, then the pieces of ``texts`` in the alphabet's order."""
    marks = (*_SPECIAL, THINK, END_OF_THOUGHT)
    bare = (re.sub("<[^>]*>", "", text) for text in texts)
    return [*marks, *sorted({piece for text in bare for piece in re.findall(_PIECE, text)})]


def build_tokenizer(language: Language = LANGUAGE) -> PreTrainedTokenizerFast:
    """A language's tokenizer, chat template included."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(vocabulary(covering_texts(language)))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in _SPECIAL])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in (THINK, END_OF_THOUGHT)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT, DOCUMENT],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )
