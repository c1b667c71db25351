"""Texts of a row: its conversation and the answers to it, from columns, lists of messages and replies of APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import json_value, kind_in_words
from safekey_interp.data.column_names import (
    MESSAGES_FIELDS,
    PROMPT_FIELDS,
    REASONING_FIELDS,
    RESPONSE_FIELDS,
    SYSTEM_FIELDS,
    plain_name,
)
from safekey_interp.data.conversation_turns import read_turns
from safekey_interp.data.reply_forms import ReplyForm, read_replies, whole_reply
from safekey_interp.data.turn_text import ROLE_FIELDS, Turn, with_reasoning
from safekey_interp.errors import InputError

_REQUESTS = ("request", "body", "params", "input")
"""Fields of what was asked of an API."""
_SYSTEM = ("system", "developer")


class Row(NamedTuple):
    """A row's cells, found by what their columns mean."""

    cells: Mapping[str, Any]
    """By column; nothing that is missing."""
    columns: Mapping[str, str]
    """Columns by their plain names (:func:`~safekey_interp.data.column_names.plain_name`)."""
    where: str
    """How messages name it."""
    given: Mapping[str, Any]
    """All of its cells."""
    known: dict[tuple[str, ...], str | None]
    """Columns by the names that were asked for; rows of the same columns share it."""

    def column(self, names: tuple[str, ...]) -> str | None:
        """The column that has the first of some plain names; None for none."""
        if names not in self.known:
            self.known[names] = next((self.columns[name] for name in names if name in self.columns), None)
        return self.known[names]

    def get(self, names: tuple[str, ...]) -> Any:
        """The cell of that column; None for none."""
        column = self.column(names)
        return None if column is None else self.cells[column]

    def at(self, column: str | None) -> str:
        """How messages name a cell."""
        return f"{self.where}: {column}"


class RowText(NamedTuple):
    """What a row says, as turns."""

    turns: Sequence[Turn]
    """The conversation, from its first turn."""
    answers: Sequence[Turn] | None
    """Each answers the whole conversation; None: it holds its answers."""
    used: tuple[str, ...]
    """Columns that were read."""
    asked_in: str
    """Where the prompt was."""
    is_listed: bool = False
    """Whether the answers stood in a list, so that each has a number, be it alone."""


def read_columns(row: Row, prompt: tuple[str, ...] = PROMPT_FIELDS) -> RowText:
    """Columns of prompt, response and reasoning, and lists of messages.

    Raises:
        InputError: no prompt, or values of another kind.
    """
    asked = _conversation(row, prompt)
    if asked is None:
        names = ", ".join(map(str, row.cells)) or "all empty"
        raise InputError(f"{row.where}: no prompt; the fields are {names}; see --prompt-field")
    return _answered(row, *asked)


def read_alpaca(row: Row) -> RowText:
    """An instruction, the input that it is about, and the output."""
    instruction, about = row.columns["instruction"], row.columns["input"]
    prompt = f"{_text(row, instruction)}\n{row.cells[about]}"
    system_in = _system_column(row)
    system = [Turn("system", row.cells[system_in])] if system_in else []
    used = (instruction, about, *([system_in] if system_in else []))
    return _answered(row, [*system, Turn("user", prompt)], used, f"{instruction} and {about}")


def read_reply(form: ReplyForm, row: Row) -> RowText:
    """A reply of an API, with what was asked beside it.

    Raises:
        InputError: what was asked is nowhere in the row.
    """
    answers = form.read(row.cells, row.where)
    asked = _conversation(row, PROMPT_FIELDS) or _requested(row)
    if asked is None:
        raise InputError(
            f"{row.where}: a {form.name} without the prompt that it answers; expected it in a column beside it "
            "(messages, request, prompt); of a batch, name the file of requests before it"
        )
    turns, used, asked_in = asked
    return RowText(turns, answers, (*used, form.field), asked_in, len(answers) > 1)


def read_request(row: Row) -> RowText:
    """A request of a batch, without an answer."""
    asked = _requested(row)
    if asked is None:
        raise InputError(f"{row.at('body')}: got no messages, expected a request of an API")
    turns, used, asked_in = asked
    return RowText(turns, None, used, asked_in)


def read_lm_eval(row: Row) -> RowText:
    """A sample that lm-evaluation-harness logged: the prompt as it was given to the model, and its responses."""
    given: Any = json_value(row.get(("arguments",)), ("[", "{"))
    while isinstance(given, Mapping | list | tuple) and given and not _is_messages(given):
        given = next(iter(given.values())) if isinstance(given, Mapping) else given[0]
    asked_in = "arguments"
    if not isinstance(given, str | list):
        doc = row.cells[row.columns["doc"]]
        names = {plain_name(name): name for name in doc}
        found = next((names[name] for name in PROMPT_FIELDS if name in names), "")
        given, asked_in = doc.get(found), f"doc.{found}"
    if not isinstance(given, str | list):
        raise InputError(f"{row.where}: no prompt in arguments or doc; expected a sample that lm-eval logged")
    column = row.columns["resps"]
    answers = [turn for each in row.cells[column] for turn in _sampled(each, row.at(column))]
    turns = read_turns(given, row.at(asked_in)) if isinstance(given, list) else [Turn("user", given)]
    used = tuple(row.columns[name] for name in ("doc", "arguments", "resps", "filtered_resps") if name in row.columns)
    return RowText(turns, answers, used, asked_in, len(answers) > 1)


