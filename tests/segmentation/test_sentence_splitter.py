"""Laws of the sentences of an opening: where they begin and end, and that bounds hold."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekey_interp.segmentation.sentence_splitter import sentences


def split(text, **options):
    return [span.text(text) for span in sentences(text, 0, len(text), **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two!  Three?", ["One.", "Two!", "Three?"]),
        ('They ask, "Why? Tell me now." Hmm, that is odd.', ['They ask, "Why? Tell me now."', "Hmm, that is odd."]),
        ("They ask, “Why? Tell me.” Hmm, that is odd.", ["They ask, “Why? Tell me.”", "Hmm, that is odd."]),
        ('"Never closed. It goes on.', ['"Never closed.', "It goes on."]),
        ("In the U.S. elections are held. I know.", ["In the U.S. elections are held.", "I know."]),
        ("It lies in the U.S. I need to think.", ["It lies in the U.S.", "I need to think."]),
        ("They ask for the accounts of CEO X. Hmm, no.", ["They ask for the accounts of CEO X.", "Hmm, no."]),
        ("Let n = m for some m. Multiplying helps.", ["Let n = m for some m.", "Multiplying helps."]),
        ("They want a trick out of me. Napalm burns.", ["They want a trick out of me.", "Napalm burns."]),
        ("I know that I can't. Providing it is wrong.", ["I know that I can't.", "Providing it is wrong."]),
        ("内存不够用。pandas 有一个参数。", ["内存不够用。", "pandas 有一个参数。"]),
        ("A. First, look at plan B. So it goes.", ["A. First, look at plan B.", "So it goes."]),
        ("The user likes Samuel L. Jackson. I know him.", ["The user likes Samuel L. Jackson.", "I know him."]),
        ("They sell guns, knives, etc. Hmm, no.", ["They sell guns, knives, etc.", "Hmm, no."]),
        ("Tools, e.g. They said e.g. this one. Then go.", ["Tools, e.g. They said e.g. this one.", "Then go."]),
        ("A book by J.D. Salinger is asked for. I know it.", ["A book by J.D. Salinger is asked for.", "I know it."]),
        ("Dr. No asks Mr. Bond. They met.", ["Dr. No asks Mr. Bond.", "They met."]),
        ("Version 2.5 costs 3.50 dollars. Fine.", ["Version 2.5 costs 3.50 dollars.", "Fine."]),
        ("classified data... that is secret. I know.", ["classified data... that is secret.", "I know."]),
        ("**Bold.** Then _more._ End.", ["**Bold.**", "Then _more._", "End."]),
        ("第一句。第二句！第三句", ["第一句。", "第二句！", "第三句"]),
    ],
)
def test_prose(text, expected):
    assert split(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The user asks for a gun\nThat is bad\n", ["The user asks for a gun", "That is bad"]),
        (
            "The user is asking about\nNew York and its\nlights. I know.",
            ["The user is asking about\nNew York and its\nlights.", "I know."],
        ),
        ("One\r\n\r\nTwo.\r\nThree\rFour", ["One", "Two.", "Three", "Four"]),
        ("Steps:\n1. Find it.\n2. Take it\n- run", ["Steps:", "1. Find it.", "2. Take it", "- run"]),
        (
            "Run:\n```python\nx = 1. Then.\n\ny = 2\n```\nDone.",
            ["Run:", "```python\nx = 1. Then.\n\ny = 2\n```", "Done."],
        ),
        ("One.\n\n---\n\n* * *\n\nTwo.", ["One.", "Two."]),
    ],
)
def test_lines_lists_and_code(text, expected):
    assert split(text) == expected


def test_a_sentence_that_the_window_cuts_is_left_out():
    text = "One is short. " + "Two is long " * 100
    assert split(text, limit=50) == ["One is short."]
    assert split("word " * 1_000, limit=50) == []


@given(st.text(max_size=400), st.integers(0, 50), st.integers(0, 450), st.integers(1, 500))
def test_spans_are_ordered_disjoint_trimmed_and_inside(text, start, end, limit):
    start = min(start, len(text))
    last = start
    for span in sentences(text, start, max(start, end), limit):
        assert last <= span.start < span.end <= min(len(text), max(start, end), start + limit)
        assert span.text(text) == span.text(text).strip()
        last = span.end


@pytest.mark.parametrize("unit", ["a", "a ", '"a. ', "\n", ". ", "- a\n", "(", "```\n", "J. ", "the user is "])
def test_a_megabyte_is_not_slow(unit):
    text = unit * (1_000_000 // len(unit))
    begin = time.process_time()
    sentences(text, 0, len(text))
    assert time.process_time() - begin < 5, "seconds of one processor; a square of the length would take minutes"
