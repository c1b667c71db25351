"""Texts of a row: its conversation and the answers to it, from columns, lists of messages and replies of APIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safekey_interp.data.cell_values import json_value, kind_in_words
from safekey_interp.data.column_names import (
    MESSAGES_FIELDS,
    OTHER_PROMPT_FIELDS,
    PROMPT_FIELDS,
    SYSTEM_FIELDS,
    plain_name,
)
from safekey_interp.data.conversation_turns import read_turns
from safekey_interp.data.rendered_chat import read_rendered
from safekey_interp.data.reply_forms import ReplyForm
from safekey_interp.data.row_answers import answered, sampled
from safekey_interp.data.row_cells import Row, RowText, are_messages, messages_in
from safekey_interp.data.turn_text import Turn, read_turn
from safekey_interp.errors import InputError

_REQUESTS = (
    *("request", "body", "params", "input", "inputs", "prompt", "request_body", "input_body_json", "instance", "doc"),
    *("query", "messages", "chat", "vars"),
)
"""Fields of objects that hold what was asked."""
_INNER_PROMPT = (*PROMPT_FIELDS, *OTHER_PROMPT_FIELDS, "raw", "text", "content", "value")
"""Names of a prompt inside such an object."""
_SYSTEM = ("system", "developer")


def read_columns(row: Row, prompt: tuple[str, ...] = PROMPT_FIELDS) -> RowText:
    """Columns of prompt, response and reasoning, and lists of messages.

    Raises:
        InputError: no prompt, or values of another kind.
    """
    asked = _conversation(row, prompt) or _conversation(row, OTHER_PROMPT_FIELDS) or _requested(row)
    if asked is None and (held := _held_conversations(row)):
        return held
    if asked is None:
        names = ", ".join(map(str, row.cells)) or "all empty"
        remedy = "one turn a row: join each conversation's turns in a list" if "role" in row.columns else ""
        raise InputError(f"{row.where}: no prompt; the fields are {names}; {remedy or 'see --prompt-field'}")
    return answered(row, *asked)


def read_attempt(row: Row) -> RowText:
    """An attempt in garak's report: its prompt and outputs; null where no reply came. Conversations repeat them."""
    outputs = json_value(row.get(("outputs",)))
    if not isinstance(outputs, list | tuple):
        raise InputError(f"{row.at('outputs')}: got {kind_in_words(outputs)}, expected a list of outputs")
    outputs = [output for output in outputs if output is not None]
    cells = {"prompt": row.get(("prompt",)), **({"outputs": outputs} if outputs else {})}
    return read_columns(row._replace(cells=cells, columns={name: name for name in cells}, known={}))


def read_chatgpt_export(row: Row) -> RowText:
    """A conversation of ChatGPT's export, a tree of messages: the branch that ends at the current node."""
    column = row.columns["mapping"]
    nodes, at = row.cells[column], row.get(("current_node",))
    branch: list[Any] = []
    while isinstance(node := nodes.get(at), Mapping) and len(branch) <= len(nodes):
        branch.append(node.get("message"))
        at = node.get("parent")
    said = [message for message in reversed(branch) if isinstance(message, Mapping) and _is_said(message)]
    return RowText(read_turns(said, row.at(column)), None, (column,), f"the last user turn of {column}")


def _is_said(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, Mapping) and any((*(content.get("parts") or ()), content.get("thoughts")))


def read_alpaca(row: Row) -> RowText:
    """An instruction, the input that it is about, and the output."""
    instruction, about = row.columns["instruction"], row.columns["input"]
    has_more = bool(row.cells[about].strip())
    prompt = f"{_text(row, instruction)}\n{row.cells[about]}" if has_more else _text(row, instruction)
    system_in, system = _system(row)
    used = (instruction, about, *([system_in] if system_in else []))
    asked_in = f"{instruction} and {about}" if has_more else instruction
    return answered(row, [*system, Turn("user", prompt)], used, asked_in)


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
    while isinstance(given, Mapping | list | tuple) and given and not are_messages(given):
        given = json_value(next(iter(given.values())) if isinstance(given, Mapping) else given[0], ("[{",))
    asked_in = "arguments"
    if not isinstance(given, str | list):
        doc = row.cells[row.columns["doc"]]
        names = {plain_name(name): name for name in doc}
        found = next((names[name] for name in PROMPT_FIELDS if name in names), "")
        given, asked_in = doc.get(found), f"doc.{found}"
    if not isinstance(given, str | list):
        raise InputError(f"{row.where}: no prompt in arguments or doc; expected a sample that lm-eval logged")
    column = row.columns["resps"]
    answers = [turn for each in row.cells[column] for turn in sampled(each, row.at(column))]
    if isinstance(given, list):
        turns = read_turns(given, row.at(asked_in))
    else:
        turns = read_rendered(given, asked_in) or [Turn("user", given)]
    used = tuple(row.columns[name] for name in ("doc", "arguments", "filtered_resps", "resps") if name in row.columns)
    return RowText(turns, answers, used, asked_in, len(answers) > 1)


