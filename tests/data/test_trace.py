"""Laws of the records: spans are half-open and of one unit, traces are plain text and cannot be changed."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekey_interp.data.trace import CharSpan, Message, TokenSpan, Trace, count_surrogates, replace_surrogates

TEXTS = st.text(st.characters())  # lone surrogates too


def make(**fields: object) -> Trace:
    return Trace(**({"trace_id": "1", "prompt": "p", "response": "r"} | fields))  # type: ignore[arg-type]


@given(st.text(), st.integers(0, 20), st.integers(0, 20))
def test_spans_are_half_open(text, start, length):
    span = CharSpan(start, start + length)
    assert len(span) == length
    assert span.text(text) == text[start : start + length]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2)])
def test_impossible_spans_are_refused(start, end):
    with pytest.raises(ValueError, match="expected 0 <= start <= end"):
        TokenSpan(start, end)


def test_units_do_not_mix():
    assert CharSpan(0, 1) != TokenSpan(0, 1)
    with pytest.raises(TypeError):
        assert CharSpan(0, 1) < TokenSpan(0, 2)  # type: ignore[operator]


@given(TEXTS)
def test_surrogates_are_replaced_one_for_one(text):
    mended = replace_surrogates(text)
    assert len(mended) == len(text)
    assert mended.encode().decode() == mended
    assert count_surrogates(mended) == 0
    assert count_surrogates(text) == sum("\ud800" <= character <= "\udfff" for character in text)
    assert all(new in (old, "\ufffd") for new, old in zip(mended, text, strict=True))


@given(TEXTS)
def test_no_text_of_a_trace_holds_a_surrogate(text):
    trace = make(
        trace_id=text,
        prompt=text,
        response=text,
        source=text,
        group=text,
        messages=[Message(role="user", content=text)],
        meta={"a": [{text: (text, 1)}], "b": text},
    )
    texts = [trace.trace_id, trace.prompt, trace.response, trace.source, trace.group, trace.messages[0].content]
    texts += [trace.meta["b"], *trace.meta["a"][0], trace.meta["a"][0][replace_surrogates(text)][0]]
    for inner in texts:
        inner.encode()


def test_defaults():
    trace = make()
    assert (trace.label, trace.source, trace.group, trace.messages) == (None, None, "p", ())
    assert make(group="g").group == "g"


@pytest.mark.parametrize("field", ["trace_id", "prompt", "response", "label", "source", "group"])
def test_wrong_types_are_refused(field):
    with pytest.raises(TypeError, match=rf"Trace\.{field}: got int, expected str"):
        make(**{field: 5})
    with pytest.raises(TypeError, match=r"Message\.content"):
        Message(role="user", content=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a word, or None"):
        make(label=" ")


def test_traces_do_not_change_and_do_not_share_what_they_were_made_from():
    meta = {"a": 1}
    trace = make(meta=meta, given={"understanding": CharSpan(0, 1)})
    meta["a"] = 2
    assert trace.meta["a"] == 1
    with pytest.raises(TypeError):
        trace.meta["a"] = 3  # type: ignore[index]
    with pytest.raises(AttributeError):
        trace.prompt = "x"  # type: ignore[misc]
    assert trace.with_(prompt="x").prompt == "x"
    assert trace.with_(prompt="x").given == trace.given


def test_traces_copy_travel_to_processes_and_hash():
    trace = make(meta={"a": [1]}, given={"key_sentence": CharSpan(0, 1)}, messages=[Message(role="user", content="m")])
    assert copy.deepcopy(trace) == trace
    assert pickle.loads(pickle.dumps(trace)) == trace
    assert len({trace, copy.deepcopy(trace)}) == 1


def test_html_stays_text():
    assert "<script>" not in make(prompt="<script>alert(1)</script>")._repr_html_()
