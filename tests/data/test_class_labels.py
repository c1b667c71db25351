"""Laws of class labels: two values of any column, named as in the data; anything else is said with its counts."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekey_interp.data.class_labels import HARM, ClassPair, check_label_by, class_pair, label_of
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError


def traces(values, column="correct"):
    about: Any = {"prompt": "p", "response": ""}
    if column == "label":
        return [Trace(trace_id=str(number), label=value, **about) for number, value in enumerate(values)]
    return [
        Trace(trace_id=str(number), meta={} if value is None else {column: value}, **about)
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("harmful", "benign"), ("unsafe", "safe"), ("true", "false"), ("True", "False"), ("1", "0"), ("yes", "no"),
        ("Yes", "zero"), ("harmful", "wrong"), ("wrong", "correct"), ("fr", "en"), ("10", "9"), ("1.0", "0.0"),
        ("b", "10"), ("é", "e"), ("yes", "true"),
    ],
)  # fmt: skip
def test_the_positive_class_is_the_known_one_else_the_last(positive, negative):
    for labels in itertools.permutations([positive, negative, None]):
        assert class_pair(labels, "column") == (positive, negative)


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True), st.permutations(range(6)))
def test_the_order_of_the_rows_does_not_matter(names, order):
    labels = [*names, *names, None, None]
    pair = class_pair([labels[place] for place in order], "column")
    assert set(pair) == set(names)
    assert pair == class_pair(names, "column")


def test_usual_columns_have_their_classes_whatever_is_there():
    assert class_pair([], "label") == class_pair(["benign"], "label") == HARM
    assert class_pair(["neutral", "safe", None], "aha") == ("unsafe", "safe")
    assert class_pair(["neutral", "harmful"], "label") == ("harmful", "neutral"), "neutral is a word like others"
    assert class_pair(["correct"], "label") == ClassPair("correct", "")
    assert class_pair([], "correct") == ClassPair("", "")


def test_other_than_two_values_are_said_with_their_counts():
    with pytest.raises(InputError, match=r"label_by label: got 3 values \('a' 2, 'b' 1, 'c' 1\), expected two"):
        class_pair(["a", "b", "a", "c", None], "label")
    with pytest.raises(InputError, match=r"label_by x: got 1,000 values .*, and 994 more\), expected two"):
        class_pair(map(str, range(1_000)), "x")
    with pytest.raises(InputError) as error:
        class_pair(["a\n\x1b[31m" * 99, "b", "c"], "x")
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 200


def test_a_named_column_must_have_two_values():
    check_label_by(traces(["a", "b", None]), "correct")
    check_label_by(traces(["a", "b", None]), "meta.correct")
    check_label_by(traces([None]), "label")
    check_label_by(traces(["correct"], "label"), "label")
    check_label_by(traces([None]), "aha")
    with pytest.raises(InputError, match=r"label_by: no trace has the column 'mood'; expected one of label, .*correct"):
        check_label_by(traces(["a", "b"]), "mood")
    with pytest.raises(InputError, match=r"label_by correct: got 1 value \(True 2\)".replace("True", "'true'")):
        check_label_by(traces([True, True, None]), "correct")
    with pytest.raises(InputError, match="got 3 values"):
        check_label_by(traces(["a", "b", "c"], "label"), "label")
    with pytest.raises(InputError, match="no trace has the column ''"):
        check_label_by(traces(["a", "b"]), "")


@pytest.mark.parametrize(
    ("meta", "column", "value"),
    [
        ({"correct": True}, "correct", "true"),
        ({"correct": np.bool_(True)}, "correct", "true"),
        ({"n": np.int64(3)}, "n", "3"),
        ({"n": float("nan")}, "n", None),
        ({"n": [1]}, "n", None),
        ({"n": {"a": 1}}, "n", None),
        ({"language": "en"}, "meta.language", "en"),
        ({"meta": {"language": "en"}}, "meta.language", "en"),
        ({"meta": json.dumps({"language": "en"})}, "meta.language", "en"),
        ({"meta": "{broken"}, "meta.language", None),
        ({"a": {"b": {"c": "x"}}}, "a.b.c", "x"),
        ({"a.b": "plain", "a": {"b": "path"}}, "a.b", "plain"),
        ({"a": "text"}, "a.b", None),
        ({}, "meta", None),
        ({}, ".", None),
    ],
)
def test_a_column_is_a_name_or_a_path(meta, column, value):
    assert label_of(Trace(trace_id="1", prompt="p", response="", meta=meta), column) == value


def test_columns_of_the_trace_itself():
    trace = Trace(trace_id="1", prompt="p", response="", label="correct", source="s", meta={"label": "other"})
    assert (label_of(trace, "label"), label_of(trace, "source"), label_of(trace, "meta.label")) == (
        "correct", "s", "other",
    )  # fmt: skip
