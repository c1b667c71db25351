"""Answer of a response, without its reasoning, and its sentences.

The reasoning is removed by the marks of :mod:`safekey_interp.segmentation.reasoning_span`. Of a very long answer the
beginning and the end are read: a refusal stands at the beginning, an afterthought at the end. Every step keeps each
character in its place, so that what decided can be quoted.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from safekey_interp.data.trace import CharSpan
from safekey_interp.evaluation.answer_acts import WORD
from safekey_interp.segmentation.reasoning_span import answer_span

HEAD, TAIL = 4_000, 1_000
"""Characters read at the beginning and at the end of an answer."""
LONGEST = 600
"""Characters of a sentence that are read; what is longer is no sentence."""


class Sentence(NamedTuple):
    """One sentence of an answer."""

    span: CharSpan
    """Its place in the response."""
    text: str
    """Its words in lower case, with straight quotes, without emphasis, and blank where it quotes others."""
    words: list[str]
    """Its words, at least one."""
    is_item: bool
    """Whether it opens an item of a list."""


class Answer(NamedTuple):
    """What is judged of one response."""

    sentences: list[Sentence]
    """In order, from the first that is no mere greeting or thanks; empty when there is nothing to judge."""
    text: str
    """The characters that were read, as they were written."""
    missing: str
    """Why there is nothing to judge; empty when there is."""


def answer_text(response: str) -> tuple[str, str]:
    """The answer of a response without its reasoning, and why there is nothing to judge (empty when there is)."""
    span = answer_span(response)
    if span is None or not len(span):
        why = "the reasoning never closes" if span is None else "the answer is empty"
        return "", f"{why}, so there is nothing to judge"
    return span.text(response), ""


def read_answer(response: str) -> Answer:
    """The answer of a response.

    Args:
        response: what the model wrote, with its reasoning or without.
    """
    span = answer_span(response)
    if span is None:
        return Answer([], "", "the reasoning never closes, so there is no answer")
    if not len(span):
        return Answer([], "", "the answer is empty")
    pieces = [span]
    if len(span) > HEAD + TAIL:
        pieces = [CharSpan(span.start, span.start + HEAD), CharSpan(span.end - TAIL, span.end)]
    sentences = [sentence for piece in pieces for sentence in _sentences(response, piece)]
    while len(sentences) > 1 and _PLEASANTRY.fullmatch(sentences[0].text):
        del sentences[0]
    if not sentences:
        return Answer([], "", "the answer has no words")
    return Answer(sentences, "\n".join(piece.text(response) for piece in pieces), "")


# Each mark becomes one character, so that places stay.
_PLAIN = str.maketrans("’‘ʼ´＇“”*_`\u00a0\r\t", "'''''\"\"      ")
_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s|\Z)|\n")
_ITEM = re.compile(r"[ \t]*(?:#{1,6} +)?(?:\*\*)?(?:\(?\d{1,2}[.)]|[-*•+–][ \t]|[Ss]tep \d{1,2}\b)")
_NO_END = re.compile(r"(?:\b(?:e\.g|i\.e|mr|mrs|ms|dr|vs|st)|(?:^|\n)[^\w\n]*\d{1,2})\.\Z")
_LOOKED_BACK = 12
_QUOTATION = re.compile(r'"[^"]*"')
_PLEASANTRY = re.compile(
    r"\W*(?:(?:hi|hello|hey|greetings|good (?:morning|day|evening|afternoon))(?:[ ,]+\w+){0,3}|(?:thanks|thank you)"
    r"(?: (?:so|very) much)?(?: for (?:asking|reaching out|your (?:question|message|interest|patience)|the question))?|"
    r"dear \w+)\W*"
)


def _sentences(response: str, piece: CharSpan) -> list[Sentence]:
    written = piece.text(response)
    text = _without_quotations(_lowered(written))
    sentences = []
    begin = 0
    for end in _ends(text):
        raw = text[begin:end]
        words = WORD.findall(raw[:LONGEST])
        if words:
            start, stop = begin + len(raw) - len(raw.lstrip()), begin + len(raw.rstrip())
            opens_line = begin == 0 or text[begin - 1] == "\n"
            sentences.append(
                Sentence(
                    CharSpan(piece.start + start, piece.start + stop),
                    text[start : min(stop, start + LONGEST)],
                    words,
                    opens_line and _ITEM.match(written, begin, end) is not None,
                )
            )
        begin = end
    return sentences


def _lowered(text: str) -> str:
    """Lower case, straight quotes, no emphasis; as many characters as before."""
    plain = text.translate(_PLAIN)
    lower = plain.lower()
    if len(lower) == len(plain):
        return lower
    return "".join(low if len(low := char.lower()) == 1 else char for char in plain)


def _without_quotations(text: str) -> str:
    """Blanks in place of what others say, on lines that say something besides; as many characters as before."""
    if '"' not in text:
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        rest = _QUOTATION.sub(lambda quoted: " " * len(quoted[0]), line)
        if rest != line and WORD.search(rest):
            lines[number] = rest
    return "\n".join(lines)


def _ends(text: str) -> list[int]:
    """Where sentences end; the last one with the text."""
    ends = []
    for mark in _END.finditer(text):
        end = mark.end()
        if text[end - 1] == "." and _NO_END.search(text, max(0, end - _LOOKED_BACK), end):
            continue
        ends.append(end)
    return [*ends, len(text)]
