"""Laws of the readers: every format says the same, nothing stands in memory, bad input is one line that says where."""

import csv
import gzip
import io
import json
import random
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekey_interp.data.trace import CharSpan, Message, Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"
ROWS = [
    {"id": "a", "prompt": "How?", "response": "<think>\nOkay.\n</think>\nNo.", "label": "harmful", "kind": "x"},
    {"id": "b", "prompt": "Wie, „so“?\n", "response": 'Say "hi", twice\r\nthen\tstop', "label": "benign", "kind": "y"},
]


def write(path: Path, rows: list[dict]) -> Path:
    """The rows in the format that the suffix names."""
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2))
    elif path.suffix in (".csv", ".tsv"):
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def message(source: object, **options: object) -> str:
    """What the one-line error says."""
    with pytest.raises(InputError) as caught:
        read_traces(source, **options).check()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only(row: dict, **options: object) -> Trace:
    (trace,) = read_traces([row], **options)  # type: ignore[arg-type]
    return trace


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_traces(tmp_path, suffix):
    source = read_traces(write(tmp_path / f"rows{suffix}", ROWS))
    traces = list(source)
    assert traces == list(read_traces(ROWS)) == list(read_traces(pd.DataFrame(ROWS)))
    assert list(source) == traces, "a second walk gives the same"
    assert [trace.trace_id for trace in traces] == ["a", "b"]
    assert traces[0].label == "harmful"
    assert dict(traces[1].meta) == {"kind": "y"}
    assert source.n_read == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "prompt": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
                "response": st.text(st.characters(exclude_categories=["Cs"])),
                "label": st.sampled_from(["harmful", "benign", None]),
                "group": st.text(st.characters(exclude_categories=["Cs"])),
                "note": st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            }
        ),
        min_size=1,
        max_size=6,
    )
)
def test_arbitrary_rows_come_through_every_format_unchanged(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    expected = list(read_traces(rows))
    for suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        source = read_traces(write(folder / f"rows{suffix}", rows))
        assert list(source.check()) == expected, suffix
    for trace, row in zip(expected, rows, strict=True):
        assert (trace.prompt, trace.response) == (row["prompt"], row["response"])
        assert trace.group == (row["group"] or row["prompt"])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz"]))
def test_arbitrary_bytes_raise_nothing_but_the_documented_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"rows{suffix}"
    path.write_bytes(data)
    with suppress(InputError):
        read_traces(path).check()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_json_text_cut_anywhere_is_an_error_or_whole(tmp_path_factory, data):
    whole = json.dumps({"meta_info": {"n": [1, 2]}, "data": ROWS}, indent=1, ensure_ascii=False)
    end = data.draw(st.integers(1, len(whole)))
    path = tmp_path_factory.mktemp("cut") / "rows.json"
    path.write_text(whole[:end], encoding="utf-8")
    if end == len(whole):
        assert list(read_traces(path)) == list(read_traces(ROWS))
    else:
        assert "line" in message(path) or "no rows" in message(path)


@pytest.mark.slow
def test_a_hundred_thousand_traces_never_stand_in_memory(tmp_path):
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for number in range(100_000):
            file.write(
                json.dumps({"id": f"trace-{number}", "prompt": f"p{number}", "response": "<think>\nOkay."}) + "\n"
            )
    source = read_traces(path)
    tracemalloc.start()
    source.check()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.n_read == 100_000
    assert peak < 5e6


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    peaks = []
    for n_rows in (2_000, 6_000):
        rows = [{"id": str(number), "prompt": "p" * 50, "response": "r" * 1_000} for number in range(n_rows)]
        source = read_traces(write(tmp_path / f"{n_rows}{suffix}", rows))
        del rows
        for _ in source:  # imports and caches once
            break
        tracemalloc.start()
        source.check()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1e6


def test_json_in_its_four_shapes(tmp_path):
    expected = list(read_traces(ROWS))
    shapes = {
        "array": json.dumps(ROWS),
        "container": json.dumps({"meta_info": {"x": 1}, "data": ROWS}),
        "container first": json.dumps({"data": ROWS, "meta_info": {"x": 1}}),
        "lines": "\n".join(map(json.dumps, ROWS)),
    }
    for name, text in shapes.items():
        path = tmp_path / f"{name}.json"
        path.write_text(text)
        assert list(read_traces(path)) == expected, name
    one = tmp_path / "one.json"
    one.write_text(json.dumps(ROWS[0], indent=4))
    assert list(read_traces(one)) == expected[:1]


def test_long_json_values_across_chunks(tmp_path):
    rng = random.Random(0)
    rows = [
        {"prompt": "ü" * rng.randrange(1, 5), "response": 'é\\\n"' * rng.randrange(100_000), "n": -12345.678}
        for _ in range(12)
    ]
    path = write(tmp_path / "long.json", rows)
    assert list(read_traces(path)) == list(read_traces(rows))
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert list(read_traces(path)) == list(read_traces(rows))


def test_byte_order_marks_gzip_and_long_cells(tmp_path):
    for suffix in (".jsonl", ".json", ".csv", ".tsv"):
        path = write(tmp_path / f"rows{suffix}", ROWS)
        data = path.read_bytes()
        path.write_bytes(b"\xef\xbb\xbf" + data)
        assert list(read_traces(path)) == list(read_traces(ROWS)), suffix
        zipped = tmp_path / f"rows{suffix}.gz"
        zipped.write_bytes(gzip.compress(data))
        assert list(read_traces(zipped)) == list(read_traces(ROWS)), suffix
        zipped.write_bytes(gzip.compress(data)[:-12])
        assert str(zipped) in message(zipped)
    long = [{"prompt": "p", "response": "x" * 1_000_000}]
    assert len(next(iter(read_traces(write(tmp_path / "long.csv", long)))).response) == 1_000_000


def test_hash_is_that_of_the_files_whatever_was_read(tmp_path):
    import hashlib

    first, second = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.parquet", [{"prompt": "c"}])
    expected = hashlib.sha256(first.read_bytes() + second.read_bytes()).hexdigest()
    on_the_way = read_traces([first, second])
    list(on_the_way)
    assert on_the_way.sha256 == expected
    assert read_traces([first, second]).sha256 == expected, "without reading"
    limited = read_traces([first, second], limit=1).check()
    assert (limited.n_read, limited.sha256) == (1, expected)
    assert limited.names == (str(first), str(second))
    zipped = tmp_path / "a.jsonl.gz"
    zipped.write_bytes(gzip.compress(first.read_bytes()))
    assert read_traces(zipped).check().sha256 == hashlib.sha256(zipped.read_bytes()).hexdigest()
    assert read_traces(ROWS).sha256 == read_traces([dict(reversed(row.items())) for row in ROWS]).check().sha256
    assert read_traces(ROWS).sha256 != read_traces(ROWS[:1]).sha256


def test_a_file_that_changes_between_two_walks_is_noticed(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    source, kept = read_traces(path), read_traces(path).check()
    traces = list(source)
    write(path, ROWS[:1])
    with pytest.raises(InputError, match="changed"):
        list(source)
    assert list(kept) == traces, "what was kept is not read again"


def test_two_walks_at_once_do_not_disturb_each_other(tmp_path):
    source = read_traces(write(tmp_path / "a.jsonl", ROWS))
    assert [(one.trace_id, two.trace_id) for one, two in zip(source, source, strict=True)] == [("a", "a"), ("b", "b")]
    assert source.n_read == 2


def test_standard_input_is_kept_for_a_second_walk(monkeypatch):
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    source = read_traces("-")
    assert list(source) == list(source) == list(read_traces(ROWS))
    assert source.names == ("standard input",)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data + b'{"pro')))
    assert message("-").startswith("standard input, line 3: ")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "empty" in message("-")


