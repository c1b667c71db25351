"""Answers of a row: columns of responses and of reasoning, lists of samples, replies of APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safekey_interp.data.cell_values import json_value
from safekey_interp.data.column_names import REASONING_FIELDS, RESPONSE_FIELDS, plain_name
from safekey_interp.data.conversation_turns import read_turns
from safekey_interp.data.likely_columns import likely_answers, likely_reasoning
from safekey_interp.data.reasoning_marks import is_marked
from safekey_interp.data.reply_forms import read_replies, whole_reply
from safekey_interp.data.row_cells import Row, RowText, are_messages, messages_in
from safekey_interp.data.turn_text import ROLE_FIELDS, Turn, with_reasoning
from safekey_interp.errors import InputError


def answered(row: Row, turns: list[Turn], used: tuple[str, ...], asked_in: str) -> RowText:
    """The conversation with its answers; one that holds its own with reasoning needs no column that has none."""
    column, thought_in = row.column(RESPONSE_FIELDS), row.column(REASONING_FIELDS)
    column = None if column in used else column  # the prompt is in it
    held = turns[-1] if turns and turns[-1].role == "assistant" else None
    columns = (column,) if column else ()
    told = row.cells[column] if column else held.text if held else ""
    if row.guesses and not (isinstance(told, str) and is_marked(told)):  # else it has all that there is
        thought_in = thought_in or likely_reasoning(row.cells, (*used, *columns))
        columns = _answer_columns(row, column, thought_in, (*used, *([thought_in] if thought_in else [])), held)
    answers, is_listed = None, False
    for one in columns:
        turns, more, is_listed = _answers(row, one, turns)
        answers = more if answers is None else [*answers, *(more or [])]
    is_listed = is_listed or len(columns) > 1
    if not columns and thought_in is not None and any(plain_name(name) in RESPONSE_FIELDS for name in row.given):
        answers = [Turn("assistant", "")]  # cut in its reasoning
    if thought_in is not None:
        before = turns, answers
        turns, answers = _with_thought(turns, answers, row.cells[thought_in], thought_in)
        used = used if before == (turns, answers) else (*used, thought_in)
    held = turns[-1] if turns and turns[-1].role == "assistant" else None
    if answers and held and held.has_reasoning and not any(answer.has_reasoning for answer in answers):
        return RowText(turns, None, used, asked_in)
    return RowText(turns, answers, (*used, *columns), asked_in, is_listed)


def _answer_columns(
    row: Row, column: str | None, thought_in: str | None, used: tuple[str, ...], held: Turn | None
) -> tuple[str, ...]:
    """The columns of the answers: that of a usual name, which lacks reasoning, unless another has it."""
    if column is None:
        return () if held else likely_answers(row.cells, used)
    text = row.cells[column]
    if thought_in is None and isinstance(text, str) and text[:1] not in ("[", "{"):
        return likely_answers(row.cells, (*used, column), marked_from_start=True) or (column,)
    return (column,)


def _answers(row: Row, column: str, turns: list[Turn]) -> tuple[list[Turn], list[Turn] | None, bool]:
    """The conversation and the answers of a column, which may go on with the conversation, or repeat it."""
    value = row.cells[column]
    if isinstance(value, str) and value[:1] not in ("[", "{"):
        return turns, [Turn("assistant", value, read_from=("", column))], False
    listed = messages_in(value)
    if listed is None or _are_samples(listed, column):
        return turns, *_sampled_in(row, column)
    more = read_turns(listed, row.at(column))
    repeats = [turn.text for turn in more if turn.role == "user"][-1:] == [turns[-1].text]
    return (more if repeats else [*turns, *more]), None, False


def _with_thought(
    turns: list[Turn], answers: list[Turn] | None, thought: Any, column: str
) -> tuple[list[Turn], list[Turn] | None]:
    """The same with the reasoning of a column: of each answer, or of the turn with which the conversation ends."""
    if answers is None:
        is_held = bool(turns) and turns[-1].role == "assistant"
        return ([*turns[:-1], with_reasoning(turns[-1], thought, column)] if is_held else turns), None
    thoughts = json_value(thought)
    if not isinstance(thoughts, list | tuple) or len(thoughts) != len(answers):
        thoughts = [thought] * len(answers)
    return turns, [with_reasoning(turn, one, column) for turn, one in zip(answers, thoughts, strict=True)]


def _sampled_in(row: Row, column: str) -> tuple[list[Turn], bool]:
    value, at = row.cells[column], row.at(column)
    if isinstance(value, str):
        plural = column.endswith("s")
        parsed = json_value(value, ("[",) if plural else ())
        if isinstance(parsed, list) and parsed and all(isinstance(item, str) for item in parsed):
            value = parsed  # as a cell of CSV holds a list
        elif (reply := whole_reply(value)) is not None:
            value = reply
        else:
            return [Turn("assistant", value, read_from=("", column))], False
    if not isinstance(value, list | tuple):
        answers = read_replies(value, at)
        return answers, len(answers) > 1
    if not value:
        raise InputError(f"{at}: got an empty list, expected a text or a list of texts")
    return [turn for number, item in enumerate(value) for turn in sampled(item, f"{at}[{number}]", column)], True


def sampled(item: Any, where: str, column: str = "") -> list[Turn]:
    """The answers in one item of a list."""
    if isinstance(item, str):
        return [Turn("assistant", item, read_from=("", column))]
    if are_messages(item):
        return read_turns(item, where)[-1:]
    if isinstance(item, list | tuple) and item:
        return [turn for each in item for turn in sampled(each, where, column)]
    return read_replies(item, where)


def _are_samples(turns: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether messages are answers side by side, not one after the other."""
    roles = {turn.get(name) for turn in turns for name in ROLE_FIELDS if name in turn}
    return plain_name(column).endswith("s") or (len(turns) > 1 and roles <= {"assistant", "model", "gpt"})
