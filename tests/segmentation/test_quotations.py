"""Where quotations lie in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekey_interp.segmentation.quotations import locate


@given(
    st.lists(st.sampled_from(["a", "bc", "3.5", "“x”", "it’s", "…", "—", "\u200b", "你好。"]), max_size=30), st.data()
)
def test_a_quotation_is_found_where_it_was_taken(words, data):
    gaps = data.draw(
        st.lists(st.sampled_from([" ", "\n", "\r\n", "\t ", "\xa0"]), min_size=len(words), max_size=len(words))
    )
    text = "".join(word + gap for word, gap in zip(words, gaps, strict=True))
    ends = [
        sum(len(word) + len(gap) for word, gap in zip(words[:n], gaps[:n], strict=True)) for n in range(len(words) + 1)
    ]
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(words))] * 2)))
    quote = text[ends[first] : ends[last]]
    spans = [place.span for place in locate(text, quote)]
    assert bool(spans) == bool(quote.strip())
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        assert span.text(text).startswith(quote.strip())
    ascii_quote = " ".join(quote.replace("’", "'").replace("“", '"').replace("”", '"').replace("…", "...").split())
    # Where the text holds the folded quotation to the letter, that place alone is given.
    if any(character.isalnum() for character in ascii_quote) and ascii_quote not in text:
        begin = ends[first]
        between = (sorted((begin, place.span.start)) for place in locate(text, ascii_quote))
        assert any(not text[slice(*gap)].replace("\u200b", "").strip() for gap in between)


@pytest.mark.parametrize(
    ("text", "quote", "expected"),
    [
        ("where do I start? Well", "where do I start", "where do I start?"),
        ("It is 3.5 or so", "It is 3", "It is 3"),
        ('He said "stop." Next', 'He said "stop', 'He said "stop."'),
        ("我想知道。然后", "我想知道", "我想知道。"),
        ("a…b", "a...b", "a…b"),
        ("one\n\n two", "one two", "one\n\n two"),
    ],
)
def test_closing_punctuation_belongs_to_the_sentence(text, quote, expected):
    assert next(locate(text, quote)).span.text(text) == expected


@pytest.mark.parametrize(
    ("text", "quote"), [("theory", "the"), ("a word", "wor"), ("text", ""), ("text", " \n"), ("", "x")]
)
def test_what_is_not_there_is_not_found(text, quote):
    assert list(locate(text, quote)) == []
