"""INIF documents (``.inif.json``, ndif-team/inif): tokenized conversations with annotations of token ranges.

A sample has ``texts``, one a message by role (``user_0``, ``assistant_0``), and ``tokens`` of the whole conversation as
the chat template rendered it. Annotations (``ranges`` of tokens, half-open) and spans (``positions``) become intervals
of characters: the strings of the tokens are joined, each text is looked for in them, in order, and what a range covers
of a text is its interval there; the template's characters are in no text. Roles (``user``, ``assistant``, ``template``)
say where the texts lie, and are the conversation where there are no texts; all other names become named spans.

A token without an id (in older documents, with a negative one) stands for a sequence that the document holds before its
samples. Format: ``inif/models.py``, ``docs/concepts/annotations.qmd``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any, NamedTuple

from safekey_interp.data.cell_values import kind_in_words
from safekey_interp.data.row_spans import Intervals
from safekey_interp.data.sample_columns import merged, metadata_columns, part, parts, score_columns, span_name
from safekey_interp.errors import InputError

_SPEAKERS = ("system", "developer", "user", "assistant", "tool")
_ROLES = (*_SPEAKERS, "template")
_NAME = re.compile(rf"({'|'.join(_SPEAKERS)})_\d+")
_COLUMNS = ("target", "references", "choices", "interaction_type", "error", "sample_hash")
_LONGEST = 1 << 28


def is_inif(head: Mapping[str, Any]) -> bool:
    """Whether fields are those of a document: metadata that name a model."""
    metadata = head.get("metadata")
    return isinstance(metadata, dict) and isinstance(metadata.get("model"), dict) and "name" in metadata["model"]


class InifRows:
    """Rows of a document's samples."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        """Nothing is checked yet.

        Args:
            head: the document's fields before its samples.
        """
        self._head = head
        self._sequences: dict[str, str] | None = None

    def row(self, sample: Any, where: str) -> dict[str, Any]:
        """A sample as a row of data.

        Args:
            sample: as JSON has it.
            where: how messages name it.

        Raises:
            InputError: a field of another kind than the format says, a range outside the tokens, an unknown sequence,
                or no conversation.
        """
        fields = part(sample, dict, where)
        if self._sequences is None:
            self._sequences = dict(_sequences(self._head, where))
        strings = [
            self._string(token, f"{where}: tokens[{number}]")
            for number, token in enumerate(parts(fields, "tokens", where))
        ]
        ends = list(accumulate(map(len, strings), initial=0))
        if ends[-1] > _LONGEST:
            raise InputError(f"{where}: tokens of {ends[-1]:,} characters, expected at most {_LONGEST:,}")
        joined = "".join(strings)
        marked = {
            name: _characters(ranges, ends) for name, ranges in _named_ranges(fields, len(strings), where).items()
        }
        turns = _turns_of_texts(parts(fields, "texts", where), joined, marked, f"{where}: texts")
        turns = turns or _turns_of_roles(joined, marked)
        if not turns:
            raise InputError(
                f"{where}: no conversation; expected texts named by role (user_0), or annotations of roles"
            )
        own = {name: intervals for name, intervals in marked.items() if name not in _ROLES}
        left_out = [kind for turn in turns for kind in turn.left_out]
        left_out += [f"spans of {turn.name}" for turn in turns if own and not turn.is_located]
        scores = [part(score, dict, f"{where}: scores") for score in parts(fields, "scores", where)]
        return {
            **({"trace_id": fields["id"]} if fields.get("id") is not None else {}),
            "messages": [
                {"role": turn.role, "content": turn.text, "spans": turn.spans(own, f"{where}: {turn.name}")}
                for turn in turns
            ],
            **metadata_columns(fields.get("metadata"), where),
            **{name: fields[name] for name in _COLUMNS if fields.get(name) is not None},
            **score_columns(((str(score.get("scorer")), score) for score in scores), where),
            **({"left_out": ", ".join(dict.fromkeys(left_out))} if left_out else {}),
        }

    def _string(self, token: Any, where: str) -> str:
        fields = part(token, dict, where)
        number = fields.get("id")
        if type(number) is int and number >= 0:
            return part(fields.get("token"), str, f"{where}.token")
        names = (fields.get(name) for name in ("seq_id", "sequence_id", "token"))
        name = next((name for name in names if isinstance(name, str)), None)
        assert self._sequences is not None
        if name not in self._sequences:
            raise InputError(f"{where}: no sequence {name!r} stands before the samples, expected it in `sequences`")
        return self._sequences[name]


class _Piece(NamedTuple):
    """A part of a turn's text that stands in the joined tokens."""

    at: int
    """In the turn's text."""
    place: int
    """In the joined tokens."""
    length: int


class _Turn(NamedTuple):
    name: str
    role: str
    text: str
    pieces: list[_Piece]
    is_located: bool
    left_out: list[str]

    def spans(self, marked: Mapping[str, Intervals], where: str) -> dict[str, Intervals]:
        """What named intervals of the joined tokens cover of this turn's text."""
        spans: dict[str, Intervals] = {}
        names: dict[str, str] = {}
        for name, intervals in marked.items():
            ours = span_name(name, "inif", given=self.role == "assistant")
            inside = [
                (piece.at + max(start - piece.place, 0), piece.at + min(end - piece.place, piece.length))
                for piece in self.pieces
                for start, end in _from(piece.place, intervals, piece.place + piece.length)
            ]
            if inside and names.setdefault(ours, name) != name:
                raise InputError(f"{where}: annotations {names[ours]!r} and {name!r} would both be the span {ours!r}")
            if inside:
                spans[ours] = merged(inside)
        return spans