def test_traces_pass_through_and_generators_are_read_once():
    traces = list(read_traces(ROWS))
    assert list(read_traces(traces)) == traces
    assert list(read_traces(trace for trace in traces)) == traces
    checked = read_traces(trace for trace in traces).check()
    assert list(checked) == list(checked) == traces
    once = read_traces(trace for trace in traces)
    assert sum(1 for _ in once) == len(traces)
    with pytest.raises(InputError, match="only once"):
        list(once)
    assert read_traces(checked) is checked


def test_several_files_and_globs(tmp_path):
    for name in ("x", "y"):
        write(tmp_path / f"{name}.jsonl", [{"prompt": "1"}, {"prompt": "2"}])
    (tmp_path / "z").mkdir()
    write(tmp_path / "z" / "x.jsonl", [{"prompt": "3"}])
    ids = [trace.trace_id for trace in read_traces(str(tmp_path / "*.jsonl"))]
    assert ids == ["x-0", "x-1", "y-0", "y-1"]
    everything = read_traces([str(tmp_path / "*.jsonl"), tmp_path / "x.jsonl", str(tmp_path / "**/x.jsonl")])
    assert [trace.trace_id for trace in everything] == ["x.1-0", "x.1-1", "y-0", "y-1", "x.2-0"]
    assert [trace.trace_id for trace in read_traces(tmp_path / "x.jsonl")] == ["0", "1"]


