"""Inspect logs: the same traces from JSON and every packing of an archive; broken and hostile ones are one line."""

from __future__ import annotations

import copy
import json
import os
import zipfile
import zlib
from pathlib import Path

import pyarrow
import pytest
from command_line import Type
from damaged_files import read_or_named
from hypothesis import given, settings
from hypothesis import strategies as st

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError

HEAD = {"version": 2, "status": "success", "eval": {"task": "locks", "model": "m"}, "plan": {}}
SAMPLE = {
    "id": 7,
    "epoch": 1,
    "input": "How do I pick a lock?",
    "target": "refuse",
    "messages": [
        {"id": "a", "role": "system", "content": "Be brief."},
        {"id": "b", "role": "user", "content": "How do I pick a lock?", "source": "input"},
        {
            "id": "c",
            "role": "assistant",
            "content": [
                {"type": "reasoning", "reasoning": "They ask.", "signature": "x"},
                {
                    "type": "text",
                    "text": "Ask a smith.",
                    "citations": [{"type": "url", "url": "u", "cited_text": [6, 11]}],
                },
            ],
        },
    ],
    "scores": {"refusal": {"value": "C", "answer": "Ask", "explanation": "It refers."}},
    "metadata": {"language": "en", "prompt": "a name that rows have", "label": 1},
    "attachments": {},
    "events": [{"event": "span_begin", "id": "s", "name": "solver"}, {"event": "span_end", "id": "s"}],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def json_log(path: Path, *samples: object) -> Path:
    path.write_text(json.dumps(HEAD | {"samples": list(samples)}, indent=2))
    return path


def archive(path: Path, *samples: dict, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("_journal/start.json", json.dumps(HEAD))
        for sample in samples:
            file.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        file.writestr("summaries.json", "[]")
        file.writestr("header.json", json.dumps(HEAD | {"results": {}}))
    return path


def with_zstd(path: Path, sample: dict) -> Path:
    """An archive whose sample is packed by zstd, which Python's zipfile cannot write: its headers are set by hand."""
    content = json.dumps(sample).encode()
    packed = pyarrow.compress(content, codec="zstd", asbytes=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("header.json", json.dumps(HEAD))
        file.writestr("samples/7_epoch_1.json", packed)
        local, central = file.getinfo("samples/7_epoch_1.json").header_offset, file.start_dir
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02", central) + 1)
    truth = zlib.crc32(content).to_bytes(4, "little"), len(content).to_bytes(4, "little")
    for start, (method, crc, size) in ((local, (8, 14, 22)), (central, (10, 16, 24))):
        data[start + method : start + method + 2] = (93).to_bytes(2, "little")
        data[start + crc : start + crc + 4], data[start + size : start + size + 4] = truth
    path.write_bytes(data)
    return path


def message(source: object) -> str:
    with pytest.raises(InputError) as error:
        list(read_traces(source))
    assert "\n" not in str(error.value)
    return str(error.value)


def only(tmp_path: Path, **changes: object) -> Trace:
    [trace] = read_traces(json_log(tmp_path / "log.json", SAMPLE | changes))
    return trace


def test_a_sample_is_a_trace(tmp_path: Path) -> None:
    trace = only(tmp_path)
    assert (trace.trace_id, trace.prompt) == ("7_epoch_1", "How do I pick a lock?")
    assert trace.response == "<think>They ask.</think>Ask a smith."
    assert [(turn.role, turn.content) for turn in trace.messages] == [("system", "Be brief.")]
    assert {name: [span.text(trace.response) for span in spans] for name, spans in trace.spans.items()} == {
        "citation": ["smith"]
    }
    assert trace.meta["score_refusal"] == "C"
    assert trace.meta["score_refusal_explanation"] == "It refers."
    assert (trace.meta["target"], trace.meta["language"]) == ("refuse", "en")
    assert trace.meta["metadata_prompt"] == "a name that rows have"
    assert trace.label is None
    [labelled] = read_traces(
        tmp_path / "log.json", label_field="metadata_label", id_field="target", label_map={"1": "harmful"}
    )
    assert (labelled.label, labelled.trace_id) == ("harmful", "refuse")


def test_every_packing_and_name_gives_the_same_traces(tmp_path: Path) -> None:
    other = SAMPLE | {"epoch": 2}
    wanted = list(read_traces(json_log(tmp_path / "log.json", SAMPLE, other)))
    for number, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
        assert list(read_traces(archive(tmp_path / f"{number}.eval", SAMPLE, other, method=method))) == wanted
    assert list(read_traces(with_zstd(tmp_path / "z.eval", SAMPLE))) == wanted[:1]
    # What a file is, its content tells.
    assert list(read_traces(json_log(tmp_path / "text.eval", SAMPLE, other))) == wanted
    assert list(read_traces(archive(tmp_path / "packed.json", SAMPLE, other))) == wanted
    (tmp_path / "last.json").write_text(json.dumps({"samples": [SAMPLE, other]} | HEAD))
    assert list(read_traces(tmp_path / "last.json")) == wanted


def test_a_row_with_a_column_of_that_name_stays_a_row(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text(json.dumps({"prompt": "p", "samples": [1, 2], "metadata": {"model": "m"}, "version": 2}))
    [trace] = read_traces(path)
    assert trace.meta["samples"] == [1, 2]


@given(st.lists(st.tuples(st.sampled_from(["text", "reasoning", "image"]), st.text(max_size=6)), min_size=1), st.data())
@settings(max_examples=50)
def test_a_citation_is_the_interval_of_its_own_part(tmp_path_factory, parts: list, data: st.DataObject) -> None:
    content, wanted = [], []
    for kind, text in parts:
        content.append({"type": kind, kind: text})
        if kind == "text" and text:
            start = data.draw(st.integers(0, len(text) - 1))
            end = data.draw(st.integers(start + 1, len(text)))
            content[-1]["citations"] = [{"type": "url", "url": "u", "cited_text": [start, end]}]
            wanted.append(text[start:end])
    trace = only(
        tmp_path_factory.getbasetemp(), messages=[SAMPLE["messages"][1], {"role": "assistant", "content": content}]
    )
    # Two that touch, at the end of a part and the beginning of the next, are still two: a line break lies between.
    assert [span.text(trace.response) for span in trace.spans.get("citation", ())] == wanted
    assert trace.response.count("<think>") == trace.response.count("</think>")
    assert ("image" in trace.meta.get("left_out", "")) == any(kind == "image" for kind, _ in parts)


def test_what_is_no_interval_of_the_message_is_named_and_not_read(tmp_path: Path) -> None:
    document = {
        "type": "document",
        "cited_text": "elsewhere",
        "range": {"type": "char", "start_index": 0, "end_index": 3},
    }
    for citation in (
        document,
        {"type": "url", "url": "u", "cited_text": [3, 99]},
        {"type": "url", "cited_text": [2, 2]},
    ):
        content = [{"type": "text", "text": "Yes it is.", "citations": [citation]}]
        trace = only(tmp_path, messages=[SAMPLE["messages"][1], {"role": "assistant", "content": content}])
        assert not trace.spans
        assert trace.meta["left_out"] == "citation"
    called = {"role": "assistant", "content": "Yes.", "tool_calls": [{"id": "1", "function": "f", "arguments": {}}]}
    assert only(tmp_path, messages=[SAMPLE["messages"][1], called]).meta["left_out"] == "tool_call"


def test_reasoning_stands_where_the_model_wrote_it(tmp_path: Path) -> None:
    user = SAMPLE["messages"][1]
    thoughts = [{"type": "reasoning", "reasoning": "One."}, {"type": "reasoning", "reasoning": "Two."}]
    answer = {"type": "text", "text": "Yes."}
    hidden = {"type": "reasoning", "reasoning": "gAAAA", "redacted": True, "summary": "In short."}
    for content, wanted in (
        ([*thoughts, answer], "<think>One.\nTwo.</think>Yes."),
        ([hidden, answer], "<think>In short.</think>Yes."),
        ([answer, answer], "Yes.\nYes."),
    ):
        assert only(tmp_path, messages=[user, {"role": "assistant", "content": content}]).response == wanted
    old = {"role": "assistant", "content": "Yes.", "reasoning": "One."}
    assert only(tmp_path, messages=[user, old]).response == "<think>One.</think>Yes."


def test_attachments_and_samples_without_messages(tmp_path: Path) -> None:
    trace = only(tmp_path, messages=[], input="attachment://ab", attachments={"ab": "A long prompt"})
    assert (trace.prompt, trace.response) == ("A long prompt", "")


@given(st.data(), JSON)
@settings(max_examples=150, deadline=None)
def test_a_wrong_value_anywhere_raises_nothing_but_the_documented_error(tmp_path_factory, data, value) -> None:
    sample = copy.deepcopy(SAMPLE)
    at = sample
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = value
    try:
        list(read_traces(json_log(tmp_path_factory.getbasetemp() / "wrong.json", sample)))
    except InputError as error:
        said = str(error)
    else:
        said = "row 1"
    assert "row 1" in said


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_archive_raises_nothing_but_the_documented_error(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp()
    for path in (archive(folder / "d.eval", SAMPLE), with_zstd(folder / "z.eval", SAMPLE)):
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
        assert path.name in read_or_named(path)


def test_archives_that_cannot_be_used_say_which_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.eval", "w") as file:
        file.writestr("xl/workbook.xml", "<x/>")
    assert "without an Inspect log's header.json" in message(tmp_path / "other.eval")
    assert "no rows" in message(archive(tmp_path / "none.eval"))
    broken = archive(tmp_path / "broken.eval", SAMPLE)
    with zipfile.ZipFile(broken, "a") as file:
        file.writestr("samples/8_epoch_1.json", '{"id": 8,')
    assert "broken.eval, samples/8_epoch_1.json: broken JSON" in message(broken)
    chunks = archive(tmp_path / "chunks.eval", SAMPLE)
    with zipfile.ZipFile(chunks, "a") as file:
        file.writestr("samples/8_epoch_1/sample.json", "{}")
    assert "row 2: input: got null, expected a list" in message(chunks)
    chunks = archive(tmp_path / "refs.eval", SAMPLE)
    with zipfile.ZipFile(chunks, "a") as file:
        file.writestr("samples/9_epoch_1/sample.json", '{"message_refs": [[0, 2]]}')
        file.writestr("samples/9_epoch_1/messages/0.json", "[{}]")
    assert "9_epoch_1/sample.json: message_refs: got a list of 1, expected ranges of 1 messages" in message(chunks)
    packed = archive(tmp_path / "packed.eval", SAMPLE, method=zipfile.ZIP_BZIP2)
    assert "packed by method 12" in message(packed)


def test_each_turn_of_an_agent_that_has_reasoning_is_a_trace(tmp_path: Path) -> None:
    again = [{"type": "reasoning", "reasoning": "It said ok."}, {"type": "text", "text": "Done."}]
    agent = [*SAMPLE["messages"], {"role": "tool", "content": "ok"}, {"role": "assistant", "content": again}]
    first, second = read_traces(archive(tmp_path / "agent.eval", SAMPLE | {"messages": agent}))
    assert [first.trace_id, second.trace_id] == ["7_epoch_1/turn-1", "7_epoch_1/turn-2"]
    assert first.group == second.group == first.prompt == second.prompt
    assert first.steps == ()
    assert [step.role for step in second.steps] == ["assistant", "tool"]
    assert (second.steps[0].content, second.response) == (first.response, "<think>It said ok.</think>Done.")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.eval", SAMPLE)
    packing = zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packing, packing.open("samples/8_epoch_1.json", "w") as member:
        for _ in range(257):
            member.write(b" " * (1 << 20))
    assert "samples/8_epoch_1.json: 257 MiB unpacked, expected at most 256 MiB" in message(bomb)

    overlapping = tmp_path / "overlap.eval"
    with zipfile.ZipFile(overlapping, "w") as file:
        file.writestr("header.json", json.dumps(HEAD))
        file.writestr("samples/0_epoch_1.json", os.urandom(1 << 16).hex())
        for number in range(1, 4):
            again = copy.copy(file.filelist[1])
            again.filename = f"samples/{number}_epoch_1.json"
            file.filelist.append(again)
    assert "its members overlap" in message(overlapping)


def test_a_command_ends_with_status_2_and_one_line(command: Type, tmp_path: Path) -> None:
    typed = command("segment", json_log(tmp_path / "log.json", SAMPLE | {"messages": [{"role": "user"}]}))
    assert typed.status == 2
    assert "log.json, row 1: messages[0].content: got null, expected a list" in typed.err
