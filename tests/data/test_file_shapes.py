"""The same twenty traces come out of every shape of file; a wrong file is one line that says where, and what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import Type
from file_shapes import traces
from tool_shapes import SHAPES

from safekey_interp.data.trace_reader import read_traces
from safekey_interp.segmentation.reasoning_span import answer_span, reasoning_region
from safekey_interp.segmentation.segmenter import segment

TOLD = traces()


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_holds_the_same_traces(name: str, tmp_path: Path) -> None:
    if name == "hub_data_set":
        pytest.importorskip("datasets")
    read = list(read_traces(SHAPES[name](tmp_path, TOLD)))
    assert [trace.prompt for trace in read] == [told.prompt for told in TOLD]
    assert [trace.label for trace in read] == [told.label for told in TOLD]
    for trace, told in zip(read, TOLD, strict=True):
        region, answer = reasoning_region(trace.response), answer_span(trace.response)
        assert (region.region, region.span.text(trace.response)) == ("reasoning", told.reasoning)
        assert answer is not None
        assert answer.text(trace.response) == told.answer
        expected, found = segment(told.tagged), segment(trace)
        assert found.understanding_text == expected.understanding_text
        assert found.key_sentence_text == expected.key_sentence_text
        assert expected.key_sentence_text


REPLY = {"choices": [{"message": {"content": "No."}}]}
WRONG_ROWS = {
    "a reply without its prompt": ({"custom_id": "1", "response": {"body": REPLY}}, "without the prompt"),
    "no prompt": ({"text": "x", "kind": 1}, "no prompt; the fields are text, kind; see --prompt-field"),
    "the assistant alone": ({"messages": [{"role": "assistant", "content": "x"}]}, "got no turn of the user among 1"),
    "a turn without content": ({"messages": [{"role": "user"}]}, r"messages\[0\]: got the fields role, expected role"),
    "a turn of a number": ({"conversations": [{"from": "human", "value": 5}]}, "got the number 5"),
    "no answers": ({"prompt": "x", "responses": []}, "got an empty list"),
    "an answer of a number": ({"prompt": "x", "choices": [5]}, r"choices\[0\]: got the number 5"),
    "unknown polarity": ({"prompt": "x", "is_safe": "perhaps"}, "got the values 'perhaps'.*--label-map"),
    "another document": ({"version": 2, "eval": {"task": "t"}, "samples": []}, "no prompt"),
}
WRONG = {
    **{name: ("a.jsonl", json.dumps(row), said) for name, (row, said) in WRONG_ROWS.items()},
    "broken JSON": ("a.jsonl", '{"prompt": "a", "response"', r"line 1: broken JSON: .* at the end \(26 characters\)"),
    "rows of unequal length": ("a.csv", "prompt,response\na,b,c\n", "got 3 cells, expected 2"),
    "blank lines before the header": ("a.csv", "\n\nprompt,response\na,b,c\n", "line 4: got 3 cells"),
    "a packed file that is none": ("a.jsonl.zst", "no zstd", "cannot be read"),
    "a file of Arrow that is none": ("a.arrow", "no arrow", "broken Arrow"),
    "an unknown kind of file": ("a.docx", "x", "not a known kind of file"),
    "a log without samples": ("a.json", '{"version": 2, "eval": {"task": "t"}, "samples": []}', "no rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_line_and_status_2(name: str, tmp_path: Path, command: Type) -> None:
    file, content, said = WRONG[name]
    (tmp_path / file).write_text(content)
    typed = command("segment", tmp_path / file, "--out", tmp_path / "out.jsonl")
    assert typed.status == 2
    assert re.search(said, typed.err), typed.err
    assert file in typed.err
    assert len(typed.err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_line_says_what_was_read_as_what_and_what_was_left(tmp_path: Path, command: Type) -> None:
    path = SHAPES["DeepSeek and vLLM messages"](tmp_path, TOLD)
    rows = [json.loads(line) | {"note": 1, "model": "m"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = (
        f"20 traces of {path} read as messages: prompt from the last user turn of messages, reasoning from "
        "reasoning_content, answer from content, label from label; 2 columns left: note, model"
    )
    source = read_traces(path).check()
    assert source.notes == [expected] == source.record()["read_as"]
    typed = command("segment", path, "--out", tmp_path / "out.jsonl")
    assert "".join(typed.err.split()) == "".join(expected.split())  # a long path is wrapped
    assert typed.status == 0


def test_a_switch_is_no_reasoning() -> None:
    told = TOLD[0]
    [trace] = read_traces([{"prompt": told.prompt, "reasoning": "off", "response": told.answer}])
    assert trace.response == told.answer


def test_a_desired_completion_is_no_label() -> None:
    """TRL's rows of KTO."""
    turn = {"role": "assistant", "content": TOLD[0].tagged}
    [trace] = read_traces([{"prompt": [{"role": "user", "content": "How?"}], "completion": [turn], "label": True}])
    assert (trace.label, trace.meta) == (None, {"label": True})
    [trace] = read_traces([{"prompt": "How?", "completion": [turn], "is_safe": True}])
    assert trace.label == "benign"