def test_usual_and_named_columns():
    assert only({"question": "q", "answer": "a"}).response == "a"
    assert only({"instruction": "q", "output": "a"}).prompt == "q"
    assert only({"prompt": "q", "completion": "a", "trace_id": 7}).trace_id == "7"
    assert only({"prompt": None, "question": "q"}).prompt == "q", "an empty column does not hide another"
    named = only(
        {"p": "P", "r": "R", "l": "unsafe", "g": 4, "i": 3.0, "prompt": "other"},
        prompt_field="p", response_field="r", label_field="l", group_field="g", id_field="i",
    )  # fmt: skip
    assert (named.prompt, named.response, named.label, named.group, named.trace_id) == ("P", "R", "harmful", "4", "3")
    assert dict(named.meta) == {"prompt": "other"}
    plain = only({"prompt": "q", "source": "s", "category": ["c"], "empty": None, "gap": float("nan")})
    assert (plain.response, plain.label, plain.source, plain.group) == ("", None, "s", "q")
    assert dict(plain.meta) == {"category": ["c"]}


@pytest.mark.parametrize(
    ("value", "label"),
    [("harmful", "harmful"), ("Unsafe", "harmful"), (1, "harmful"), (True, "harmful"), ("1", "harmful"),
     (1.0, "harmful"),
     ("benign", "benign"), ("safe", "benign"), (0, "benign"), (False, "benign"), ("FALSE", "benign"),
     (np.int64(0), "benign"),
     ("correct", "correct"), (" Wrong ", "Wrong"), ("true-ish", "true-ish"), ("réponse \ud800", "réponse \ufffd"),
     (None, None), ("", None), ("  ", None), (float("nan"), None)],
)  # fmt: skip
def test_labels(value, label):
    assert only({"prompt": "q", "label": value}).label == label


def test_data_frames_with_gaps():
    frame = pd.DataFrame({"prompt": ["a", "b"], "label": [1, np.nan], "n": pd.array([1, None], dtype="Int64")})
    first, second = read_traces(frame)
    assert (first.label, second.label) == ("harmful", None)
    assert (dict(first.meta), dict(second.meta)) == ({"n": 1}, {})
    frame.columns = ["prompt", "prompt", "n"]
    assert "stands twice" in message(frame)


def test_conversations():
    system, user, assistant = ({"role": role, "content": role[0]} for role in ("system", "user", "assistant"))
    trace = only({"messages": [system, user, assistant, {"role": "user", "content": "last"}]})
    assert (trace.prompt, trace.response) == ("last", "")
    assert [turn.role for turn in trace.messages] == ["system", "user", "assistant"]
    trace = only({"conversation": [system, user, assistant]})
    assert (trace.prompt, trace.response, trace.messages) == ("u", "a", (Message(role="system", content="s"),))
    assert only({"messages": [user, assistant], "response": "other"}).response == "other"
    whole = only({"prompt": "u", "messages": [system, user, assistant]})
    assert (whole.messages, whole.response) == ((Message(role="system", content="s"),), "a")
    before = only({"prompt": "new", "messages": [user, assistant]})
    assert (before.prompt, len(before.messages), before.response) == ("new", 2, "")
    assert only({"messages": json.dumps([user])}).prompt == "u", "as a CSV cell holds it"
    assert "no turn of the user" in message([{"messages": [system]}])
    called = only({"messages": [user, assistant, {"role": "tool", "content": "t"}, assistant]})
    assert (called.prompt, [step.content for step in called.steps], called.response) == ("u", ["a", "t"], "a")
    assert "messages[0]: got the fields name, words, expected role and content" in message(
        [{"messages": [{"name": "human", "words": "x"}]}]
    )
    assert "messages[0].content: got null, expected text" in message(
        [{"messages": [{"role": "user", "content": None}]}]
    )


