"""Reasoning delimiters: where the reasoning of a response lies.

Each family of models marks its reasoning in its own way; the families are data (:data:`FAMILIES`), tried in order. A
closing mark without an opening one means that the chat template opened the reasoning, so that it begins with the
response. Reasoning that is absent or empty falls to the answer: the region then says ``"answer"``.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from safekey_interp.data.trace import CharSpan
from safekey_interp.errors import InputError

Delimiters = tuple[str, str]

OPENING_WITHIN = 2_000
"""An opening mark is looked for in so many first characters: a later one is text about marks."""


class Family(NamedTuple):
    """How one family of models marks its reasoning."""

    name: str
    """Goes to the tables."""
    opening: str
    """Opening mark, verbatim."""
    closing: str
    """Closing mark, verbatim."""
    answer: str = ""
    """Mark that opens the answer after the reasoning; empty when the answer follows at once."""


class Region(NamedTuple):
    """Where sentences are to be looked for."""

    span: CharSpan
    """Characters of the response, marks and surrounding white space excluded; empty when there is no text at all."""
    family: str
    """Name of the family, ``"given"`` for delimiters of the caller, ``"none"`` without any mark."""
    region: Literal["reasoning", "answer"]
    """Whether the span is the model's reasoning or, where there is none, its answer."""
    closed: bool
    """Whether a closing mark was found; False for reasoning that was cut, and without marks."""


FAMILIES = (
    Family("think", "<think>", "</think>"),  # DeepSeek-R1 and its distilled models, Qwen3, QwQ, Phi-4-reasoning
    Family("magistral", "[THINK]", "[/THINK]"),
    Family("harmony", "<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>"),  # GPT-OSS
    Family("thought", "<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>"),  # Sky-T1, OpenThinker
)

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
            reasoning begins with the response.

    Returns:
        The region. Its span always lies inside ``response``; it is empty, and the region ``"answer"``, when there is
        no text.

    Raises:
        InputError: when the delimiters are no pair of strings, or the closing one is empty.
    """
    families = FAMILIES if delimiters is None else (_given(delimiters),)
    marks = _first_opening(response, families) or _first_closing(response, families)
    if marks is None:
        return _answer_alone(response, families)
    family, begin, end = marks
    closed = end >= 0
    span = _trim(response, begin, end if closed else len(response))
    if len(span):
        return Region(span, family.name, "reasoning", closed)
    after = end + len(family.closing) if closed else len(response)
    return Region(_answer(response, after, family), family.name, "answer", closed)


def answer_span(response: str, delimiters: Delimiters | None = None) -> CharSpan | None:
    """Find the answer of ``response``: what follows its reasoning, or all of it where there is no reasoning.

    Args:
        response: what the model wrote, marks included.
        delimiters: as for :func:`reasoning_region`.

    Returns:
        Characters of the response, marks and surrounding white space excluded; empty when no answer follows. None when
        the reasoning never closes, so that the answer was cut.

    Raises:
        InputError: as :func:`reasoning_region`.
    """
    families = FAMILIES if delimiters is None else (_given(delimiters),)
    marks = _first_opening(response, families) or _first_closing(response, families)
    if marks is None:
        return _answer_alone(response, families).span
    family, _, end = marks
    return _answer(response, end + len(family.closing), family) if end >= 0 else None


def _given(delimiters: Delimiters) -> Family:
    if (
        not isinstance(delimiters, (tuple, list))
        or len(delimiters) != 2
        or not all(isinstance(mark, str) for mark in delimiters)
        or not delimiters[1]
    ):
        raise InputError(f"delimiters: got {delimiters!r}, expected two strings such as ('<think>', '</think>')")
    return Family("given", *delimiters)


def _first_opening(response: str, families: tuple[Family, ...]) -> tuple[Family, int, int] | None:
    """The earliest opening mark that begins the response, or that has text before it and is closed later."""
    lead = _LEADING.match(response, 0, OPENING_WITHIN)
    text_begins = lead.end() if lead else 0
    openings = [(response.find(family.opening, 0, OPENING_WITHIN), family) for family in families]
    for at, family in sorted((pair for pair in openings if pair[0] >= 0), key=lambda opening: opening[0]):
        begin = at + len(family.opening)
        while family.opening and (again := re.compile(rf"\s*{re.escape(family.opening)}").match(response, begin)):
            begin = again.end()  # once from the template and once from the model
        end = response.find(family.closing, begin)
        if end >= 0 or at <= text_begins:
            return family, begin, end
    return None


def _first_closing(response: str, families: tuple[Family, ...]) -> tuple[Family, int, int] | None:
    """A closing mark alone: the template opened the reasoning. Harmony's closes any message, so it proves nothing."""
    closings = [
        (at, family)
        for family in families
        if not (family.answer and family.closing == "<|end|>") and (at := response.find(family.closing)) >= 0
    ]
    if not closings:
        return None
    at, family = min(closings, key=lambda closing: closing[0])
    return family, 0, at


def _answer(response: str, begin: int, family: Family) -> CharSpan:
    if family.answer and (at := response.find(family.answer, begin, begin + OPENING_WITHIN)) >= 0:
        begin = at + len(family.answer)
    return _trim(response, begin, len(response))


def _answer_alone(response: str, families: tuple[Family, ...]) -> Region:
    for family in families:
        if family.answer and response.find(family.answer, 0, OPENING_WITHIN) >= 0:
            return Region(_answer(response, 0, family), family.name, "answer", False)
    return Region(_trim(response, 0, len(response)), "none", "answer", False)


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