def _conversation(row: Row, prompt: tuple[str, ...]) -> tuple[list[Turn], tuple[str, ...], str] | None:
    """The conversation up to the answers that stand apart, the columns that it is in, and where its prompt is."""
    in_messages, in_prompt = row.column(MESSAGES_FIELDS), row.column(prompt)
    if in_messages is None and in_prompt is None:
        return None
    if in_messages is not None and isinstance(row.cells[in_messages], Mapping):
        return _requested(row)
    turns = read_turns(row.cells[in_messages], row.at(in_messages)) if in_messages else []
    used = tuple(column for column in (in_messages, in_prompt) if column)
    asked_in = f"the last user turn of {in_messages}"
    if in_prompt is not None:
        value = row.cells[in_prompt]
        listed = messages_in(value)
        if _is_request(value) and (asked := _requested(row)):
            return asked
        if listed is not None:
            turns = [*turns, *read_turns(listed, row.at(in_prompt))]
            asked_in = f"the last user turn of {in_prompt}"
        elif rendered := read_rendered(text := _text(row, in_prompt), in_prompt):
            turns = [*turns, *rendered]
            asked_in = f"the last user turn of the chat template in {in_prompt}"
        else:
            last = next((turn.text for turn in reversed(turns) if turn.role == "user"), None) if turns else None
            turns = turns if last == text else [*turns, Turn("user", text)]
            asked_in = in_prompt
    system_in, system = _system(row)
    if system_in and turns[:1] and turns[0].role not in _SYSTEM:
        turns, used = [*system, *turns], (*used, system_in)
    return turns, used, asked_in


def _held_conversations(row: Row) -> RowText | None:
    """Conversations that columns of any name hold: of several (preferred and rejected, two models), each answer."""
    found: dict[str, list[Turn]] = {}
    for column, value in row.cells.items():
        if (listed := messages_in(value)) is not None:
            found[column] = read_turns(listed, row.at(column))
        elif isinstance(value, str) and (turns := read_rendered(value, column)):
            found[column] = turns
    if not found:
        return None
    first, asked_in = next(iter(found.values())), f"the last user turn of {next(iter(found))}"
    ends = [turns[-1] for turns in found.values() if turns[-1].role == "assistant"]
    if len(found) == 1 or len(ends) < len(found):
        return RowText(first, None, tuple(found)[:1], asked_in)
    return RowText(first[:-1], ends, tuple(found), asked_in, is_listed=True)


def _requested(row: Row) -> tuple[list[Turn], tuple[str, ...], str] | None:
    """The same of an object that the row holds, such as the request of an API."""
    for name in _REQUESTS:
        request = json_value(row.get((name,)), ("{",))
        if isinstance(request, Mapping):
            columns = {plain_name(field): field for field in request}
            cells = {field: value for field, value in request.items() if value is not None}
            columns = {plain: field for plain, field in columns.items() if field in cells}
            at = f"{row.where}: {row.columns[name]}"
            if "instructions" in columns and "input" in columns:  # of OpenAI's responses
                columns["system"] = columns.pop("instructions")
            inner = Row(cells, columns, at, request, {})
            # LightEval's instruction is that of the task.
            prompts = ("query", *_INNER_PROMPT) if name == "doc" else _INNER_PROMPT
            asked = _conversation(inner, prompts) or _requested(inner)
            if asked is not None:
                return asked[0], (row.columns[name],), asked[2]
    return None


def _is_request(value: Any) -> bool:
    """Whether a cell is an object, or holds the messages of one as JSON text."""
    if isinstance(value, str) and value[:1] == "{":
        value = json_value(value, ("{",))
        return isinstance(value, Mapping) and not {"messages", "contents"}.isdisjoint(value)
    return isinstance(value, Mapping)


def _system(row: Row) -> tuple[str, list[Turn]]:
    """The column of a system prompt, a text or parts of one, and its turn; empty where there is none."""
    column = row.column(SYSTEM_FIELDS)
    value = None if column is None else row.cells[column]
    if isinstance(value, list | Mapping) and value:
        parts = value.get("parts", [value]) if isinstance(value, Mapping) else value
        value = read_turn({"role": "system", "content": parts}, row.at(column)).text
    if column is None or not isinstance(value, str) or not value:
        return "", []
    return column, [Turn("system", value)]


def _text(row: Row, column: str) -> str:
    value = row.cells[column]
    if not isinstance(value, str):
        raise InputError(f"{row.at(column)}: got {kind_in_words(value)}, expected text")
    if not value:
        raise InputError(f"{row.at(column)}: got an empty text, expected the user's prompt")
    return value
