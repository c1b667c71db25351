"""Samples of Inspect logs (``inspect_ai``): conversation, citations, scores and metadata.

A sample has ``messages`` whose content is a text or a list of parts. Text parts are joined by line breaks, as Inspect's
``ChatMessage.text`` joins them; reasoning stands between ``<think>`` and ``</think>`` where the model wrote it. Parts
of other types (images, tool calls) are named in the column ``left_out``. The id is Inspect's own, ``ID_epoch_N``.

A citation whose ``cited_text`` is a pair of positions is the only annotation of Inspect's that is an interval of
characters (of its text part): the span ``citation``. Spans of the transcript (``span_begin``, ``span_end``) are
intervals of time; other citations quote another document.

Format: UKGovernmentBEIS/inspect_ai, ``log/_log.py``, ``_util/content.py``, ``_util/citation.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import identifier
from safekey_interp.data.row_spans import Intervals
from safekey_interp.data.sample_columns import merged, metadata_columns, part, parts, score_columns

_OPENING, _CLOSING = "<think>", "</think>"
_ATTACHMENTS = ("attachment://", "tc://")
_COLUMNS = ("target", "epoch", "choices", "uuid", "error")


def is_inspect_log(head: Mapping[str, Any]) -> bool:
    """Whether fields are those of a log: a version, and a specification that names a task."""
    return "version" in head and isinstance(head.get("eval"), dict) and "task" in head["eval"]


def inspect_row(sample: Any, where: str) -> dict[str, Any]:
    """A sample as a row of data.

    Args:
        sample: as JSON has it.
        where: how messages name it.

    Raises:
        InputError: a field is missing, or of another kind than the format says.
    """
    fields = part(sample, dict, where)
    attachments = part(fields.get("attachments") or {}, dict, f"{where}: attachments")
    column = "messages" if parts(fields, "messages", where) else "input"
    turns = fields.get(column)
    if isinstance(turns, str):  # a sample that was never run
        turns = [{"role": "user", "content": _resolved(turns, attachments)}]
    contents = [
        _content(turn, attachments, f"{where}: {column}[{number}]")
        for number, turn in enumerate(part(turns, list, f"{where}: {column}"))
    ]
    left_out = sorted({kind for content in contents for kind in content.left_out})
    scores = part(fields.get("scores") or {}, dict, f"{where}: scores")
    numbered = [identifier(fields.get(name, 1), f"{where}: {name}") for name in ("id", "epoch")]
    return {
        "trace_id": "_epoch_".join(numbered),
        "messages": [
            {"role": content.role, "content": content.text, "spans": {"citation": content.cited}}
            for content in contents
        ],
        **metadata_columns(fields.get("metadata"), where),
        **{name: fields[name] for name in _COLUMNS if fields.get(name) is not None},
        **score_columns(scores.items(), where),
        **({"left_out": ", ".join(left_out)} if left_out else {}),
    }


class _Content(NamedTuple):
    role: str
    text: str
    cited: Intervals
    left_out: set[str]


def _content(turn: Any, attachments: Mapping[str, Any], where: str) -> _Content:
    fields = part(turn, dict, where)
    role, content = part(fields.get("role"), str, f"{where}.role"), fields.get("content")
    left_out = {"tool_call"} if fields.get("tool_calls") else set()
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if isinstance(fields.get("reasoning"), str):  # logs before reasoning was a part of the content
        content = [{"type": "reasoning", "reasoning": fields["reasoning"]}, *(content or [])]
    text, before, cited = "", "", []
    for number, item in enumerate(part(content, list, f"{where}.content")):
        at = f"{where}.content[{number}]"
        kind = part(part(item, dict, at).get("type"), str, f"{at}.type")
        if kind == "text":
            piece = _resolved(part(item.get("text"), str, f"{at}.text"), attachments)
            text += "\n" if before == "text" else ""
            for pair in (_cited(citation, len(piece)) for citation in parts(item, "citations", at)):
                if pair is None:
                    left_out.add("citation")
                else:
                    cited.append((len(text) + pair[0], len(text) + pair[1]))
            text += piece
        elif kind == "reasoning":
            piece = _resolved(_thought(item, at), attachments)
            if before == "reasoning":
                text = f"{text.removesuffix(_CLOSING)}\n{piece}{_CLOSING}"
            else:
                text += f"{_OPENING}{piece}{_CLOSING}"
        else:
            left_out.add(kind)
            continue
        before = kind
    return _Content(role, text, merged(cited), left_out)


def _thought(item: Mapping[str, Any], where: str) -> str:
    if item.get("redacted"):  # what stands there is encrypted
        return part(item.get("summary") or "", str, f"{where}.summary")
    return part(item.get("reasoning"), str, f"{where}.reasoning")


def _cited(citation: Any, length: int) -> tuple[int, int] | None:
    """The interval of its text that a citation supports; None where it gives none inside the text."""
    cited = citation.get("cited_text") if isinstance(citation, dict) else None
    if not isinstance(cited, list) or [type(end) for end in cited] != [int, int]:
        return None
    return (cited[0], cited[1]) if 0 <= cited[0] < cited[1] <= length else None


def _resolved(text: str, attachments: Mapping[str, Any]) -> str:
    """A text, or what it refers to."""
    for protocol in _ATTACHMENTS:
        if text.startswith(protocol):
            attached = attachments.get(text.removeprefix(protocol))
            return attached if isinstance(attached, str) else text
    return text
