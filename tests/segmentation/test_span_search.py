"""Spans that are looked for: matches of a regular expression, intervals of a function, sentences of a finder."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import safekey_interp as ski
from safekey_interp.errors import InputError
from safekey_interp.segmentation import span_search
from safekey_interp.segmentation.span_search import find_spans, finders_of

TRACE = ski.example()
TEXTS = st.text(st.sampled_from("ab 🙂é\ud800\n"), max_size=30)


def trace(response: str, **fields) -> ski.Trace:
    return ski.Trace(trace_id="t", prompt="How, @bob?", response=response, **fields)


@given(TEXTS, st.sampled_from(["a", "a+", "a*", "b|", "(?:ab)+", "é", "\ufffd", "^", r"\s", "a(b)?", "(?i)B"]))
def test_spans_are_the_matches_that_have_characters(response: str, pattern: str) -> None:
    found = find_spans(trace(response), {"z": pattern})[0]
    group = re.compile(pattern).groups
    matches = [match.span(group) for match in re.finditer(pattern, found.response)]
    assert [(span.start, span.end) for span in found.spans.get("z", ())] == [(a, b) for a, b in matches if a < b]
    assert found.with_(spans={}) == trace(response)


def test_every_source_gives_spans() -> None:
    asked = {
        "wait": r"\b(Wait|Hmm)\b",
        "compiled": re.compile("wait", re.IGNORECASE),
        "function": lambda trace: [(0, 3), ski.CharSpan(4, 5)],
        "none": lambda trace: None,
        "key": "@rules.key_sentence",
        "opening": "@rules.understanding",
    }
    [found] = find_spans([trace("<think>They ask me to wait. Wait, no.</think>No.")], asked, prompt={"bob": r"[@]\w+"})
    texts = {name: [span.text(found.response) for span in spans] for name, spans in found.spans.items()}
    own = ski.segment(found)
    assert texts == {
        "wait": ["Wait"],
        "compiled": ["wait", "Wait"],
        "function": ["<th", "n"],
        "key": [own.key_sentence_text],
        "opening": [own.understanding_text],
    }
    assert [span.text(found.prompt) for span in found.prompt_spans["bob"]] == ["@bob"]
    assert finders_of(asked) == {"rules"}


def test_a_span_takes_the_place_of_one_of_its_name_and_leaves_others() -> None:
    known = trace("ab", spans={"old": [(0, 1)], "z": [(0, 2)]}, prompt_spans={"p": [(0, 1)]})
    [found] = find_spans([known], {"z": "b"})
    assert found.spans == {"old": (ski.CharSpan(0, 1),), "z": (ski.CharSpan(1, 2),)}
    assert found.prompt_spans == known.prompt_spans
    [found] = find_spans([known], {"z": "c"})
    assert list(found.spans) == ["old"]


def test_a_stream_is_read_as_it_is_asked_for() -> None:
    read = []

    def stream():
        for letter in "ab":
            read.append(letter)
            yield trace(letter)

    found = find_spans(stream(), {"z": "a"})
    assert not read
    assert next(found).spans  # type: ignore[call-overload]
    assert read == ["a"]


def test_a_source_stays_a_source_and_its_record_says_what_was_looked_for() -> None:
    source = ski.read_traces([{"prompt": "p", "response": "ab"}, {"prompt": "q", "response": "c"}])
    before, found = source.record(), find_spans(source, {"z": "b"}, prompt={"y": "p"})
    record = found.record()
    assert (record["spans"], record["prompt_spans"]) == ({"z": "b"}, {"y": "p"})
    assert record["sha256"] == before["sha256"]
    assert record["traces_sha256"] != before["traces_sha256"]
    assert found.content.span_names == ("z", "y")
    assert [bool(trace.spans) for trace in found] == [True, False]
    assert source[0].spans == {}
    answers = ski.read_traces([{"prompt": "p", "response": "bb"}])
    assert len(found.changes_of(answers)[0].spans["z"]) == 2


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ([("z", "a")], "spans: got a value of type list, expected names"),
        (r"\bmaybe\b", "spans: got a value of type str, expected names"),
        ({"z": "("}, r"span 'z': regular expression '\(': missing \)"),
        ({"z": "(a)(b)"}, "got 2 groups, expected one at most"),
        ({"prompt": "a"}, "got 'prompt', which is built in"),
        ({"key_sentence": "a"}, "got 'key_sentence', which is built in"),
        ({"a b": "a"}, "got 'a b', expected a letter"),
        ({"z": "@nobody.key_sentence"}, "expected one of @rules.key_sentence"),
        ({"z": "@rules"}, "expected one of @rules.key_sentence"),
        ({"z": 3}, "got a value of type int, expected a regular expression"),
        ({"z": lambda trace: 5}, "trace t: the function gave 5"),
        ({"z": lambda trace: (0, 1)}, "trace t: the function gave 0"),
        ({"z": lambda trace: [(0, 1.5)]}, r"trace t: the function gave \(0, 1.5\)"),
        ({"z": lambda trace: [(-1, 2)]}, r"trace t: the function gave \(-1, 2\)"),
        ({"z": lambda trace: [(2, 1)]}, r"trace t: the function gave \(2, 1\)"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_in_one_line(spans, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        find_spans([trace("ab")], spans)
    assert "\n" not in str(refused.value)


def test_a_finder_has_no_spans_of_prompts() -> None:
    with pytest.raises(InputError, match="for the prompt, expected a regular expression"):
        find_spans([TRACE], prompt={"z": "@rules.key_sentence"})


def test_an_expression_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_search, "SECONDS", 0.05)
    with pytest.raises(InputError, match=r"span 'z': trace t: the regular expression takes more than 0.05 s"):
        find_spans([trace("word " * 2000 + "!" + "x" * 50)], {"z": r"(?:\w+\s?)+\.$|(?:x+x+)+y"})
