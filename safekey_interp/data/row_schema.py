"""Schema of raw rows: from columns to traces, with prompt, response, label and spans.

Which texts a row holds is said by its shape (:mod:`safekey_interp.data.row_shapes`), what its label means by
:mod:`safekey_interp.data.label_polarity`. Two layouts are known by their columns besides:

- SafeKey's training rows (``question, response, source, summary_end_idx, next_sentence_end_idx``). Its trainer cuts U
  as ``[0, summary_end_idx)`` and K as ``[summary_end_idx, next_sentence_end_idx)``; here U starts after ``<think>``,
  and white space at the ends is no part of a span. A row is benign when its source is ``4o_rewrite``, else harmful.
- STAR-1's rows (``question, response, category, source, score``): harmful, by the same exception.

Named spans: columns ``spans`` and ``prompt_spans``, ``spans`` of a message (:mod:`safekey_interp.data.row_spans`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import identifier, json_value, kind_in_words, whole_number
from safekey_interp.data.column_names import (
    GROUP_FIELDS,
    ID_FIELDS,
    LABEL_FIELDS,
    PROMPT_FIELDS,
    RESPONSE_FIELDS,
    SOURCE_FIELDS,
    plain_name,
)
from safekey_interp.data.conversation_turns import Exchange, exchange_at, exchanges_of
from safekey_interp.data.label_polarity import label_columns, label_word
from safekey_interp.data.reading_account import RowReading
from safekey_interp.data.row_cells import Row, RowText
from safekey_interp.data.row_shapes import SHAPES, RowShape
from safekey_interp.data.row_spans import (
    GIVEN_SPANS,
    SPANS_COLUMNS,
    given_spans,
    moved,
    read_spans,
    refuse_names,
)
from safekey_interp.data.safekey_offsets import spans_from_offsets
from safekey_interp.data.trace import CharSpan, Message, Trace
from safekey_interp.data.turn_text import Turn
from safekey_interp.errors import InputError

_OFFSETS = ("summary_end_idx", "next_sentence_end_idx")
_STAR1 = frozenset(("question", "response", "category", "source", "score"))


class NamedFields(NamedTuple):
    """The columns that the user named; None: the usual names."""

    prompt: str | None = None
    response: str | None = None
    label: str | None = None
    group: str | None = None
    id: str | None = None


def read_row(
    row: Any,
    where: str,
    row_id: str,
    named: NamedFields,
    *,
    labels: Mapping[str, str] | None = None,
    note: Callable[[RowReading], object] = lambda _: None,
) -> list[Trace]:
    """The traces that a row describes: one, or one for each of its answers.

    Args:
        row: a mapping from column to value; None and NaN count as missing.
        where: how messages name the row.
        row_id: the trace's id when the row has none.
        named: columns that the user named.
        labels: classes by the label's value, as the user gave them.
        note: is told how the row was read.

    Raises:
        InputError: for a row that has no prompt, or a value of a wrong type.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: got {kind_in_words(row)}, expected an object with a prompt")
    cells = {
        column: value
        for column, value in row.items()
        if value is not None and not (type(value) is float and math.isnan(value))
    }
    names = tuple(cells)
    plan = _plan(names, named)
    if named.prompt and named.prompt not in cells:
        fields = ", ".join(map(str, names)) or "all empty"
        raise InputError(f"{where}: no {named.prompt!r}; the fields are {fields}; see --prompt-field")
    parsed = Row(cells, plan.columns, where, row, plan.known, guesses=named.response is None)
    shape = plan.shapes[-1]  # fits all rows
    for candidate in plan.shapes:
        if candidate.fits(parsed):
            shape = candidate
            break
    text = shape.read(parsed)
    found = _exchanges(text, parsed)
    label, labelled_by = _label(parsed, plan, named, labels)
    used = (*text.used, *plan.used, labelled_by, *(_given_in(cells) if plan.is_given else ()))
    spans = prompt_spans = None
    if plan.has_spans:
        spans, prompt_spans = (read_spans(cells.get(column), f"{where}: {column}") for column in SPANS_COLUMNS)
        read = zip(SPANS_COLUMNS, (spans, prompt_spans), strict=True)
        used = (*used, *(column for column, named_spans in read if named_spans is not None))
    if len(found) > 1 and (spans or (prompt_spans and text.answers is None)):
        raise InputError(f"{where}: spans: the row has {len(found)} responses, expected one beside its spans")
    left = _left(names, used)
    answers = tuple([_read_from(one.answer, text) for one in found])
    note(RowReading(shape.name, text.asked_in, answers, labelled_by, left))
    meta = {column: cells[column] for column in left}
    trace_id = identifier(cells[plan.id], f"{where}: {plan.id}") if plan.id else ""
    group = identifier(cells[plan.group], f"{where}: {plan.group}") if plan.group else ""
    if not group and text.answers is None and len(found) > 1:
        group = found[0].prompt.text
    source = cells[plan.source] if plan.source else None
    if source is not None and not isinstance(source, str):
        meta[str(plan.source)], source = source, None

    def trace(exchange: Exchange, suffix: str) -> Trace:
        answer, shift = exchange.answer, exchange.answer.shift
        named_spans = {**answer.spans, **moved(spans, shift)} if spans else answer.spans
        of_prompt = {**exchange.prompt.spans, **prompt_spans} if prompt_spans else exchange.prompt.spans
        if of_prompt:
            refuse_names(of_prompt, f"{where}: prompt_spans")
        given: dict[str, CharSpan] = {}
        if plan.is_given or named_spans:
            given = _given(cells, given_spans(named_spans, where), answer, where)
        about = {column: value for column, value in meta.items() if column not in given} if given else meta
        if left_out := _left_out(exchange):
            about = {"left_out": left_out, **about}
        return Trace(
            trace_id=f"{trace_id or row_id}{suffix}",
            prompt=exchange.prompt.text,
            response=answer.text,
            label=label,
            source=source or None,
            group=group,
            messages=_messages(exchange.before, where),
            steps=_messages(exchange.steps, where),
            given=given,
            meta=about,
            spans={name: pairs for name, pairs in named_spans.items() if name not in GIVEN_SPANS}
            if named_spans
            else {},
            prompt_spans=of_prompt,
        )

    if text.answers is not None:
        return [trace(one, f".{number}" if text.is_listed else "") for number, one in enumerate(found)]
    return [trace(one, f"/turn-{one.number}" if len(found) > 1 else "") for one in found]


