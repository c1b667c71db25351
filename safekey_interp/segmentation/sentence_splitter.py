"""Sentence splitting of reasoning text.

``sentencex`` finds the boundaries inside a line of prose. What it cannot know is mended here: line breaks with and
without a full stop, list items, code, quotations of several sentences, abbreviations that end a sentence, closing
marks that drift into the next one. Sentences come lazily, since only the first few of a trace are ever needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from sentencex import segment as _sentencex  # pyright: ignore[reportAttributeAccessIssue]

from safekey_interp.data.trace import CharSpan, replace_surrogates

WINDOW = 4_000
"""Characters of a region in which sentences are looked for, unless the caller says otherwise."""


class Block(NamedTuple):
    """A stretch of one kind of text; sentences never cross its borders."""

    start: int
    end: int
    verbatim: bool
    """Code, which is kept whole."""


def sentences(text: str, start: int, end: int, limit: int = WINDOW) -> list[CharSpan]:
    """The sentences of ``text[start:end]`` that end within its first ``limit`` characters.

    Args:
        text: the whole response.
        start: first character to look at.
        end: first character after.
        limit: where the window ends, in characters from ``start``. A sentence that the window cuts is left out.

    Returns:
        Spans into ``text``, ordered, disjoint, without surrounding white space, each with at least one letter or digit.
    """
    return list(iterate_sentences(text, start, end, limit))


def iterate_sentences(text: str, start: int, end: int, limit: int = WINDOW) -> Iterator[CharSpan]:
    """As :func:`sentences`, one at a time."""
    end = min(end, len(text))
    stop = min(end, start + limit)
    window = replace_surrogates(text[start:stop])
    cut = stop < end
    if "\r" in window:
        window = window.replace("\r\n", " \n").replace("\r", "\n")
    spans = chain.from_iterable(_of_block(window, block) for block in _blocks(window))
    previous: tuple[int, int] | None = None
    for begin, finish in spans:
        if previous:
            yield CharSpan(start + previous[0], start + previous[1])
        previous = begin, finish
    # What the window cuts has no known end: the last sentence counts when it is finished before the window is.
    if previous and (not cut or _finished(window, *previous)):
        yield CharSpan(start + previous[0], start + previous[1])


def _finished(window: str, begin: int, finish: int) -> bool:
    rest = window[finish:]
    return "\n\n" in rest or (bool(rest) and bool(_TERMINAL.search(window, max(begin, finish - 8), finish)))


_FENCE = re.compile(r"^[ \t]{0,8}(?:```|~~~)", re.MULTILINE)
_LIST_ITEM = re.compile(r"[ \t]{0,12}(?:[-*•+–‣]|\(?(?:\d{1,3}|[A-Za-z])[.)]|#{1,6}|>)[ \t]")
_LIST_MARK_ALONE = re.compile(r"\s*(?:[-*•+–‣]|\(?(?:\d{1,3}|[A-Za-z])[.)]|#{1,6}|>)\s*\Z")
_WORD = re.compile(r"[^\W_]")
_TERMINAL = re.compile(r"[.!?…:;。！？؟।][\"”’'»)\]*_`]*\s*\Z")
_STARTS_UPPER = re.compile(r"\s*[\"“‘'«(\[*_]*[^\W\d_a-zß-öø-ÿ]")
# A line that ends in one of these goes on in the next: wrapped prose.
_UNFINISHED = re.compile(
    r"(?:[,\-–—(]|\b(?:a|an|the|of|to|in|on|at|by|for|with|from|about|into|and|or|but|nor|as|than|that|"
    r"which|who|whose|is|are|"
    r"was|were|be|their|his|her|its|my|your|our|this|these|those|if|whether|how|mr|mrs|ms|dr))\s*\Z",
    re.IGNORECASE,
)
_WRAPPED_LINE = 60
"""A line at least so long may have been wrapped before a capital; a shorter one ends where its writer ended it."""

# Words that open a sentence of thought: a boundary stands before them even after an abbreviation.
_OPENER = (
    r"(?:Hmm+|Okay|OK|Alright|First|Firstly|Let|They|That|This|These|It|We|My|Maybe|Perhaps|Now|However|"
    r"Then|Also|So|But|Wait|"
    r"Since|What|Why|How|The user|I(?=[ '’][a-z]))\b"
)
_MISSED = re.compile(
    rf"([A-Za-z]{{2}}|\b[A-Za-z]\.[A-Za-z]|(?<=[a-z0-9A-Z] )[A-Z])\.([\"”’)\]]*)[ ]+(?={_OPENER})|"
    r"([.!?…][\"”’]+)[ ]+(?=[\"“]?[A-Z])|"
    # Words and variables that are abbreviations elsewhere.
    r"(?:['’](?:s|t|re|ll|d|m)|(?<=[\w,)\"”] )(?:me|no|may|art|ill|miss|etc|[b-hj-z]))\.[\"”’)]*[ ]+"
    r"(?=[\"“]?[A-Z][a-z' ])|"
    r"[。！？](?=[0-9A-Za-z])"
)
_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Gen|Sen|Rep|Gov|Lt|Col|Sgt|Capt|Rev|Hon|vs|e\.g|i\.e|cf|Fig|approx)\Z")
_INITIALS = re.compile(r"(?:\A|[\s\"“(])(?:[A-Z]\.){1,4}\s*\Z")
_OPENS = re.compile(rf"\s*{_OPENER}")
_DRIFTED = re.compile(r"[\"”’»)\]*_`]+(?=\s|\Z)")
_QUOTES_LOOKED_AHEAD = 1_500
# White space of several bytes between an abbreviation and a full stop makes sentencex panic.
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f](?=\.)")


def _blocks(window: str) -> Iterator[Block]:
    """Paragraphs, lines that stand alone, list items and code, in order."""
    at = 0
    while at < len(window):
        fence = _FENCE.search(window, at)
        prose_end = fence.start() if fence else len(window)
        yield from _lines(window, at, prose_end)
        if fence is None:
            return
        closing = _FENCE.search(window, fence.end())
        after = window.find("\n", closing.end()) if closing else -1
        at = after if after >= 0 else len(window)
        yield Block(fence.start(), at, True)


def _lines(window: str, start: int, end: int) -> Iterator[Block]:
    """Lines of prose, those joined that wrapping alone had parted."""
    begin: int | None = None
    at = start
    while at < end:
        newline = window.find("\n", at, end)
        line_end = newline if newline >= 0 else end
        line = window[at:line_end]
        if begin is not None and _parted(window[begin:at], line):
            yield Block(begin, at, False)
            begin = None
        if begin is None and not line.isspace() and line:
            begin = at
        at = line_end + 1
    if begin is not None:
        yield Block(begin, end, False)


def _parted(before: str, line: str) -> bool:
    """Whether a line break between two lines is a border: a blank line, a list item, a sentence without a full stop."""
    if not line or line.isspace() or _LIST_ITEM.match(line):
        return True
    last = before[before.rfind("\n", 0, len(before) - 1) + 1 :]
    if _TERMINAL.search(last[-20:]):
        return last.rstrip().endswith(":") or not _starts_lower(line)
    if not _STARTS_UPPER.match(line):
        return False
    return len(last) < _WRAPPED_LINE and not _UNFINISHED.search(last[-20:])


def _starts_lower(line: str) -> bool:
    return line.lstrip()[:1].islower()


def _of_block(window: str, block: Block) -> Iterator[tuple[int, int]]:
    text = window[block.start : block.end]
    pieces = [text] if block.verbatim else _mended(text.replace("\n", " "))
    at = block.start
    for piece in pieces:
        begin = at + len(piece) - len(piece.lstrip())
        finish = at + len(piece.rstrip())
        at += len(piece)
        if begin < finish and _WORD.search(piece):
            yield begin, finish


def _mended(text: str) -> list[str]:
    """The sentences of one block of prose; together they are ``text`` again."""
    text = _WIDE_SPACE.sub(" ", text)
    pieces = list(_sentencex("en", text))
    if sum(map(len, pieces)) != len(text):  # never seen; offsets would be wrong
        pieces = [text]
    return list(chain.from_iterable(map(_split, _join(pieces))))


def _join(pieces: list[str]) -> list[str]:
    """Put together what was cut inside: quotations, titles, initials, list marks, closing marks that drifted."""
    joined: list[str] = []
    open_quote = False
    for index, piece in enumerate(pieces):
        drifted = _DRIFTED.match(piece)
        if joined and drifted and not open_quote:
            joined[-1] += piece[: drifted.end()]
            piece = piece[drifted.end() :]  # noqa: PLW2901 (what is left of it)
        if joined and (open_quote or _LIST_MARK_ALONE.match(joined[-1]) or _goes_on(joined[-1], piece)):
            joined[-1] += piece
        else:
            joined.append(piece)
        open_quote = _quote_is_open(joined[-1]) and _quote_closes(pieces, index + 1)
    return joined


def _goes_on(before: str, piece: str) -> bool:
    """Whether ``before`` ended in a title, in "e.g." or in initials alone."""
    tail = before[-16:].rstrip()
    if tail.endswith(".") and _TITLE.search(tail[:-1]):
        return True
    return bool(_INITIALS.search(tail)) and piece[:1].isupper() and not _OPENS.match(piece)


def _quote_is_open(piece: str) -> bool:
    return piece.count('"') % 2 == 1 or piece.count("“") > piece.count("”")


def _quote_closes(pieces: list[str], index: int) -> bool:
    length = 0
    for piece in pieces[index:]:
        if '"' in piece or "”" in piece:
            return True
        length += len(piece)
        if length > _QUOTES_LOOKED_AHEAD:
            return False
    return False


def _split(piece: str) -> Iterator[str]:
    """Part what was run together: after an abbreviation or a closing quotation mark, before a new sentence."""
    begin = 0
    for missed in _MISSED.finditer(piece):
        if missed.group(1) and _TITLE.search(piece[max(begin, missed.start() - 8) : missed.end(1)]):
            continue
        if _quote_is_open(piece[begin : missed.end()]):
            continue
        yield piece[begin : missed.end()]
        begin = missed.end()
    yield piece[begin:]