@pytest.mark.parametrize(
    "request_of",
    [
        {"input": "How?", "instructions": "Be good."},
        {"system": [{"type": "text", "text": "Be good."}], "messages": [{"role": "user", "content": "How?"}]},
        {
            "systemInstruction": {"parts": [{"text": "Be good."}]},
            "contents": [{"role": "user", "parts": [{"text": "How?"}]}],
        },
    ],
)
def test_a_system_prompt_of_a_request_is_kept(request_of: dict) -> None:
    [trace] = read_traces([{"request": request_of, "response": {"choices": [{"message": {"content": "No."}}]}}])
    assert trace.prompt == "How?"
    assert [(message.role, message.content) for message in trace.messages] == [("system", "Be good.")]


def test_the_line_names_the_column_of_an_answer_inside_an_object(tmp_path: Path) -> None:
    source = read_traces(SHAPES["promptfoo"](tmp_path, TOLD)).check()
    assert "response from response" in source.notes[0]


def test_reasoning_in_its_text_and_apart_is_there_once() -> None:
    told = TOLD[0]
    message = {"role": "assistant", "content": told.tagged, "reasoning_content": told.reasoning}
    [trace] = read_traces([{"messages": [{"role": "user", "content": told.prompt}, message]}])
    assert trace.response == told.tagged


def test_what_was_cut_in_its_reasoning_stays_open() -> None:
    cut = {"finish_reason": "length", "message": {"content": None, "reasoning_content": "Hmm, wait"}}
    whole = {"finish_reason": "stop", "message": {"content": "No.", "reasoning_content": "Hmm, wait"}}
    first, second = read_traces([{"prompt": "p", "choices": [cut, whole]}])
    assert (first.response, second.response) == ("<think>\nHmm, wait", "<think>\nHmm, wait\n</think>\n\nNo.")
    assert [first.trace_id, second.trace_id] == ["0.0", "0.1"]
    [column] = read_traces([{"prompt": "p", "reasoning": "Hmm, wait", "response": None}])
    assert column.response == "<think>\nHmm, wait\n</think>"


def test_white_space_of_the_reasoning_is_kept_where_the_api_gives_it() -> None:
    message = {"content": "\n\nNo.", "reasoning_content": "\nHmm\n"}
    [trace] = read_traces([{"prompt": "p", "choices": [{"message": message}]}])
    assert trace.response == "<think>\nHmm\n</think>\n\nNo."


def test_spans_of_an_answer_move_behind_its_reasoning() -> None:
    row = {"prompt": "p", "reasoning": "Hmm.", "response": "No, I won't.", "spans": {"refusal": [[0, 3]]}}
    [trace] = read_traces([row])
    assert [span.text(trace.response) for span in trace.spans["refusal"]] == ["No,"]


def test_each_answer_with_reasoning_is_a_trace_and_an_open_turn_is_a_prompt() -> None:
    user, plain = {"role": "user", "content": "u"}, {"role": "assistant", "content": "plain"}
    thinking = {"role": "assistant", "content": "a", "reasoning_content": "Hmm."}
    later = {"role": "user", "content": "v"}
    first, second = read_traces([{"id": "c", "messages": [user, thinking, later, thinking]}])
    assert [first.trace_id, second.trace_id] == ["c/turn-1", "c/turn-2"]
    assert [first.prompt, second.prompt] == ["u", "v"]
    assert first.group == second.group == "u"
    assert [turn.content for turn in second.messages] == ["u", first.response]
    [alone] = read_traces([{"id": "c", "messages": [user, plain, later, thinking]}])
    assert (alone.trace_id, alone.prompt) == ("c", "v")
    [last] = read_traces([{"id": "c", "messages": [user, plain, later, plain]}])
    assert (last.trace_id, last.prompt, last.response) == ("c", "v", "plain")
    answered, waiting = read_traces([{"id": "c", "messages": [user, thinking, later]}])
    assert (answered.trace_id, waiting.trace_id, waiting.response) == ("c/turn-1", "c/turn-2", "")


