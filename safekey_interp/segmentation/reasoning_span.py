"""Reasoning delimiters: where the reasoning of a response lies.

Each family of models marks its reasoning in its own way (:mod:`~safekey_interp.data.reasoning_marks`); they are tried
in order. A closing mark without an opening one means that the chat template opened the reasoning, so that it begins
with the response. Without any mark the form of the text decides
(:mod:`~safekey_interp.segmentation.unmarked_reasoning`), and the region says so. Reasoning that is absent or empty
falls to the answer: the region then says ``"answer"``.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from safekey_interp.data.reasoning_marks import FAMILIES, Family
from safekey_interp.data.trace import CharSpan
from safekey_interp.errors import InputError
from safekey_interp.segmentation.unmarked_reasoning import answer_start, thinks_aloud

Delimiters = tuple[str, str]

OPENING_WITHIN = 2_000
"""An opening mark is looked for in so many first characters: a later one is text about marks."""


Marks = Literal["tags", "closing tag alone", "channels", "none"]
"""How reasoning was marked: with the marks of its family; with the closing one alone, where the template opened; with
harmony's channel names, whose special tokens were stripped; not at all."""


class Region(NamedTuple):
    """Where sentences are to be looked for."""

    span: CharSpan
    """Characters of the response, marks and surrounding white space excluded; empty when there is no text at all."""
    family: str
    """Name of the family, ``"given"`` for delimiters of the caller, ``"none"`` without any mark."""
    region: Literal["reasoning", "answer"]
    """Whether the span is the model's reasoning or, where there is none, its answer."""
    closed: bool
    """Whether the reasoning ends in the response; False for reasoning that was cut, and where there is none."""
    marks: Marks
    """How the reasoning was marked; without marks the form of the opening told reasoning from answer."""
    answer: CharSpan | None
    """What follows the reasoning, or all text where there is none; empty when no answer follows, None when the
    reasoning never ends."""

    @property
    def trust(self) -> float:
        """What the region is worth to the confidence of a finder: below 1 without marks."""
        return UNMARKED_TRUST if self.marks == "none" else 1.0

    @property
    def caveat(self) -> str:
        """What is to be said of a text without marks; empty with marks, and without text."""
        is_read_by_form = self.marks == "none" and len(self.span) > 0
        return f"no marked reasoning: read as {self.region} by its form" if is_read_by_form else ""


UNMARKED_TRUST = 0.89
"""Share of texts that are read without their marks as with them: the lower bound that
``analysis/validation/unmarked_reasoning.py`` prints."""

# Control tokens that decoding may leave: <|im_end|>, <｜end▁of▁sentence｜>, <s>. They are no words of the model.
_CONTROL = r"<[|｜][^<>\s]{1,40}[|｜]>|</?s>|<(?:bos|eos|end_of_turn)>"
_LEADING = re.compile(rf"(?:\s|{_CONTROL}|(?<=<\|start\|>)assistant)*")
_TRAILING = re.compile(rf"(?:{_CONTROL})\Z")
_LONGEST_CONTROL = 50


def reasoning_region(response: str, delimiters: Delimiters | None = None) -> Region:
    """Find the reasoning of ``response``, or its answer where there is no reasoning.

    Args:
        response: what the model wrote, marks included.
        delimiters: opening and closing mark to use in place of the known families. An empty opening mark means that the
            reasoning begins with the response. A text without them is an answer.

    Returns:
        The region. Its span always lies inside ``response``; it is empty, and the region ``"answer"``, when there is
        no text.

    Raises:
        InputError: when the delimiters are no pair of strings, or the closing one is empty.
    """
    ways = _WAYS if delimiters is None else _WAYS_GIVEN
    families = FAMILIES if delimiters is None else (_given(delimiters),)
    found = next(part for way in ways if (part := way(response, families)) is not None)
    span = _trim(response, found.begin, found.end)
    if len(span):
        return Region(span, found.family, "reasoning", found.closed, found.marks, found.answer)
    nothing = _trim(response, len(response), len(response))
    return Region(
        nothing if found.answer is None else found.answer,
        found.family,
        "answer",
        found.closed,
        found.marks,
        found.answer,
    )


def answer_span(response: str, delimiters: Delimiters | None = None) -> CharSpan | None:
    """Find the answer of ``response``: what follows its reasoning, or all of it where there is no reasoning.

    Args and errors as for :func:`reasoning_region`.

    Returns:
        Characters of the response, marks and surrounding white space excluded; empty when no answer follows. None when
        the reasoning never ends, so that the answer was cut.
    """
    return reasoning_region(response, delimiters).answer


class _Parts(NamedTuple):
    """Reasoning (empty when there is none) and answer of a response."""

    family: str
    marks: Marks
    begin: int
    end: int
    closed: bool
    answer: CharSpan | None


def _given(delimiters: Delimiters) -> Family:
    if (
        not isinstance(delimiters, (tuple, list))
        or len(delimiters) != 2
        or not all(isinstance(mark, str) for mark in delimiters)
        or not delimiters[1]
    ):
        raise InputError(f"delimiters: got {delimiters!r}, expected two strings such as ('<think>', '</think>')")
    return Family("given", *delimiters)


