"""Laws of span expressions: against a reference over random expressions, and the errors."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekey_interp.data.span_expressions import (
    ALIASES,
    NumberedSpan,
    check_span_name,
    check_spans,
    parse_span,
    span_references,
)
from safekey_interp.errors import InputError

N = 12
NAMES = ("prompt", "understanding", "key_sentence", "warning", "a-b_2")
SETS = st.dictionaries(st.sampled_from(NAMES), st.sets(st.integers(0, N - 1), min_size=1), max_size=len(NAMES))


def trees() -> st.SearchStrategy:
    leaf = (
        st.sampled_from(NAMES)
        | st.tuples(st.just("token"), st.integers(-N - 2, N + 2))
        | st.sampled_from(list(ALIASES))
    )
    return st.recursive(
        leaf,
        lambda inner: (
            st.tuples(st.sampled_from(("first", "last", "before", "after")), inner)
            | st.tuples(st.sampled_from(("+", "..")), inner, inner)
        ),
        max_leaves=8,
    )


def written(tree, space: str = " ") -> str:
    if isinstance(tree, str):
        return tree
    if tree[0] == "token":
        return f"token({tree[1]})"
    if len(tree) == 2:
        return f"{tree[0]}({written(tree[1], space)})"
    return f"({written(tree[1], space)}){space}{tree[0]}{space}({written(tree[2], space)})"


def reference(tree, spans: dict[str, set[int]]) -> set[int]:
    """The same by sets, from the tree, without a parser."""
    if isinstance(tree, str):
        of = {
            "start": lambda: {0},
            "end": lambda: {N - 1},
            "decision": lambda: reference(("before", "key_sentence"), spans),
            "context": lambda: reference(("..", "start", ("last", "understanding")), spans),
            "prompt_end": lambda: reference(("last", "prompt"), spans),
            "understanding_end": lambda: reference(("last", "understanding"), spans),
        }
        return of[tree]() if tree in of else spans.get(tree, set())
    if tree[0] == "token":
        return set(list(range(N))[tree[1] :][:1]) if -N <= tree[1] < N else set()
    parts = [reference(part, spans) for part in tree[1:]]
    if tree[0] == "+":
        return parts[0] | parts[1]
    if not all(parts):
        return set()
    if tree[0] == "..":
        return {i for i in range(N) if min(parts[0]) <= i <= max(parts[1])}
    at = {"first": min, "last": max, "before": lambda p: min(p) - 1, "after": lambda p: max(p) + 1}[tree[0]](parts[0])
    return {at} & set(range(N))


def tokens_of(spans):
    def of(name):
        if isinstance(name, NumberedSpan):
            assert name.kind == "token"
            return range(N)[name.number :][:1] if -N <= name.number < N else ()
        return spans.get(name, ())

    return of


@settings(max_examples=500, deadline=None)
@given(trees(), SETS, st.sampled_from(["", " ", "\t \n"]))
def test_positions_are_those_of_the_reference(tree, spans, space) -> None:
    found = parse_span(written(tree, space)).positions(tokens_of(spans), N)
    assert found == sorted(reference(tree, spans))


def test_ranges_bind_tighter_than_unions() -> None:
    spans = {"prompt": {0, 1}, "understanding": {4}, "key_sentence": {7}}
    assert parse_span("prompt + understanding .. key_sentence").positions(tokens_of(spans), N) == [0, 1, 4, 5, 6, 7]
    assert parse_span("(prompt + understanding) .. key_sentence").positions(tokens_of(spans), N) == list(range(8))


def test_references_are_listed_once() -> None:
    assert span_references(["prompt + last(prompt)", "sentence(3) .. decision"]) == (
        "prompt",
        NumberedSpan("sentence", 3),
        "key_sentence",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got the end at character 0, expected a span's name"),
        ("first(warning", "got the end at character 13, expected ')'"),
        ("frist(warning)", "got frist( at character 0; did you mean 'first'? expected one of first, last"),
        ("prompt prompt", "got 'prompt' at character 7, expected +, .. or the end"),
        ("prompt .. ", "got the end"),
        ("a ; b", "got ';' at character 2"),
        ("token(x)", "expected a whole number"),
        ("sentence", "expected a number, such as sentence(0)"),
        ("last", "expected a span, such as last(key_sentence)"),
        ("3", "expected a span's name"),
        ("a.b", "got '.' at character 1"),
    ],
)
def test_errors_say_where(text, words) -> None:
    with pytest.raises(InputError) as error:
        parse_span(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_says_which_are_there_and_the_nearest() -> None:
    check_spans(["last(warning) + decision", "turn(2)"], ["warning"])
    with pytest.raises(InputError, match=r"span 'warnng'.*did you mean 'warning'.*key_sentence"):
        check_spans(["last(warnng)"], ["warning"])


@pytest.mark.parametrize("name", ["prompt", "decision", "sentence", "first", "2x", "", "a b", "a.b", "a+b"])
def test_names_that_mean_something_are_refused(name) -> None:
    with pytest.raises(InputError, match="span name"):
        check_span_name(name)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text) -> None:
    with suppress(InputError):
        parse_span(text)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InputError, match="nested too deeply"):
        parse_span("(" * 5_000 + "prompt" + ")" * 5_000)