class _Plan(NamedTuple):
    """What can be said of rows by their columns alone."""

    columns: Mapping[str, str]
    shapes: tuple[RowShape, ...]
    labels: tuple[str, ...]
    group: str | None
    id: str | None
    source: str | None
    used: tuple[str, ...]
    has_spans: bool
    """Whether there are columns of named spans."""
    is_given: bool
    """Whether U and K may be given in columns of their own."""
    known: dict[tuple[str, ...], str | None]


@lru_cache(maxsize=1024)
def _plan(names: tuple[str, ...], named: NamedFields) -> _Plan:
    columns: dict[str, str] = {}
    for name in names:
        plain = plain_name(name)
        if plain not in columns or name == plain:
            columns[plain] = name
    for by_user, usual in ((named.prompt, (*PROMPT_FIELDS, "doc")), (named.response, (*RESPONSE_FIELDS, "choices"))):
        if by_user:
            columns = {plain: name for plain, name in columns.items() if plain not in usual}
            columns |= {usual[0]: by_user} if by_user in names else {}

    def column(by_user: str | None, usual: Sequence[str]) -> str | None:
        if by_user:
            return by_user if by_user in names else None
        return next((columns[plain] for plain in usual if plain in columns), None)

    group, trace_id = column(named.group, GROUP_FIELDS), column(named.id, ID_FIELDS)
    source = column(None, SOURCE_FIELDS)
    labels = label_columns(columns) if named.label is None else tuple(filter(None, [column(named.label, ())]))
    offsets = _OFFSETS if set(_OFFSETS) <= set(names) else ()
    used = tuple(filter(None, (group, trace_id, source, *offsets)))
    shapes = tuple(shape for shape in SHAPES if shape.needs(columns))
    has_spans = not set(SPANS_COLUMNS).isdisjoint(names)
    is_given = bool(offsets) or not set(GIVEN_SPANS).isdisjoint(names)
    return _Plan(columns, shapes, labels, group, trace_id, source, used, has_spans, is_given, {})


@lru_cache(maxsize=1024)
def _left(names: tuple[str, ...], used: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in used)