def _sequences(head: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    file = where.rpartition(", row")[0]
    for number, sequence in enumerate(parts(head, "sequences", file)):
        at = f"{file}: sequences[{number}]"
        fields = part(sequence, dict, at)
        tokens = [part(token, dict, f"{at}.tokens") for token in parts(fields, "tokens", at)]
        text = "".join(part(token.get("token"), str, f"{at}.tokens: token") for token in tokens)
        yield part(fields.get("id"), str, f"{at}.id"), text


def _named_ranges(fields: Mapping[str, Any], n_tokens: int, where: str) -> dict[str, Intervals]:
    """Ranges of tokens by name; several annotations of one name are one."""
    named: dict[str, Intervals] = {}
    for column, inner in (("annotations", "ranges"), ("spans", "positions")):
        for number, annotation in enumerate(parts(fields, column, where)):
            at = f"{where}: {column}[{number}]"
            name = part(part(annotation, dict, at).get("name"), str, f"{at}.name")
            for given in parts(annotation, inner, at):
                if inner == "positions":
                    pair = [given, given + 1] if type(given) is int else []
                else:
                    pair = given if isinstance(given, list) else []
                whole = [type(end) for end in pair] == [int, int]
                if not whole or not 0 <= pair[0] < pair[1] <= n_tokens:
                    got = given if whole else kind_in_words(given)
                    raise InputError(f"{at}: {name}: got {got}, expected {inner} among the {n_tokens:,} tokens")
                named.setdefault(name, []).append((pair[0], pair[1]))
    return {name: merged(ranges) for name, ranges in named.items()}


def _characters(ranges: Iterable[tuple[int, int]], ends: list[int]) -> Intervals:
    return [(ends[start], ends[end]) for start, end in ranges if ends[start] < ends[end]]


def _turns_of_texts(texts: list[Any], joined: str, marked: Mapping[str, Intervals], where: str) -> list[_Turn]:
    turns, at = [], 0
    for number, item in enumerate(texts):
        place = f"{where}[{number}]"
        if isinstance(item, str):  # older documents give no names
            return []
        fields = part(item, dict, place)
        name = part(fields.get("name"), str, f"{place}.name")
        role = _NAME.fullmatch(name)
        if role is None:
            return []
        text, pieces, left_out, is_located = "", [], [], True
        for kind, value in _values(fields, place):
            if kind not in ("content", "reasoning"):
                left_out.append(kind)
                continue
            opening, closing = ("<think>", "</think>") if kind == "reasoning" else ("", "")
            found = _found(joined, value, at, marked.get(role[1], ()) if kind == "content" else ())
            is_located &= found is not None
            if found and found.length:
                pieces.append(found._replace(at=found.at + len(text) + len(opening)))
                at = found.place + found.length
            text += f"{opening}{value}{closing}"
        turns.append(_Turn(name, role[1], text, pieces, is_located, left_out))
    return turns


def _values(fields: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """The parts of a text by kind; a message with reasoning or tool calls has them as children."""
    children = parts(fields, "children", where)
    if not children:
        yield "content", part(fields.get("value", ""), str, f"{where}.value")
    for number, child in enumerate(children):
        at = f"{where}.children[{number}]"
        inner = part(child, dict, at)
        yield part(inner.get("name"), str, f"{at}.name"), part(inner.get("value", ""), str, f"{at}.value")


def _found(joined: str, text: str, at: int, of_role: Sequence[tuple[int, int]]) -> _Piece | None:
    """Where a text stands in the joined tokens, or the text without white space at its ends, which templates strip.

    First among the tokens of its role, where they are told, so that a word of the template is not taken for it.
    """
    stripped = _Piece(len(text) - len(text.lstrip()), 0, len(text.strip()))
    for is_told in (True, False):
        for piece in (_Piece(0, 0, len(text)), stripped):
            sought = text[piece.at : piece.at + piece.length]
            for start, end in _from(at, of_role, len(joined)) if is_told else ((at, len(joined)),):
                until = end + len(sought) - 1 if is_told else end
                place = joined.find(sought, max(at, start - len(sought) + 1) if is_told else at, until)
                if place >= 0:
                    return piece._replace(place=place)
    return None


def _from(place: int, intervals: Sequence[tuple[int, int]], until: int) -> Iterator[tuple[int, int]]:
    """Those of ascending intervals that have a character from ``place`` on and before ``until``."""
    for number in range(bisect_right(intervals, place, key=itemgetter(1)), len(intervals)):
        if intervals[number][0] >= until:
            return
        yield intervals[number]


def _turns_of_roles(joined: str, marked: Mapping[str, Intervals]) -> list[_Turn]:
    """Turns that annotations alone tell: by role, and what was generated where no role is the assistant's."""
    ranges = [(*interval, role) for role in _SPEAKERS for interval in marked.get(role, ())]
    if "assistant" not in marked:
        ranges += [(*interval, "assistant") for interval in marked.get("generated", ())]
    return [
        _Turn(f"{role} at character {start}", role, joined[start:end], [_Piece(0, start, end - start)], True, [])
        for start, end, role in sorted(ranges)
    ]