def test_given_spans_of_plain_files():
    row = {"prompt": "q", "response": "One. Two.", "understanding": [0, 4], "key_sentence": [5, 9]}
    assert only(row).given == {"understanding": CharSpan(0, 4), "key_sentence": CharSpan(5, 9)}
    assert only(row | {"understanding": "[0, 4]", "key_sentence": None}).given == {"understanding": CharSpan(0, 4)}
    texts = only(row | {"understanding": "One.", "key_sentence": "[Two"})
    assert (dict(texts.given), dict(texts.meta)) == ({}, {"understanding": "One.", "key_sentence": "[Two"})
    assert "key_sentence: got [5, 10], expected 0 <= start <= end <= 9" in message([row | {"key_sentence": [5, 10]}])
    assert "expected [start, end]" in message([row | {"key_sentence": [5]}])
    assert "expected a whole number" in message([row | {"key_sentence": [5, "x"]}])
    assert "begins before understanding ends" in message([row | {"key_sentence": [3, 9]}])


def safekey_row(response: str, understanding: str, key_sentence: str, text: str | None = None, **other: object) -> dict:
    """A training row whose offsets count in ``text``."""
    text = response if text is None else text
    summary_end = text.index(understanding) + len(understanding)
    end = text.index(key_sentence) + len(key_sentence)
    return {
        "question": "q", "response": response, "source": "s",
        "summary_end_idx": summary_end, "next_sentence_end_idx": end, **other,
    }  # fmt: skip


def test_safekey_training_rows():
    response = "<think>\nOkay, a bomb. That harms people. No.\n</think>\n\nSorry."
    row = safekey_row(response, "Okay, a bomb.", "That harms people.")
    trace = only(row)
    assert trace.given["understanding"].text(response) == "Okay, a bomb."
    assert trace.given["key_sentence"].text(response) == "That harms people."
    assert (trace.label, trace.source, dict(trace.meta)) == ("harmful", "s", {})
    assert only(row | {"source": "4o_rewrite"}).label == "benign"
    assert only(row | {"label": "benign"}).label == "benign"
    empty = only(row | {"summary_end_idx": 8, "next_sentence_end_idx": 21})
    assert {name: span.text(response) for name, span in empty.given.items()} == {"key_sentence": "Okay, a bomb."}
    assert "expected 0 <= both in order <= 61" in message([row | {"next_sentence_end_idx": 999}])
    assert "expected 0 <= both in order" in message([row | {"next_sentence_end_idx": 3}])
    assert "summary_end_idx: got the text 'x', expected a whole number" in message([row | {"summary_end_idx": "x"}])


@pytest.mark.parametrize("by_trainer", [True, False])
@pytest.mark.parametrize(
    "response",
    ["<think>Okay, and\\/or. That harms people. No.</think>Sorry.",
     "\n\n<think>\n\n\nOkay, and\\/or. That harms people. No.\n\n</think>Sorry.",
     "<think>\nOkay, and\\/or. That harms people."],
)  # fmt: skip
def test_safekey_offsets_count_in_the_text_that_its_trainer_rebuilds(response, by_trainer):
    rebuilt = "<think>\nOkay, and/or. That harms people. No.\n</think>\n\nSorry."
    if by_trainer and "</think>" in response:
        row = safekey_row(response, "and/or.", "That harms people.", rebuilt)
    else:
        row = safekey_row(response, "and\\/or.", "That harms people.")
    spans = only(row).given
    assert spans["key_sentence"].text(response) == "That harms people."
    assert spans["understanding"].text(response) == "Okay, and\\/or."


def test_star1_rows():
    row = {"id": "1", "question": "q", "response": "r", "category": ["c"], "source": "s", "score": {"a": 10}}
    trace = only(row)
    assert (trace.trace_id, trace.prompt, trace.label, trace.source) == ("1", "q", "harmful", "s")
    assert dict(trace.meta) == {"category": ["c"], "score": {"a": 10}}
    assert only({name: row[name] for name in ("question", "response", "source")}).label is None


def test_safekey_result_files(tmp_path):
    path = tmp_path / "result.json"
    rows = [
        {"instruction": "q", "prompt": "<|User|>q<|Assistant|>", "response": ["r0", "r1"], "score": 1},
        {"instruction": "p", "prompt": "<|User|>p<|Assistant|>", "response": ["r2"]},
    ]
    path.write_text(json.dumps({"meta_info": {"model": "m"}, "data": rows}, indent=4))
    traces = list(read_traces(path))
    assert [trace.trace_id for trace in traces] == ["0.0", "0.1", "1.0"]
    assert [trace.response for trace in traces] == ["r0", "r1", "r2"]
    assert [trace.group for trace in traces] == ["q", "q", "p"]
    assert traces[0].prompt == "q"
    assert dict(traces[0].meta) == {"score": 1, "prompt": "<|User|>q<|Assistant|>"}
    assert read_traces(path, limit=2).check().n_read == 2