def _exchanges(text: RowText, row: Row) -> list[Exchange]:
    if text.answers is None:
        return exchanges_of(text.turns, f"{row.where}: {text.used[0]}")
    if len(text.turns) == 1 and text.turns[0].role == "user":
        return [Exchange(text.turns[0], answer) for answer in text.answers]
    turns = text.turns[:-1] if text.turns[-1].role == "assistant" else text.turns
    if "user" not in [turn.role for turn in turns]:
        raise InputError(f"{row.where}: {text.used[0]}: got no turn of the user, expected one at least")
    asked = exchange_at(turns, len(turns))
    return [asked._replace(answer=answer) for answer in text.answers]


def _messages(turns: Sequence[Turn], where: str) -> tuple[Message, ...]:
    if not turns:
        return ()
    for number, turn in enumerate(turns):
        if turn.spans:
            refuse_names(turn.spans, f"{where}: messages[{number}].spans")
    return tuple(Message(role=turn.role, content=turn.text, spans=turn.spans) for turn in turns)


def _read_from(answer: Turn, text: RowText) -> tuple[str, str]:
    """Where the reasoning and the answer were; of an answer inside an object, the column of the object."""
    reasoning, said = answer.read_from
    return reasoning, said or (str(text.used[-1]) if answer.text and text.used else "")


def _left_out(exchange: Exchange) -> str:
    turns = (exchange.prompt, exchange.answer, *exchange.before, *exchange.steps)
    left_out = [turn.left_out for turn in turns if turn.left_out]
    if not left_out:
        return ""
    return ", ".join(sorted({kind for kinds in left_out for kind in kinds}))


def _given_in(cells: Mapping[str, Any]) -> list[str]:
    return [name for name in GIVEN_SPANS if isinstance(json_value(cells.get(name)), list | tuple)]


def _label(row: Row, plan: _Plan, named: NamedFields, labels: Mapping[str, str] | None) -> tuple[str | None, str]:
    """The label, and the column that says it."""
    cells, names = row.cells, row.given.keys()
    for column in plan.labels:
        asked = named.label is not None or plain_name(column) in LABEL_FIELDS
        if asked and named.label is None and _is_desirability(row, column):
            continue
        label = label_word(cells[column], column, row.where, asked=asked, labels=labels)
        if label is not None or asked:
            return label, column
    if named.label is None and "source" in cells and (names >= set(_OFFSETS) or names >= _STAR1):
        return ("benign" if cells["source"] == "4o_rewrite" else "harmful"), "source"
    return None, ""


def _is_desirability(row: Row, column: str) -> bool:
    """Whether a label says, as in TRL's rows for KTO, that the completion beside it is desired."""
    return isinstance(row.cells[column], bool) and isinstance(row.get(("completion",)), list | tuple)


def _given(
    cells: Mapping[str, Any], in_spans: Mapping[str, list[int]], answer: Turn, where: str
) -> dict[str, CharSpan]:
    response, shift = answer.text, answer.shift
    if all(field in cells for field in _OFFSETS):
        ends = [whole_number(cells[field], f"{where}: {field}") + shift for field in _OFFSETS]
        if not 0 <= ends[0] <= ends[1] <= len(response):
            got = ", ".join(f"{field} {end}" for field, end in zip(_OFFSETS, ends, strict=True))
            raise InputError(
                f"{where}: got {got}, expected 0 <= both in order <= {len(response)}, the response's length"
            )
        return spans_from_offsets(response, *ends)
    given = {}
    for name in GIVEN_SPANS:
        pair = in_spans.get(name) or json_value(cells.get(name))
        if not isinstance(pair, list | tuple):
            continue  # a text of that name is the data's own and stays in meta
        if len(pair) != 2:
            raise InputError(f"{where}: {name}: got {len(pair)} values, expected [start, end]")
        moved_by = 0 if name in in_spans else shift
        start, end = (whole_number(value, f"{where}: {name}") + moved_by for value in pair)
        if not 0 <= start <= end <= len(response):
            raise InputError(f"{where}: {name}: got [{start}, {end}], expected 0 <= start <= end <= {len(response)}")
        given[name] = CharSpan(start, end)
    if len(given) == 2 and given["key_sentence"].start < given["understanding"].end:
        raise InputError(f"{where}: key_sentence begins before understanding ends; expected it after")
    return given