def _first_opening(response: str, families: tuple[Family, ...]) -> _Parts | None:
    """The earliest opening mark that begins the response, or that has text before it and is closed later."""
    text_begins = _text_start(response)
    openings = [(response.find(family.opening, 0, OPENING_WITHIN), family) for family in families]
    for at, family in sorted((pair for pair in openings if pair[0] >= 0), key=lambda opening: opening[0]):
        begin = at + len(family.opening)
        while family.opening and (again := re.compile(rf"\s*{re.escape(family.opening)}").match(response, begin)):
            begin = again.end()  # once from the template and once from the model
        end = response.find(family.closing, begin)
        if end >= 0:
            return _closed(response, family, "tags", begin, end)
        if at <= text_begins:
            return _Parts(family.name, "tags", begin, len(response), False, None)
    return None


# Harmony's messages after skip_special_tokens: "analysisThe user asks …assistantfinalI'm sorry …".
_ANALYSIS = re.compile(r"(?:assistant)?analysis(?=(?P<message>\n|[\"“'‘(*]?[A-Z0-9])?)")
_NEXT_CHANNEL = re.compile(r"assistant(?:analysis|commentary|final)")
_FINAL = "assistantfinal"


def _channel_names(response: str, families: tuple[Family, ...]) -> _Parts | None:
    """The channels of a harmony response without its special tokens."""
    opening = _ANALYSIS.match(response, _text_start(response))
    if opening is None:
        return None
    closing = _NEXT_CHANNEL.search(response, opening.end())
    if closing is None:
        cut = opening["message"] is not None
        return _Parts("harmony", "channels", opening.end(), len(response), False, None) if cut else None
    final = response.find(_FINAL, closing.start())
    answer = _trim(response, final + len(_FINAL) if final >= 0 else closing.end(), len(response))
    return _Parts("harmony", "channels", opening.end(), closing.start(), True, answer)


def _first_closing(response: str, families: tuple[Family, ...]) -> _Parts | None:
    """A closing mark alone: the template opened the reasoning."""
    closings = [
        (at, family) for family in families if family.closes_alone and (at := response.find(family.closing)) >= 0
    ]
    if not closings:
        return None
    at, family = min(closings, key=lambda closing: closing[0])
    return _closed(response, family, "closing tag alone", 0, at)


def _answer_mark(response: str, families: tuple[Family, ...]) -> _Parts | None:
    """A mark of the answer alone: nothing was reasoned."""
    for family in families:
        if family.answer and response.find(family.answer, 0, OPENING_WITHIN) >= 0:
            return _Parts(family.name, "tags", 0, 0, False, _answer(response, 0, family))
    return None


def _thought(response: str, families: tuple[Family, ...]) -> _Parts | None:
    """No mark, and an opening that thinks aloud."""
    text = _trim(response, 0, len(response))
    words = text.text(response)
    if not thinks_aloud(words):
        return None
    start = answer_start(words)
    if start is None:
        return _Parts("none", "none", text.start, text.end, False, None)
    return _Parts("none", "none", text.start, text.start + start, True, CharSpan(text.start + start, text.end))


def _answer_alone(response: str, families: tuple[Family, ...]) -> _Parts:
    return _Parts("none", "none", 0, 0, False, _trim(response, 0, len(response)))


_WAYS_GIVEN = (_first_opening, _first_closing, _answer_alone)
"""Ways of reading a response by the delimiters of the caller, tried in order."""
_WAYS = (_first_opening, _channel_names, _first_closing, _answer_mark, _thought, _answer_alone)
"""Ways of reading a response by what is known of families."""


def _closed(response: str, family: Family, marks: Marks, begin: int, end: int) -> _Parts:
    answer = _answer(response, end + len(family.closing), family)
    return _Parts(family.name, marks, begin, end, True, answer)


def _answer(response: str, begin: int, family: Family) -> CharSpan:
    if family.answer and (at := response.find(family.answer, begin, begin + OPENING_WITHIN)) >= 0:
        begin = at + len(family.answer)
    return _trim(response, begin, len(response))


def _text_start(response: str) -> int:
    lead = _LEADING.match(response, 0, OPENING_WITHIN)
    return lead.end() if lead else 0


def _trim(text: str, begin: int, end: int) -> CharSpan:
    """``[begin, end)`` without white space and control tokens at either side."""
    lead = _LEADING.match(text, begin, end)
    begin = lead.end() if lead else begin
    while begin < end:
        end = begin + len(text[begin:end].rstrip())
        # Control tokens end in ">", so that most texts need no search.
        mark = _TRAILING.search(text, max(begin, end - _LONGEST_CONTROL), end) if text[end - 1 : end] in ">" else None
        if mark is None or mark.start() == mark.end():
            break
        end = mark.start()
    return CharSpan(begin, max(begin, end))
