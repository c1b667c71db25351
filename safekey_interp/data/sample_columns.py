"""Columns that a sample of an evaluation gives: scores, metadata and annotations, as a row of data has them.

Inspect logs and INIF documents hold such samples. What one says beside its conversation becomes columns, so that
``--label-field`` and ``--label-by`` find it. A name that a column of rows has already gets a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from safekey_interp.data.cell_values import kind_in_words
from safekey_interp.data.column_names import is_read
from safekey_interp.data.row_spans import GIVEN_SPANS, Intervals
from safekey_interp.data.span_expressions import check_span_name
from safekey_interp.errors import InputError

_TAKEN = re.compile(
    "uuid|epoch|(prompt_)?spans|understanding|key_sentence|(summary|next_sentence)_end_idx|target|choices|error|left_out|score_.*"
)


def part(value: Any, kind: type, where: str) -> Any:
    """A value of JSON that has to be of one kind: ``dict``, ``list`` or ``str``.

    Raises:
        InputError: it is of another.
    """
    if isinstance(value, kind):
        return value
    expected = {dict: "an object", list: "a list", str: "text"}[kind]
    raise InputError(f"{where}: got {kind_in_words(value)}, expected {expected}")


def parts(fields: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """A list among the fields; empty where it is missing.

    Raises:
        InputError: it is no list.
    """
    value = fields.get(name)
    return [] if value is None else part(value, list, f"{where}: {name}")


def metadata_columns(metadata: Any, where: str) -> dict[str, Any]:
    """A sample's own metadata; a name that has a meaning in rows gets the prefix ``metadata_``.

    Raises:
        InputError: it is no object.
    """
    named = part({} if metadata is None else metadata, dict, f"{where}: metadata")
    taken = {name for name in named if is_read(name) or _TAKEN.fullmatch(name)}
    return {f"metadata_{name}" if name in taken else name: value for name, value in named.items()}


def score_columns(scores: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    """Scores as ``score_NAME``, with the scorer's ``_answer`` and ``_explanation`` where it gave them.

    Raises:
        InputError: a score is no object.
    """
    columns = {}
    for name, score in scores:
        said = part(score, dict, f"{where}: score {name}")
        columns[f"score_{name}"] = said.get("value")
        columns |= {f"score_{name}_{field}": said[field] for field in ("answer", "explanation") if field in said}
    return columns


def merged(intervals: Iterable[tuple[int, int]]) -> Intervals:
    """Intervals in order, those that touch or overlap as one."""
    joined: Intervals = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def span_name(name: str, prefix: str, *, given: bool) -> str:
    """A name of another tool as one of ours: other characters become ``_``, and a name that is built in gets a prefix.

    Args:
        name: as the tool has it.
        prefix: of names that would mean something else here.
        given: whether understanding and key sentence may be given, as for a response.
    """
    word = re.sub(r"[^\w-]", "_", name)
    if given and word in GIVEN_SPANS:
        return word
    try:
        return check_span_name(word)
    except InputError:
        return f"{prefix}_{word}"
