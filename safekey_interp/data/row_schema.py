"""Schema of raw rows: from columns to traces, with prompt, response, label and spans.

The usual column names are recognised alone. A label is a word of the data's own; the usual words for harm are read as
``harmful`` and ``benign`` (:data:`LABELS`). So are conversations recognised, and three layouts by their columns:

- SafeKey's training rows (``question, response, source, summary_end_idx, next_sentence_end_idx``). Its trainer cuts U
  as ``[0, summary_end_idx)`` and K as ``[summary_end_idx, next_sentence_end_idx)``; here U starts after ``<think>``,
  and white space at the ends is no part of a span. A row is benign when its source is ``4o_rewrite``, else harmful.
- STAR-1's rows (``question, response, category, source, score``): harmful, by the same exception.
- SafeKey's result rows (``instruction, prompt, response: [...]``): one trace a response. ``prompt`` is the rendered
  chat template there, so the user's text is ``instruction``.

Named spans: columns ``spans`` and ``prompt_spans``, ``spans`` of a message (:mod:`safekey_interp.data.row_spans`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import identifier, json_value, kind_in_words, whole_number
from safekey_interp.data.row_spans import GIVEN_SPANS, SPANS_COLUMNS, Intervals, given_spans, read_spans, refuse_names
from safekey_interp.data.safekey_offsets import spans_from_offsets
from safekey_interp.data.trace import CharSpan, Message, Trace
from safekey_interp.errors import InputError

PROMPT_FIELDS = ("prompt", "question", "instruction")
RESPONSE_FIELDS = ("response", "completion", "output", "answer")
MESSAGES_FIELDS = ("messages", "conversation", "conversations")
LABELS: Mapping[str, str] = {
    "harmful": "harmful", "unsafe": "harmful", "1": "harmful", "true": "harmful",
    "benign": "benign", "safe": "benign", "0": "benign", "false": "benign",
}  # fmt: skip

_OFFSETS = ("summary_end_idx", "next_sentence_end_idx")
_STAR1 = frozenset(("question", "response", "category", "source", "score"))


class NamedFields(NamedTuple):
    """The columns that the user named; None: the usual names."""

    prompt: str | None = None
    response: str | None = None
    label: str | None = None
    group: str | None = None
    id: str | None = None


def read_row(row: Any, where: str, row_id: str, named: NamedFields) -> list[Trace]:
    """The traces that a row describes: one, or one for each response when there is a list of them.

    Args:
        row: a mapping from column to value; None and NaN count as missing.
        where: how messages name the row.
        row_id: the trace's id when the row has none.
        named: columns that the user named.

    Raises:
        InputError: for a row that has no prompt, or a value of a wrong type.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: got {kind_in_words(row)}, expected an object with a prompt")
    cells = {
        field: value
        for field, value in row.items()
        if value is not None and not (type(value) is float and math.isnan(value))
    }
    columns = _columns(tuple(cells), named)
    responses = _responses(cells, columns.response, where)
    if isinstance(responses, list) and "instruction" in cells and columns.prompt == "prompt" and not named.prompt:
        others = (field for field in columns.meta if field != "instruction")
        columns = columns._replace(prompt="instruction", meta=(*others, "prompt"))
    talk = _conversation(cells, columns, where, named)
    spans, prompt_spans = (read_spans(cells.get(column), f"{where}: {column}") for column in SPANS_COLUMNS)
    if spans and isinstance(responses, list) and len(responses) > 1:
        raise InputError(f"{where}: spans: the row has {len(responses)} responses, expected one beside its spans")
    trace_id = identifier(cells[columns.id], f"{where}: {columns.id}") if columns.id else ""
    trace_id = trace_id or row_id
    label = _label(row, cells, columns, where, named)
    group = identifier(cells[columns.group], f"{where}: {columns.group}") if columns.group else ""
    source = cells.get("source")
    in_spans = [column for column, read in zip(SPANS_COLUMNS, (spans, prompt_spans), strict=True) if read is not None]
    meta = {field: cells[field] for field in columns.meta if field not in in_spans}
    named_spans, of_prompt = {**talk.spans, **(spans or {})}, {**talk.prompt_spans, **(prompt_spans or {})}
    refuse_names(of_prompt, f"{where}: prompt_spans")
    if source is not None and not isinstance(source, str):
        meta["source"], source = source, None

    def trace(response: str, number: int | None) -> Trace:
        given = _given(cells | given_spans(named_spans, where), response, where)
        return Trace(
            trace_id=trace_id if number is None else f"{trace_id}.{number}",
            prompt=talk.prompt,
            response=response,
            label=label,
            source=source or None,
            group=group,
            messages=talk.messages,
            given=given,
            meta={field: value for field, value in meta.items() if field not in given},
            spans={name: intervals for name, intervals in named_spans.items() if name not in GIVEN_SPANS},
            prompt_spans=of_prompt,
        )

    if isinstance(responses, list):
        return [trace(response, number) for number, response in enumerate(responses)]
    return [trace(talk.answered if responses is None else responses, None)]