def test_an_answer_with_reasoning_in_the_conversation_is_read_before_one_without() -> None:
    told = TOLD[0]
    messages = [{"role": "user", "content": told.prompt}, {"role": "assistant", "content": told.tagged}]
    [trace] = read_traces([{"problem": told.prompt, "answer": "4", "messages": messages}])
    assert (trace.prompt, trace.response, dict(trace.meta)) == (told.prompt, told.tagged, {"answer": "4"})
    [plain] = read_traces([{"problem": told.prompt, "answer": told.tagged, "messages": messages[:1]}])
    assert plain.response == told.tagged


def test_a_response_that_repeats_the_conversation_is_the_conversation() -> None:
    messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    [trace] = read_traces([{"prompt": "u", "generated_text": messages}])
    assert (trace.prompt, trace.response, trace.messages) == ("u", "a", ())


def test_steps_are_kept_with_the_trace_and_in_its_record(tmp_path: Path) -> None:
    tool, call = {"role": "tool", "content": "t"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}
    answer = {"role": "assistant", "content": "a", "reasoning_content": "Hmm."}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "u"}, call, tool, answer]}))
    source = read_traces(path)
    [trace] = source
    assert [(step.role, step.content) for step in trace.steps] == [("assistant", ""), ("tool", "t")]
    assert trace.meta["left_out"] == "tool_call"
    assert list(source.check()) == [trace]
    assert source.content.sha256 != read_traces([trace.with_(steps=())]).content.sha256


def read(row: dict, tmp_path: Path) -> list[tuple[str, str]]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return [(trace.prompt, trace.response) for trace in read_traces(path)]


@pytest.mark.parametrize(
    "left",
    [
        {"expected_answer": "7"},
        {"target": "Sure, here is"},
        {"reference_response": "S"},
        {"gold_answer": "7", "n_response": 3},
        {"is_response": True},
        {"model_response_length": 12},
        {"score_refusal_answer": "C"},
        {"a_response": "one", "other_completion": "two"},  # neither is the better name
        {"samples": [1, 2]},
        {"note": "A text about the prompt."},
    ],
    ids=str,
)
def test_a_column_that_may_be_something_else_is_no_response(left: dict, tmp_path: Path) -> None:
    assert read({"prompt": "What?", **left}, tmp_path) == [("What?", "")]


def test_a_response_without_reasoning_is_read_where_no_column_has_it(tmp_path: Path) -> None:
    assert read({"prompt": "What?", "response": "This.", "raw": "no marks"}, tmp_path) == [("What?", "This.")]


def test_the_column_that_the_user_names_is_the_response(tmp_path: Path) -> None:
    row = {"prompt": "What?", "short": "This.", "raw": "<think>\nHm.\n</think>\n\nThis."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (trace,) = read_traces(tmp_path / "rows.jsonl", response_field="short")
    assert trace.response == "This."
    assert read(row, tmp_path) == [("What?", row["raw"])]


def test_numbered_columns_are_answers_to_one_prompt(tmp_path: Path) -> None:
    row = {"prompt": "What?", "response_0": "This.", "response_1": "That.", "better_response_id": 1}
    assert read(row, tmp_path) == [("What?", "This."), ("What?", "That.")]
    row = {"conversation_a": [USER, {"role": "assistant", "content": "This."}], "conversation_b": [USER, SAID]}
    assert read(row, tmp_path) == [("What?", "This."), ("What?", "That.")]


def test_objects_of_one_row_are_no_columns_of_a_table(tmp_path: Path) -> None:
    row = {"prompt": {"raw": "What?", "label": "plain"}, "response": {"output": "That.", "cached": "no"}}
    (tmp_path / "one.json").write_text(json.dumps(row))
    assert [(trace.prompt, trace.response) for trace in read_traces(tmp_path / "one.json")] == [("What?", "That.")]


USER, SAID = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}


@pytest.mark.parametrize("text", ["<b>bold</b> What?", "[INST", "Human nature: what?", "<|im_start|>", " What?"])
def test_a_prompt_that_is_no_rendered_conversation_stays_as_it_is(text: str, tmp_path: Path) -> None:
    assert read({"prompt": text, "response": "That."}, tmp_path) == [(text, "That.")]