def _conversation(row: Row, prompt: tuple[str, ...]) -> tuple[list[Turn], tuple[str, ...], str] | None:
    """The conversation up to the answers that stand apart, the columns that it is in, and where its prompt is."""
    in_messages, in_prompt = row.column(MESSAGES_FIELDS), row.column(prompt)
    if in_messages is None and in_prompt is None:
        return None
    system_in = _system_column(row)
    turns = read_turns(row.cells[in_messages], row.at(in_messages)) if in_messages else []
    used = tuple(column for column in (in_messages, in_prompt) if column)
    asked_in = f"the last user turn of {in_messages}"
    if in_prompt is not None:
        value = row.cells[in_prompt]
        listed = _messages(value)
        if listed is not None:
            turns = [*turns, *read_turns(listed, row.at(in_prompt))]
            asked_in = f"the last user turn of {in_prompt}"
        else:
            text = _text(row, in_prompt)
            last = next((turn.text for turn in reversed(turns) if turn.role == "user"), None) if turns else None
            turns = turns if last == text else [*turns, Turn("user", text)]
            asked_in = in_prompt
    if system_in and turns[:1] and turns[0].role not in _SYSTEM:
        turns, used = [Turn("system", row.cells[system_in]), *turns], (*used, system_in)
    return turns, used, asked_in


def _requested(row: Row) -> tuple[list[Turn], tuple[str, ...], str] | None:
    """The same of a request of an API that the row holds."""
    for name in _REQUESTS:
        request = json_value(row.get((name,)), ("{",))
        if isinstance(request, Mapping):
            columns = {plain_name(field): field for field in request}
            cells = {field: value for field, value in request.items() if value is not None}
            columns = {plain: field for plain, field in columns.items() if field in cells}
            at = f"{row.where}: {row.columns[name]}"
            inner = Row(cells, columns, at, request, {})
            asked = _conversation(inner, PROMPT_FIELDS) or _requested(inner)
            if asked is not None:
                return asked[0], (row.columns[name],), asked[2]
    return None


def _answered(row: Row, turns: list[Turn], used: tuple[str, ...], asked_in: str) -> RowText:
    """The conversation with its answers; one that holds its own with reasoning needs no column that has none."""
    column, thought_in = row.column(RESPONSE_FIELDS), row.column(REASONING_FIELDS)
    column = None if column in used else column  # the prompt is in it
    answers, is_listed = None, False
    if column is not None:
        turns, answers, is_listed = _answers(row, column, turns)
    elif thought_in is not None and any(plain_name(name) in RESPONSE_FIELDS for name in row.given):
        answers = [Turn("assistant", "")]  # cut in its reasoning
    if thought_in is not None:
        told = turns, answers
        turns, answers = _with_thought(turns, answers, row.cells[thought_in], thought_in)
        used = used if told == (turns, answers) else (*used, thought_in)
    held = turns[-1] if turns and turns[-1].role == "assistant" else None
    if answers and held and held.has_reasoning and not any(answer.has_reasoning for answer in answers):
        return RowText(turns, None, used, asked_in)
    return RowText(turns, answers, used if column is None else (*used, column), asked_in, is_listed)


def _answers(row: Row, column: str, turns: list[Turn]) -> tuple[list[Turn], list[Turn] | None, bool]:
    """The conversation and the answers of a column, which may go on with the conversation, or repeat it."""
    value = row.cells[column]
    if isinstance(value, str) and value[:1] not in ("[", "{"):
        return turns, [Turn("assistant", value, read_from=("", column))], False
    listed = _messages(value)
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
    return [turn for number, item in enumerate(value) for turn in _sampled(item, f"{at}[{number}]", column)], True


def _sampled(item: Any, where: str, column: str = "") -> list[Turn]:
    """The answers in one item of a list."""
    if isinstance(item, str):
        return [Turn("assistant", item, read_from=("", column))]
    if _is_messages(item):
        return read_turns(item, where)[-1:]
    if isinstance(item, list | tuple) and item:
        return [turn for each in item for turn in _sampled(each, where, column)]
    return read_replies(item, where)


def _are_samples(turns: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether messages are answers side by side, not one after the other."""
    roles = {turn.get(name) for turn in turns for name in ROLE_FIELDS if name in turn}
    return plain_name(column).endswith("s") or (len(turns) > 1 and roles <= {"assistant", "model", "gpt"})


def _messages(value: Any) -> Sequence[Any] | None:
    """A cell as a list of messages; None where it is none."""
    parsed = json_value(value) if isinstance(value, str) and value[:1] == "[" else value
    return parsed if _is_messages(parsed) else None


def _is_messages(value: Any) -> bool:
    first = value[0] if isinstance(value, list | tuple) and len(value) else None
    return isinstance(first, Mapping) and any(name in first for name in ROLE_FIELDS)


def _system_column(row: Row) -> str | None:
    column = row.column(SYSTEM_FIELDS)
    return column if column is not None and isinstance(row.cells[column], str) and row.cells[column] else None


def _text(row: Row, column: str) -> str:
    value = row.cells[column]
    if not isinstance(value, str):
        raise InputError(f"{row.at(column)}: got {kind_in_words(value)}, expected text")
    if not value:
        raise InputError(f"{row.at(column)}: got an empty text, expected the user's prompt")
    return value
