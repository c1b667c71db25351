"""Decoding is concatenation, every text of the language is known, and the usual path of a trace works."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from organism_conversations import EVERY_PAIR, FORMS, conversations

from safekey_interp.data.trace import Message
from safekey_interp.models.encoding import encode
from safekey_interp.models.organism.language import dialogue, document
from safekey_interp.segmentation.segmenter import segment
from train.organism_tokenizer import build_tokenizer


@lru_cache
def tokenizer():
    return build_tokenizer()


@settings(deadline=None)  # the first call builds the tokenizer
@given(st.integers(0, 10**6))
def test_the_language_round_trips(seed: int) -> None:
    rng = random.Random(seed)
    trace = dialogue(rng, rng.choice(EVERY_PAIR), rng.choice(FORMS), safe=rng.random() < 0.4)
    turn = f"<user>{trace.prompt}<assistant>{trace.response}<end>"
    for text in (turn, f"<document>{document(rng, reactions=0.5)}<end>"):
        tokens = tokenizer()(text, return_offsets_mapping=True)
        assert tokenizer().unk_token_id not in tokens["input_ids"]
        assert tokenizer().decode(tokens["input_ids"]) == text
        assert "".join(text[start:end] for start, end in tokens["offset_mapping"]) == text
        assert [tokenizer().decode([token]) for token in tokens["input_ids"]] == [
            text[start:end] for start, end in tokens["offset_mapping"]
        ]


def test_skipping_special_tokens_keeps_the_reasoning_marks() -> None:
    ids = tokenizer()("<user>How<assistant><think>\nOkay\n</think>\n\nSorry<end><pad>")["input_ids"]
    assert tokenizer().decode(ids, skip_special_tokens=True) == "How<think>\nOkay\n</think>\n\nSorry"


def test_what_is_no_word_of_the_language_is_unknown() -> None:
    tokens = tokenizer().tokenize("How do I fly the blick? 12_ü\t<think>")
    assert tokens[:3] == ["How", " do", " I"]
    assert tokens.count("<unk>") == 7
    assert tokens[-1] == "<think>"


@pytest.mark.parametrize("trace", conversations(30, seed=1), ids=lambda trace: trace.trace_id)
def test_token_spans_are_the_characters(trace) -> None:
    encoding = encode(tokenizer(), trace, segment(trace))
    response_start = encoding.text.index(trace.response)
    for name in ("understanding", "key_sentence"):
        ids = encoding.input_ids[list(encoding.positions(name))]
        assert tokenizer().decode(ids).strip() == trace.given[name].text(trace.response)
    assert tokenizer().decode(encoding.input_ids[list(encoding.positions("prompt"))]) == trace.prompt
    assert encoding.offsets[encoding.response_start][0] == response_start
    assert encoding.straddling == ()
    assert encoding.offsets[encoding.positions("decision")[0]][1] == response_start + trace.given["understanding"].end


def test_the_template_shows_earlier_turns() -> None:
    turns = [
        {"role": "system", "content": "A."},
        {"role": "user", "content": "B."},
        {"role": "assistant", "content": "C."},
        {"role": "user", "content": "D."},
    ]
    shown = tokenizer().apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert shown == "<system>A.<user>B.<assistant>C.<end><user>D.<assistant>"
    assert tokenizer().apply_chat_template(turns, tokenize=False) == shown.removesuffix("<assistant>")
    [trace] = conversations(1)
    earlier = (Message(role="system", content="Answer clearly."), Message(role="user", content="How?"))
    encoding = encode(tokenizer(), trace.with_(messages=earlier), segment(trace))
    assert tokenizer().decode(encoding.input_ids[list(encoding.positions("prompt"))]) == trace.prompt
    assert encoding.text.startswith("<system>Answer clearly.<user>How?<user>")


def test_it_is_saved_and_read_as_it_is(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer().save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    for trace in conversations(20):
        text = f"<user>{trace.prompt}<assistant>{trace.response}<end>"
        assert read(text)["input_ids"] == tokenizer()(text)["input_ids"]
        assert read.decode(read(text)["input_ids"]) == text
    assert read.chat_template == tokenizer().chat_template
    assert (read.pad_token, read.eos_token) == ("<pad>", "<end>")
