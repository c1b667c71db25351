"""The law of encoding: straddling tokens aside, a span's tokens spell the sentence and no other word."""

from __future__ import annotations

import time

import pytest
import reference_forward
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_models import byte_level_tokenizer, tiny_model, traces
from tokenizers_in_memory import TEMPLATES, TOKENIZERS, tiktoken_style, with_template

from safekey_interp.data.trace import CharSpan, Message, TokenSpan, Trace
from safekey_interp.errors import InputError, ModelError, TraceError, TraceTooLong
from safekey_interp.models.chat_template import render
from safekey_interp.models.encoding import SPANS, Encoding, TokenSet, check_length, encode

PIECES = [
    "Okay, so the user is asking how to pick a lock.",
    "Hmm, that could hurt people!",
    "First",
    "<think>",
    "</think>",
    "<|im_end|>",
    "<|im_start|>user",
    "<s>",
    "</s>",
    "assistant",
    "user",
    "\n\n",
    "  ",
    "\t",
    "\r\n",
    "\u00a0",
    "\u3000",
    "😀",
    "👩‍👩‍👧",
    "e\u0301",
    "ﬁ",
    "مرحبا",
    "日本語。",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "\ufeff",
    "\u200b",
    ">Okay",
    ".",
    "▁",
    "",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Trace, CharSpan | None, CharSpan | None]:
    """A trace with U and K anywhere in its response, K after U."""
    prompt, response = draw(texts), draw(texts)
    messages = draw(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), max_size=2))
    trace = Trace(
        trace_id="t",
        prompt=prompt,
        response=response,
        messages=tuple(Message(role=role, content=content) for role, content in messages),
    )
    cuts = sorted(draw(st.lists(st.integers(0, len(response)), min_size=4, max_size=4)))
    understanding, key = CharSpan(cuts[0], cuts[1]), CharSpan(cuts[2], cuts[3])
    return trace, draw(st.sampled_from([understanding, None])), draw(st.sampled_from([key, None]))


def words_of(text: str, chars: range) -> set[int]:
    return {i for i in chars if not text[i].isspace()}


def assert_spelled(encoding: Encoding, name: str, span: CharSpan) -> None:
    """The law, by characters: of the span's tokens, of the straddling ones, and of no token at all."""
    text, offsets = encoding.text, encoding.offsets
    tokens = set(encoding.positions(name))
    straddling = set(encoding.straddling)

    def characters(positions: set[int]) -> set[int]:
        return {i for position in positions for i in range(*offsets[position])}

    sentence = words_of(text, range(span.start, span.end))
    own = {i for i in characters(tokens - straddling) if not text[i].isspace()}
    assert own <= sentence, f"{name} spells another word"
    tokenised = characters(set(range(len(offsets))))
    assert sentence & tokenised <= characters(tokens | straddling), f"{name} misses a word"


def check(encoding: Encoding, trace: Trace, understanding: CharSpan | None, key: CharSpan | None) -> None:
    n, shift = len(encoding.offsets), len(encoding.text) - len(trace.response)
    assert encoding.text.endswith(trace.response), "the response as it was generated"
    assert len(encoding.input_ids) == n
    assert list(encoding.spans) == list(SPANS)
    assert 0 <= encoding.response_start <= n
    assert 0 < encoding.end <= n
    for name, chars in (("understanding", understanding), ("key_sentence", key)):
        if chars is None:
            assert encoding.spans[name] is None
        else:
            assert_spelled(encoding, name, CharSpan(chars.start + shift, chars.end + shift))
    for name in SPANS:
        positions = list(encoding.positions(name))
        assert positions == sorted(set(positions))
        assert all(0 <= position < n for position in positions)
        assert (encoding.spans[name] is None) == (not positions), "an absent span is None, never empty"
    owned = [set(encoding.positions(name)) for name in ("prompt", "template", "understanding", "key_sentence")]
    assert sum(map(len, owned)) == len(set().union(*owned)), "a token belongs to one span"
    before = owned[0] | owned[1]
    assert all(position < encoding.response_start for position in before)
    assert all(position >= encoding.response_start for position in owned[2] | owned[3])
    assert before | {0} >= set(range(encoding.response_start)), "all before the response is prompt, template or first"
    decision = encoding.spans["decision"]
    if owned[3] and min(owned[3]) > 0:
        assert decision == TokenSpan(min(owned[3]) - 1, min(owned[3]))
    else:
        assert decision is None


def encode_checked(
    kind: str, style: str, trace: Trace, understanding: CharSpan | None, key: CharSpan | None
) -> Encoding | None:
    tokenizer = with_template(TOKENIZERS[kind](), TEMPLATES[style])
    segmentation = reference_forward.by_hand(trace, understanding, key)
    try:
        encoding = encode(tokenizer, trace, segmentation)
    except TraceError:  # the one documented way out
        return None
    check(encoding, trace, understanding, key)
    prompt = render(tokenizer, trace).prompt
    assert encoding.text[prompt.start : prompt.end].strip() == trace.prompt.strip()
    assert_spelled(encoding, "prompt", prompt)
    return encoding


LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(LAW, max_examples=45)
@given(case=cases(), style=st.sampled_from(list(TEMPLATES)))
@example(case=(Trace(trace_id="t", prompt="", response=""), None, None), style="bare")
@example(case=(Trace(trace_id="t", prompt="", response="a b"), CharSpan(0, 0), CharSpan(0, 3)), style="bare")
@example(case=(Trace(trace_id="t", prompt="user", response="x"), None, CharSpan(0, 1)), style="trimmed")
def test_the_law(kind: str, case: tuple[Trace, CharSpan | None, CharSpan | None], style: str) -> None:
    encode_checked(kind, style, *case)


@pytest.mark.slow
@settings(LAW, max_examples=10_000)
@given(case=cases(), kind=st.sampled_from(list(TOKENIZERS)), style=st.sampled_from(list(TEMPLATES)))
def test_the_law_ten_thousand_times(
    kind: str, case: tuple[Trace, CharSpan | None, CharSpan | None], style: str
) -> None:
    encode_checked(kind, style, *case)


@pytest.mark.parametrize("style", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_traces_at_hand(kind: str, style: str) -> None:
    for trace in traces():
        found = reference_forward.segmentation(trace)
        renamed = trace.with_(trace_id="t")
        encoding = encode_checked(kind, style, renamed, found.understanding, found.key_sentence)
        assert encoding is not None
        assert encoding.spans["first_token"] == TokenSpan(0, 1)
        for name in ("prompt", "understanding", "key_sentence", "decision"):
            assert encoding.spans[name] is not None


def test_spans_by_hand() -> None:
    trace = Trace(trace_id="t", prompt=" pick a lock ", response="<think>\nOkay, the user. Hmm, no.\n</think>")
    encoding = encode(
        byte_level_tokenizer(), trace, reference_forward.segmentation(trace, "Okay, the user.", "Hmm, no.")
    )
    pieces = {
        name: "".join(encoding.text[slice(*encoding.offsets[p])] for p in encoding.positions(name)) for name in SPANS
    }
    assert pieces == {
        "prompt": "pick a lock",
        "template": "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n",
        "first_token": "<s>",
        "understanding": "Okay, the user.",
        "key_sentence": " Hmm, no.",
        "decision": ".",
    }
    assert encoding.straddling == ()
    assert list(encoding.positions("context")) == list(range(encoding.spans["understanding"].end))
    both = [*encoding.positions("prompt"), *encoding.positions("understanding")]
    assert list(encoding.positions("prompt+understanding")) == both
    assert list(encoding.positions("prompt_end")) == [both[len(encoding.positions("prompt")) - 1]]
    assert encoding.end == encoding.spans["key_sentence"].end
    assert list(encoding.positions("warning")) == []
    with pytest.raises(InputError, match="got the end"):
        encoding.positions("last(")


def test_a_straddling_token_is_listed_and_belongs_to_its_first_word() -> None:
    """Llama-3's ``>Okay``: the law's one exception, which the report counts."""
    tokenizer = tiktoken_style()
    trace = Trace(trace_id="t", prompt="Hi", response="<think>Okay, so. Hmm. I")
    encoding = encode(tokenizer, trace, reference_forward.segmentation(trace, "Okay, so.", "Hmm."))
    pieces = [encoding.text[slice(*offset)] for offset in encoding.offsets]
    assert ">Okay" in pieces, "the tokenizer has the token"
    assert encoding.straddling == (pieces.index(">Okay"),)
    assert encoding.spans["understanding"].start == pieces.index(">Okay") + 1


def test_white_space_between_two_spans_belongs_to_neither() -> None:
    trace = Trace(trace_id="t", prompt="Hi", response="Okay.\n\n\n\nHmm.")
    encoding = encode(byte_level_tokenizer(), trace, reference_forward.segmentation(trace, "Okay.\n\n", "\n\nHmm."))
    u, k = encoding.spans["understanding"], encoding.spans["key_sentence"]
    assert u.end < k.start
    assert encoding.text[encoding.offsets[u.end - 1][0] : encoding.offsets[u.end - 1][1]] == "."
    assert encoding.text[encoding.offsets[k.start][0]] == "H"


def test_bos_is_never_doubled() -> None:
    """The reference rendered the prompt and then tokenised it with another BOS."""
    for kind in TOKENIZERS:
        for style, template in TEMPLATES.items():
            tokenizer = with_template(TOKENIZERS[kind](), template)
            trace = Trace(trace_id="t", prompt="How?", response="Okay. Hmm.")
            ids = encode(tokenizer, trace, reference_forward.segmentation(trace, "Okay.", "Hmm.")).input_ids.tolist()
            wanted = {"bare": 0, "none": int(tokenizer("x").input_ids[0] == tokenizer.bos_token_id)}.get(style, 1)
            assert ids.count(tokenizer.bos_token_id) == wanted, (kind, style)
            assert ids[0] == tokenizer.bos_token_id or not wanted


def test_an_end_of_sequence_that_the_tokenizer_adds_was_not_there() -> None:
    tokenizer = with_template(TOKENIZERS["whitespace"](), None)
    assert tokenizer("x").input_ids[-1] == tokenizer.eos_token_id, "it does add one"
    for response in ("", "Okay."):
        trace = Trace(trace_id="t", prompt="How?", response=response)
        segmentation = (
            reference_forward.segmentation(trace, None, "Okay.") if response else reference_forward.segmentation(trace)
        )
        assert tokenizer.eos_token_id not in encode(tokenizer, trace, segmentation).input_ids


def test_a_prompt_alone_is_measured_up_to_the_generation_prompt() -> None:
    trace = Trace(trace_id="t", prompt="How do I?", response="")
    encoding = encode(byte_level_tokenizer(), trace, reference_forward.segmentation(trace))
    assert encoding.end == encoding.response_start == len(encoding.input_ids)
    assert encoding.text.endswith("<|im_start|>assistant\n")
    assert [name for name in SPANS if encoding.spans[name] is None] == ["understanding", "key_sentence", "decision"]


def test_too_long_is_refused_and_never_clipped() -> None:
    trace = traces(1)[0]
    tokenizer, found = byte_level_tokenizer(), reference_forward.segmentation(trace)
    encoding = encode(tokenizer, trace, found)
    end = encoding.end
    check_length(encoding, max_length=end)
    check_length(encoding, max_positions=end)
    with pytest.raises(
        TraceTooLong, match=rf"^trace t0: key sentence ends at token {end}, past {end - 1} tokens; raise --max-length$"
    ):
        check_length(encoding, max_length=end - 1)
    with pytest.raises(TraceTooLong, match="the model reads no further"):
        check_length(encoding, max_positions=end - 1)


def test_the_models_own_limit_counts() -> None:
    model = tiny_model("llama")
    trace = traces(1)[0].with_(prompt="How do I open a door? " * 200)
    with pytest.raises(TraceTooLong, match="past 512 tokens; the model reads no further"):
        model.encode(trace, reference_forward.segmentation(trace))
    with pytest.raises(TraceTooLong, match="past 100 tokens; raise --max-length"):
        model.encode(trace, reference_forward.segmentation(trace), max_length=100)
    response = trace.response + " And so on." * 2_000
    longer = traces(1)[0].with_(response=response)
    assert model.encode(longer, reference_forward.segmentation(longer)).end < 512, "what comes after K does not count"


def test_nothing_to_measure_is_an_error() -> None:
    tokenizer = with_template(byte_level_tokenizer(), TEMPLATES["bare"])
    trace = Trace(trace_id="t", prompt="", response="")
    with pytest.raises(TraceError, match="no token to measure"):
        encode(tokenizer, trace, reference_forward.segmentation(trace))


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        chat_template = None
        is_fast = False

    trace = Trace(trace_id="t", prompt="a", response="")
    with pytest.raises(ModelError, match=r"reports no character offsets.*expected"):
        encode(Slow(), trace, reference_forward.segmentation(trace))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_time_is_linear_in_the_length(kind: str) -> None:
    """A megabyte of words, of no spaces at all, of emoji: seconds, not minutes."""
    tokenizer = TOKENIZERS[kind]()
    for filler in ("the user ", "ab", "😀 "):
        seconds = []
        for size in (50_000, 200_000):
            trace = Trace(trace_id="t", prompt="How?", response="Okay. Hmm. " + filler * (size // len(filler)))
            begin = time.process_time()
            encode(tokenizer, trace, reference_forward.segmentation(trace, "Okay.", "Hmm."))
            seconds.append(time.process_time() - begin)
        assert seconds[1] < 12 * seconds[0] + 0.3, (filler, seconds)


def test_encodings_show_themselves_escaped() -> None:
    trace = Trace(trace_id="t", prompt="<script>alert(1)</script>", response="Okay. Hmm.")
    encoding = encode(byte_level_tokenizer(), trace, reference_forward.segmentation(trace, "Okay.", "Hmm."))
    shown = encoding._repr_html_()
    assert "<script>" not in shown
    assert "key_sentence" in shown


def test_token_sets_count_their_pieces() -> None:
    pieces = TokenSet((TokenSpan(1, 3), TokenSpan(7, 8)))
    assert pieces.positions == [1, 2, 7]
    assert len(pieces) == 3


def test_ids_are_those_of_the_whole_text() -> None:
    for kind in TOKENIZERS:
        tokenizer = TOKENIZERS[kind]()
        trace = traces(1)[0]
        encoding = encode(tokenizer, trace, reference_forward.segmentation(trace))
        assert torch.equal(
            encoding.input_ids, torch.tensor(tokenizer(encoding.text, add_special_tokens=False).input_ids)
        )
