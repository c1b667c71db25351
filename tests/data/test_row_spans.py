"""Spans in files: columns, messages and lists of annotation tools become spans of a trace; all else is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safekey_interp.data.row_spans import read_spans
from safekey_interp.data.trace import CharSpan, Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.data.trace_record import record_of, trace_of
from safekey_interp.errors import InputError

ROW = {"prompt": "Is it late?", "response": "<think>They ask. Wait. Late.</think>Yes."}
INTERVALS = st.lists(st.tuples(st.integers(0, 10**30), st.integers(0, 10**30)).map(sorted), max_size=4)
NAMES = st.from_regex(r"[a-zäß_-][\w-]{0,8}", fullmatch=True).filter(lambda name: name[0].isalpha())


def only(row: dict) -> Trace:
    [trace] = read_traces([row])
    return trace


@given(st.dictionaries(NAMES.filter(lambda name: name.startswith("z")), INTERVALS, max_size=3))
def test_a_trace_has_the_spans_that_its_row_names(spans: dict) -> None:
    wanted = {name: tuple(sorted(CharSpan(*pair) for pair in pairs)) for name, pairs in spans.items() if pairs}
    for cell in (spans, json.dumps(spans)):
        trace = only(ROW | {"spans": cell, "prompt_spans": cell})
        assert trace.spans == trace.prompt_spans == wanted
        assert "spans" not in trace.meta
        assert trace_of(json.loads(record_of(trace)[0])) == trace


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_format_of_file_holds_spans(tmp_path: Path, kind: str) -> None:
    rows = [ROW | {"spans": {"wait": [[17, 22]], "late": [[23, 28]]}}, ROW | {"spans": {"wait": [[17, 22]]}}, ROW]
    file = tmp_path / f"traces.{kind}"
    if kind == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        frame = pd.DataFrame(rows)
        if kind == "csv":
            frame["spans"] = frame["spans"].map(json.dumps, na_action="ignore")
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file)
    found = [dict(trace.spans) for trace in read_traces(file)]
    assert found == [{"wait": (CharSpan(17, 22),), "late": (CharSpan(23, 28),)}, {"wait": (CharSpan(17, 22),)}, {}]


def test_built_in_names_are_what_the_data_give() -> None:
    trace = only(ROW | {"spans": {"understanding": [7, 16], "key_sentence": [[17, 22]], "late": [[23, 28]]}})
    assert {name: span.text(trace.response) for name, span in trace.given.items()} == {
        "understanding": "They ask.",
        "key_sentence": "Wait.",
    }
    assert list(trace.spans) == ["late"]


def test_messages_have_spans_of_their_own() -> None:
    talk = [
        {"role": "user", "content": "Hello", "spans": {"greeting": [[0, 5]]}},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Is it late?", "spans": {"late": [[6, 10]]}},
        {"role": "assistant", "content": ROW["response"], "spans": {"key_sentence": [17, 22], "end": []}},
    ]
    with pytest.raises(InputError, match=r"\[3\]\.spans: span name: got 'end', which is built in"):
        only({"messages": talk})
    del talk[3]["spans"]["end"]  # type: ignore[attr-defined]
    trace = only({"messages": talk})
    assert trace.span_names == ("late", "greeting")
    assert trace.messages[0].spans == {"greeting": (CharSpan(0, 5),)}
    assert trace.prompt_spans == {"late": (CharSpan(6, 10),)}
    assert trace.given == {"key_sentence": CharSpan(17, 22)}


def test_lists_of_annotation_tools_are_spans() -> None:
    labelled = [{"start": 17, "end": 22, "label": "z"}, {"start": 0, "end": 7, "label": "z", "token_start": 0}]
    assert read_spans(labelled, "here") == {"z": [(17, 22), (0, 7)]}


@pytest.mark.parametrize("own", ["see above", 3, 2.5])
def test_a_text_or_number_of_that_name_is_the_datas_own(own: object) -> None:
    trace = only(ROW | {"spans": own})
    assert not trace.spans
    assert trace.meta.get("spans") == own


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ("{z: [[1, 2]]}", "expected JSON such as"),
        ({"z": [[-1, 2]]}, r"z: got \[-1, 2\], expected 0 <= start <= end"),
        ({"z": [[3, 2]]}, r"z: got \[3, 2\], expected 0 <= start <= end"),
        ({"z": [[0.5, 2]]}, "z: got the number 0.5, expected a whole number"),
        ({"z": [[0, True]]}, "z: got the truth value True, expected a whole number"),
        ({"z": [[0, 1, 2]]}, r"z: got a list of 3, expected \[start, end\]"),
        ({"z": 5}, r"z: got the number 5, expected a list of \[start, end\]"),
        ({"z": "1-2"}, r"z: got the text '1-2', expected a list of \[start, end\]"),
        ({"a b": [[0, 1]]}, "got 'a b', expected a letter"),
        ({"": [[0, 1]]}, "got '', expected a letter"),
        ({"prompt": [[0, 1]]}, "got 'prompt', which is built in"),
        ({"sentence": [[0, 1]]}, "got 'sentence', which is built in"),
        ({"key_sentence": [[0, 1], [2, 3]]}, "key_sentence: got 2 intervals, expected one"),
        ([[0, 1]], "expected an object with start, end and label"),
        ([{"start": 0, "end": 1}], "expected an object with start, end and label"),
    ],
)
def test_what_cannot_be_a_span_is_refused_in_one_line(spans: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        only(ROW | {"spans": spans})
    assert "row [0]" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_understanding_and_key_sentence_are_of_the_response_alone() -> None:
    with pytest.raises(InputError, match="prompt_spans: span name: got 'understanding', which is built in"):
        only(ROW | {"prompt_spans": {"understanding": [[0, 2]]}})
    with pytest.raises(InputError, match="spans: the row has 2 responses"):
        only({"prompt": "p", "response": ["a", "b"], "spans": {"z": [[0, 1]]}})