def test_surrogates_are_counted_and_replaced_one_for_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        r'{"id": "\ud800", "prompt": "a\udfffb", "response": "\ud83d\ude00", "n": {"\udead": ["\ud801"]}}' + "\n"
    )
    source = read_traces(path)
    (trace,) = source
    assert (trace.prompt, trace.response, trace.trace_id) == ("a\ufffdb", "\U0001f600", "\ufffd")
    assert dict(trace.meta) == {"n": {"\ufffd": ["\ufffd"]}}
    assert source.n_surrogates == 3
    path.write_bytes(b'{"prompt": "a\xed\xa0\x80b"}')
    assert next(iter(read_traces(path))).prompt == "a\ufffdb", "as Python writes one that it lets pass"


@pytest.mark.parametrize("file", sorted(SHARED.glob("*.jsonl")), ids=lambda path: path.name)
def test_shared_data_is_read_unchanged(file):
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    source = read_traces(file).check()
    assert source.n_read == len(rows)
    for trace, row in zip(source, rows, strict=True):
        assert (trace.trace_id, trace.prompt, trace.response) == (row["id"], row["prompt"], row.get("response", ""))
        assert trace.label == row.get("label")
        assert trace.group == row.get("group", row["prompt"])
        assert trace.meta.get("annotator_a") == row.get("annotator_a")


def test_files_that_cannot_be_used(tmp_path):
    write(tmp_path / "traces.jsonl", ROWS)
    assert "no such file; did you mean" in message(tmp_path / "trace.jsonl")
    assert "does not exist either" in message(tmp_path / "nowhere" / "x.jsonl")
    (tmp_path / "empty").mkdir()
    assert "a folder without a file of traces; expected .jsonl" in message(tmp_path / "empty")
    assert "no file matches" in message(str(tmp_path / "*.csv"))
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        (tmp_path / name).touch()
        assert "an empty file" in message(tmp_path / name)
    (tmp_path / "a.txt").write_text("x")
    assert "not a known kind of file; expected .jsonl" in message(tmp_path / "a.txt")
    assert "got NoneType, expected a file" in message(None)
    assert "got dict" in message({"prompt": ["a"]})
    assert "an empty list" in message([])
    assert "limit: got 0" in message(ROWS, limit=0)
    assert "cannot be read" in message("x" * 5_000 + ".jsonl")
    for name, text in {"b.jsonl": "\n \n", "b.json": "[]", "c.json": " \n", "b.csv": "prompt,label\n"}.items():
        (tmp_path / name).write_text(text)
        assert message(tmp_path / name) == f"{tmp_path / name}: no rows; expected at least one"
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "b.parquet")
    assert "no rows" in message(tmp_path / "b.parquet")