class _Columns(NamedTuple):
    prompt: str | None
    response: str | None
    label: str | None
    group: str | None
    id: str | None
    messages: str | None
    meta: tuple[str, ...]


@lru_cache(maxsize=1024)
def _columns(names: tuple[str, ...], named: NamedFields) -> _Columns:
    def column(by_user: str | None, *usual: str) -> str | None:
        return next((name for name in ((by_user,) if by_user else usual) if name in names), None)

    columns = (
        column(named.prompt, *PROMPT_FIELDS),
        column(named.response, *RESPONSE_FIELDS),
        column(named.label, "label"),
        column(named.group, "group"),
        column(named.id, "trace_id", "id"),
        column(None, *MESSAGES_FIELDS),
    )
    used = {*columns, "source", *(_OFFSETS if set(_OFFSETS) <= set(names) else ())}
    return _Columns(*columns, meta=tuple(name for name in names if name not in used))


class _Turn(NamedTuple):
    role: str
    content: str
    spans: dict[str, Intervals]


class _Conversation(NamedTuple):
    prompt: str
    messages: tuple[Message, ...]
    """Before the prompt."""
    answered: str = ""
    """The assistant's turn after it; empty if there is none."""
    prompt_spans: Mapping[str, Intervals] = {}
    spans: Mapping[str, Intervals] = {}


def _conversation(cells: Mapping[str, Any], columns: _Columns, where: str, named: NamedFields) -> _Conversation:
    turns: tuple[_Turn, ...] = ()
    at = f"{where}: {columns.messages}"
    if columns.messages:
        turns = _turns(cells[columns.messages], at)
    users = [number for number, turn in enumerate(turns) if turn.role == "user"]
    after = turns[users[-1] + 1 :] if users else ()
    whole = bool(users) and [turn.role for turn in after] in ([], ["assistant"])
    if columns.prompt:
        prompt = _text(cells[columns.prompt], f"{where}: {columns.prompt}")
        if not prompt:
            raise InputError(f"{where}: {columns.prompt}: got an empty text, expected the user's prompt")
        if not (whole and turns[users[-1]].content == prompt):
            # The conversation is what came before the prompt.
            return _Conversation(prompt, _messages(turns, at))
    elif named.prompt or not columns.messages:
        what = f"no {named.prompt!r}" if named.prompt else "no prompt"
        raise InputError(f"{where}: {what}; the fields are {', '.join(cells) or 'all empty'}; see --prompt-field")
    elif not users:
        raise InputError(f"{at}: got no turn of the user among {len(turns)}, expected one at least")
    elif not whole:
        roles = ", ".join(turn.role for turn in after)
        raise InputError(f"{at}: got {roles} after the last user turn, expected one assistant turn at most")
    last, answer = turns[users[-1]], after[0] if after else _Turn("assistant", "", {})
    return _Conversation(last.content, _messages(turns[: users[-1]], at), answer.content, last.spans, answer.spans)


