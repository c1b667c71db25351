"""Named spans in a row of data: columns ``spans`` and ``prompt_spans``, and ``spans`` of a message.

Each is ``{"warning": [[120, 164]]}``, name -> half-open intervals of characters, or what annotation tools write,
``[{"start": 120, "end": 164, "label": "warning"}]``; a CSV file has either as JSON text. A text of another kind, or a
number, is the data's own. Where an interval lies is looked at when it is measured: one that lies outside its text,
overlaps another, or holds no token is named there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from safekey_interp.data.cell_values import json_value, kind_in_words, whole_number
from safekey_interp.data.span_expressions import check_span_name
from safekey_interp.errors import InputError

SPANS_COLUMNS = ("spans", "prompt_spans")
"""Columns of spans of the response, and of the prompt."""
GIVEN_SPANS = ("understanding", "key_sentence")
"""Built-in spans that data may give, of the response alone."""
Intervals = list[tuple[int, int]]

_BRACKETS = ("{", "[")
_FORM = '{"name": [[start, end]]}'


def read_spans(value: Any, where: str) -> dict[str, Intervals] | None:
    """Named spans of a cell; None for no cell, and for a value that is the data's own.

    Args:
        value: of the cell.
        where: how messages name it.

    Raises:
        InputError: brackets that hold no named spans, a name that cannot be one, or ends that are no whole numbers with
            0 <= start <= end.
    """
    value = json_value(value, _BRACKETS)
    if isinstance(value, str) and value.lstrip().startswith(_BRACKETS):
        raise InputError(f"{where}: got {kind_in_words(value)}, expected JSON such as {_FORM}; json.dumps writes it")
    if isinstance(value, list | tuple):
        value = _by_label(value, where)
    if not isinstance(value, Mapping):
        return None
    spans = {str(name): _intervals(pairs, f"{where}: {name}") for name, pairs in value.items() if pairs is not None}
    refuse_names((name for name in spans if name not in GIVEN_SPANS), where)
    return {name: intervals for name, intervals in spans.items() if intervals}


def refuse_names(names: Iterable[str], where: str) -> None:
    """Refuse names that cannot be those of own spans.

    Raises:
        InputError: names where the first stands.
    """
    for name in names:
        try:
            check_span_name(name)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


def given_spans(spans: Mapping[str, Intervals], where: str) -> dict[str, list[int]]:
    """Understanding and key sentence among named spans of the response, as columns of these names have them.

    Raises:
        InputError: one has several intervals.
    """
    for name in GIVEN_SPANS:
        if len(spans.get(name, ())) > 1:
            raise InputError(f"{where}: spans: {name}: got {len(spans[name])} intervals, expected one")
    return {name: list(spans[name][0]) for name in GIVEN_SPANS if name in spans}


def moved(spans: Mapping[str, Intervals], by: int) -> Mapping[str, Intervals]:
    """Named spans of a text before which ``by`` characters were put."""
    return {name: [(start + by, end + by) for start, end in pairs] for name, pairs in spans.items()} if by else spans


def _by_label(items: Sequence[Any], where: str) -> dict[str, list[Any]]:
    spans: dict[str, list[Any]] = {}
    for number, item in enumerate(items):
        name = item.get("label", item.get("name")) if isinstance(item, Mapping) else None
        if not isinstance(name, str) or not {"start", "end"} <= item.keys():
            what = "start, end and label, or no list but"
            raise InputError(f"{where}[{number}]: got {kind_in_words(item)}, expected an object with {what} {_FORM}")
        spans.setdefault(name, []).append([item["start"], item["end"]])
    return spans


def _intervals(pairs: Any, where: str) -> Intervals:
    pairs = json_value(pairs)
    if not isinstance(pairs, list | tuple):
        raise InputError(f"{where}: got {kind_in_words(pairs)}, expected a list of [start, end]")
    if len(pairs) == 2 and not any(isinstance(end, list | tuple) for end in pairs):
        pairs = [pairs]
    return [_interval(pair, where) for pair in pairs]


def _interval(pair: Any, where: str) -> tuple[int, int]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InputError(f"{where}: got {kind_in_words(pair)}, expected [start, end]")
    start, end = (whole_number(value, where) for value in pair)
    if not 0 <= start <= end:
        raise InputError(f"{where}: got [{start}, {end}], expected 0 <= start <= end")
    return start, end