def test_broken_texts_name_their_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b", "resp')
    assert message(path).startswith(f"{path}, line 3: broken JSON: Unterminated string starting")
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n')
    assert "line 2: not UTF-8: byte 31 of the file is 0xe9" in message(path)
    path.write_text("[1, 2]\n")
    assert f"{path}, line 1: got a list of 2, expected an object with a prompt" == message(path)
    path.write_text('{"prompt": ' + "[" * 100_000)
    assert "line 1" in message(path)
    path.write_text('{"prompt": ' + "9" * 10_000 + "}")
    assert "line 1" in message(path)

    path = tmp_path / "a.json"
    path.write_text("[1, 2, 3]")
    assert message(path) == f"{path}, row 1: got the number 1, expected an object with a prompt"
    path.write_text('[\n{"prompt": "a"},\n{"prompt" "b"}\n]')
    assert "line 3: broken JSON: Expecting ':' delimiter" in message(path)
    path.write_text('[\n{"prompt": "a"}\n{"prompt": "b"}\n]')
    assert "line 3: broken JSON: expected , or ], got {" in message(path)
    path.write_bytes(b'[\n{"prompt": "a"},\n{"prompt": "caf\xe9"}]')
    assert "line 3: not UTF-8: byte 34 of the file is 0xe9" in message(path)
    path.write_text("[" * 100_000)
    assert "broken JSON" in message(path)

    path = tmp_path / "a.csv"
    path.write_text('prompt,response\na,"b\nc"\nd,"e')
    assert f"{path}, line 4: broken CSV" in message(path)
    path.write_text('prompt,response\na,"b\nc"\nd\n')
    assert f"{path}, line 4: got 1 cells, expected 2 as in the header" in message(path)
    path.write_text("prompt,prompt\na,b\n")
    assert "column 'prompt' stands twice" in message(path)

    path = write(tmp_path / "a.parquet", ROWS)
    data = path.read_bytes()
    for broken in (b"PAR1 nothing", data[:-20], data[: len(data) // 2], data[:40] + b"\xff" * 60 + data[100:]):
        path.write_bytes(broken)
        assert message(path).startswith(f"{path}")


def test_wrong_values_name_row_field_got_and_expected(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROWS[0], {"prompt": 5}])
    assert message(path) == f"{path}, line 2: prompt: got the number 5, expected text"
    assert message([ROWS[0], {"prompt": ["a"]}]) == "row [1]: prompt: got a list of 1, expected text"
    assert message([{"prompt": "a", "response": {"b": 1}}]) == "row [0]: response: got an object with b, expected text"
    assert "response[1]: got null, expected text" in message([{"prompt": "a", "response": ["x", None]}])
    assert "response: got an empty list" in message([{"prompt": "a", "response": []}])
    assert "id: got a list of 0, expected text or a whole number" in message([{"prompt": "a", "id": []}])
    assert "group: got the truth value True" in message([{"prompt": "a", "group": True}])
    assert "got an empty text" in message([{"prompt": ""}])
    assert message([1.5]) == "row [0]: got the number 1.5, expected an object with a prompt"
    assert "row [1]: got the text 'b'" in message([{"prompt": "a"}, "b"])
    got = message([{"prompt": "a", "label": "3"}, {"prompt": "b", "label": 2}, {"prompt": "c", "label": 2}])
    assert got.startswith("rows in memory: label: got the values '3', 2; expected a word, or a truth value in")
    assert "--label-map VALUE=harmful" in got
    for number in (2, -1, 0.5, "-1", "1.5", [1]):
        assert "--label-map" in message([{"prompt": "a", "label": number}])


def test_missing_fields_name_those_that_are_there():
    assert message([{"text": "a", "kind": 1}]) == "row [0]: no prompt; the fields are text, kind; see --prompt-field"
    assert "no 'p'; the fields are prompt" in message([{"prompt": "a"}], prompt_field="p")
    assert "no row has the field 'r', named by --response-field; the fields are prompt" in message(
        [{"prompt": "a"}], response_field="r"
    )
    assert "--label-field" in message([{"prompt": "a", "label": "safe"}], label_field="harm")
    unlabelled_first = read_traces([{"prompt": "a"}, {"prompt": "b", "harm": 1}], label_field="harm").check()
    assert [trace.label for trace in unlabelled_first] == [None, "harmful"]


@pytest.mark.parametrize("distance", [1, 3_000])
def test_an_id_that_stands_twice_is_an_error(distance):
    rows = [
        {"id": "same", "prompt": "a"},
        *({"prompt": "b"} for _ in range(distance - 1)),
        {"id": "same", "prompt": "c"},
    ]
    assert f"row [{distance}]: the id 'same' stands a second time" in message(rows)


def test_reading_loads_neither_torch_nor_pandas():
    import subprocess

    heavy = "{'torch', 'pandas', 'pyarrow'}"
    code = f"import sys, safekey_interp.data.trace_reader; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lines_with_an_entry_type_of_ones_own_are_no_lines_of_garak(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    rows = [{"prompt": "a", "response": "b", "entry_type": "qa"}, {"entry_type": "qa", "text_in": "c"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "line 2: no prompt" in message(file)
    file.write_text(json.dumps(rows[1]) + "\n")
    assert [trace.prompt for trace in read_traces(file, prompt_field="text_in")] == ["c"]
    attempt = {"entry_type": "attempt", "probe_classname": "p", "prompt": "a", "outputs": ["b"], "status": 1}
    file.write_text(json.dumps(attempt) + "\n")
    assert "no rows; expected at least one" in message(file)
    file.write_text(json.dumps(attempt | {"status": 2, "outputs": 5}) + "\n")
    assert "outputs: got the number 5, expected a list of outputs" in message(file)


def test_an_empty_document_is_a_row_without_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text('{"prompt": "a"}\n{}\n{"prompt": "b"}\n')
    assert "row 2: no prompt" in message(file)