def _messages(turns: Sequence[_Turn], where: str) -> tuple[Message, ...]:
    for number, turn in enumerate(turns):
        refuse_names(turn.spans, f"{where}[{number}].spans")
    return tuple(Message(role=turn.role, content=turn.content, spans=turn.spans) for turn in turns)


def _turns(value: Any, where: str) -> tuple[_Turn, ...]:
    value = json_value(value)
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: got {kind_in_words(value)}, expected a list of {{role, content}}")
    turns = []
    for number, turn in enumerate(value):
        if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
            got = f"the fields {', '.join(map(str, turn))}" if isinstance(turn, Mapping) else kind_in_words(turn)
            raise InputError(f"{where}[{number}]: got {got}, expected role and content")
        role, content = (_text(turn[field], f"{where}[{number}].{field}") for field in ("role", "content"))
        turns.append(_Turn(role, content, read_spans(turn.get("spans"), f"{where}[{number}].spans") or {}))
    return tuple(turns)


def _responses(cells: Mapping[str, Any], column: str | None, where: str) -> str | list[str] | None:
    if column is None:
        return None
    value = cells[column]
    if not isinstance(value, list | tuple):
        return _text(value, f"{where}: {column}")
    if not value:
        raise InputError(f"{where}: {column}: got an empty list, expected a text or a list of texts")
    return [_text(response, f"{where}: {column}[{number}]") for number, response in enumerate(value)]


def _label(
    row: Mapping[str, Any], cells: Mapping[str, Any], columns: _Columns, where: str, named: NamedFields
) -> str | None:
    if columns.label is not None:
        value = cells[columns.label]
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of whole numbers with a gap comes out of pandas as floats
        word = str(value).strip() if isinstance(value, str | int) else ""
        known = LABELS.get(word.lower())
        # Other numbers are no names of classes: among grades from 1 to 5, 1 would be harmful.
        if known is None and (not isinstance(value, str) or word.lstrip("+-").replace(".", "").isdecimal()):
            raise InputError(
                f"{where}: {columns.label}: got {kind_in_words(value)}, expected a word, or one of {', '.join(LABELS)};"
                " name another column with --label-field, or leave the column out"
            )
        return known or word or None
    if named.label is None and "source" in cells and (row.keys() >= set(_OFFSETS) or row.keys() >= _STAR1):
        return "benign" if cells["source"] == "4o_rewrite" else "harmful"
    return None


def _given(cells: Mapping[str, Any], response: str, where: str) -> dict[str, CharSpan]:
    if all(field in cells for field in _OFFSETS):
        ends = [whole_number(cells[field], f"{where}: {field}") for field in _OFFSETS]
        if not 0 <= ends[0] <= ends[1] <= len(response):
            got = ", ".join(f"{field} {end}" for field, end in zip(_OFFSETS, ends, strict=True))
            raise InputError(
                f"{where}: got {got}, expected 0 <= both in order <= {len(response)}, the response's length"
            )
        return spans_from_offsets(response, *ends)
    given = {}
    for name in GIVEN_SPANS:
        pair = json_value(cells.get(name))
        if not isinstance(pair, list | tuple):
            continue  # a text of that name is the data's own and stays in meta
        if len(pair) != 2:
            raise InputError(f"{where}: {name}: got {len(pair)} values, expected [start, end]")
        start, end = (whole_number(value, f"{where}: {name}") for value in pair)
        if not 0 <= start <= end <= len(response):
            raise InputError(f"{where}: {name}: got [{start}, {end}], expected 0 <= start <= end <= {len(response)}")
        given[name] = CharSpan(start, end)
    if len(given) == 2 and given["key_sentence"].start < given["understanding"].end:
        raise InputError(f"{where}: key_sentence begins before understanding ends; expected it after")
    return given


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise InputError(f"{where}: got {kind_in_words(value)}, expected text")
