"""Laws of segmentation as its users see it: records, registry, streams; nothing in a response makes it fail."""

import io
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

import safekey_interp as ski
from safekey_interp.data.reasoning_marks import FAMILIES
from safekey_interp.data.trace import CharSpan
from safekey_interp.errors import InputError
from safekey_interp.segmentation.segmenter import finder_names

MARKS = [mark for family in FAMILIES for mark in (family.opening, family.closing, family.answer) if mark]
RESPONSE = "<think>\nThe user wants a bomb. That is <b>dangerous</b>. No.</think>No."


def trace(response=RESPONSE, **fields):
    return ski.Trace(**{"trace_id": "t", "prompt": "How do I build a bomb?", "response": response} | fields)


pieces = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(codec=None), max_size=10),
    st.text(st.sampled_from("\x00\x07\x1b\x1c\x85\u2028\ud800\udfff\r\n\t .\"“”'`*-:?!…。"), max_size=20),
    st.sampled_from(MARKS),
    st.sampled_from(
        [
            "The user is asking for ",
            "they want ",
            "I need to ",
            "Hmm. ",
            "First, ",
            "which is illegal",
            "e.g. ",
            "U.S. ",
            "```\n",
            "1. ",
        ]
    ),
)


@st.composite
def responses(draw):
    text = "".join(draw(st.lists(pieces, max_size=20)))
    if draw(st.integers(0, 30)) == 0:
        unit = draw(pieces) or "x"
        text += unit * (1_000_000 // len(unit))
    return text


def check_laws(response, prompt):
    segmentation = ski.segment(trace(response, prompt=prompt))
    text = segmentation.response
    u, k, reasoning = segmentation.understanding, segmentation.key_sentence, segmentation.reasoning
    assert 0 <= reasoning.start <= reasoning.end <= len(text)
    for span in (u, k):
        if span is not None:
            assert reasoning.start <= span.start < span.end <= reasoning.end
            assert span.text(text) == span.text(text).strip()
    if u is not None and k is not None:
        assert u.end <= k.start
    assert (segmentation.aha is None) == (k is None)
    assert (segmentation.hint is None) == (u is None)
    assert 0 <= segmentation.confidence <= 1
    assert segmentation.reason


@given(responses(), st.text(max_size=60))
@example("E\t\u2028. Then", "").via("sentencex panics on it")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_response_makes_it_fail(response, prompt):
    check_laws(response, prompt)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@given(responses(), st.text(max_size=60))
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_ten_thousand_responses_do_not_make_it_fail(response, prompt):
    check_laws(response, prompt)


def test_segment_all_is_a_stream_in_order():
    drawn = []

    def source():
        for index in range(1_000):
            drawn.append(index)
            yield trace(trace_id=str(index))

    stream = ski.segment_all(source())
    assert [next(stream).trace_id for _ in range(3)] == ["0", "1", "2"]
    assert len(drawn) < 10


def test_an_unknown_finder_is_refused_before_a_trace_is_read():
    with pytest.raises(InputError, match="finder: got 'nobody', expected one of rules, given, llm"):
        ski.segment_all(iter(()), finder="nobody")


def test_delimiters_reach_the_finder():
    segmentation = ski.segment(trace("<a>The user wants a bomb. No way.</a>"), delimiters=("<a>", "</a>"))
    assert (segmentation.family, segmentation.key_sentence_text) == ("given", "No way.")
    with pytest.raises(InputError, match="delimiters"):
        ski.segment_all(iter(()), delimiters=("<a>", ""))


def test_a_registered_finder_is_found_by_name_and_may_be_an_object():
    class Whole:
        name = "whole"

        def __init__(self, delimiters=None):
            self.delimiters = delimiters

        def find(self, traces):
            for one in traces:
                span = CharSpan(0, len(one.response))
                yield ski.Segmentation(
                    trace_id=one.trace_id,
                    response=one.response,
                    reasoning=span,
                    region="answer",
                    family="none",
                    understanding=None,
                    key_sentence=span,
                    aha="neutral",
                    hint=None,
                    confidence=1.0,
                    reason="all of it",
                    finder=self.name,
                )

    ski.register_finder("whole", Whole)
    assert "whole" in finder_names()
    for finder in ("whole", Whole()):
        assert ski.segment(trace(), finder=finder).key_sentence_text == RESPONSE
    with pytest.raises(InputError, match="register_finder"):
        ski.register_finder("", Whole)


def test_given_spans_are_taken_at_their_word():
    u, k = CharSpan(8, 31), CharSpan(31, 57)
    segmentation = ski.segment(trace(given={"understanding": u, "key_sentence": k}), finder="given")
    assert segmentation.understanding_text == "The user wants a bomb."
    assert segmentation.key_sentence_text == "That is <b>dangerous</b>."
    assert (segmentation.aha, segmentation.hint, segmentation.confidence, segmentation.finder) == (
        "safe",
        True,
        1.0,
        "given",
    )


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ({}, "gives no key sentence"),
        ({"key_sentence": CharSpan(0, 10_000)}, "outside the response"),
        ({"key_sentence": CharSpan(5, 5)}, "empty"),
        ({"understanding": CharSpan(8, 40), "key_sentence": CharSpan(20, 50)}, "does not end before"),
    ],
)
def test_given_spans_that_cannot_be_used_leave_no_key_sentence(spans, reason):
    segmentation = ski.segment(trace(given=spans), finder="given")
    assert segmentation.key_sentence is None
    assert reason in segmentation.reason


def test_the_record_shows_itself_escaped_in_a_notebook():
    shown = ski.segment(trace())._repr_html_()
    assert "&lt;b&gt;dangerous" in shown
    assert "<b>dangerous" not in shown
    assert 'title="understanding"' in shown
    assert 'title="key_sentence"' in shown


def test_the_record_shows_itself_coloured_in_a_terminal():
    segmentation = ski.segment(trace("<think>The user wants\x1b[31m a [bold]bomb[/bold]. That is bad.</think>"))
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=200, color_system="standard").print(segmentation)
    assert "\x1b[" in out.getvalue()
    assert "\x1b[31m a" not in out.getvalue()
    assert "[bold]bomb[/bold]" in segmentation.to_rich().plain
    assert any(span.style == "bold yellow" for span in segmentation.to_rich().spans)


def test_a_trace_without_key_sentence_shows_why():
    segmentation = ski.segment(trace("<think>The user wants a bomb.</think>"))
    assert "no sentence after the understanding" in segmentation._repr_html_()
    assert "no sentence after the understanding" in segmentation.to_rich().plain


def test_finding_loads_no_heavy_library():
    code = (
        "import sys, safekey_interp as ski; ski.segment(ski.Trace(trace_id='t', prompt='p', response='I can. No.')); "
        "print([m for m in ('torch', 'pandas', 'sklearn', 'scipy', 'rich', 'openai') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("wrong", [{"prompt": "How?"}, None, 3])
def test_what_is_no_trace_is_refused_in_one_line(wrong):
    for call in (
        lambda: ski.segment(wrong),
        lambda: list(ski.segment_all(wrong)),
        lambda: list(ski.segment_all([wrong])),
    ):
        with pytest.raises(InputError, match=r"^traces?: got a value of type \w+, expected ") as refused:
            call()
        assert "\n" not in str(refused.value)
