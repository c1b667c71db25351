"""Location of quotations in a text: exact, or up to white space and typography.

A model that quotes straightens quotation marks, writes ``...`` for ``…`` and joins lines. So both sides are folded:
runs of white space become one space, typographic quotation marks, dashes and ellipses become ASCII, zero-width
characters go. Each folded character remembers the character it came from, so a match in the folded text is a span of
the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from safekey_interp.data.trace import CharSpan

_FOLDED = (
    dict.fromkeys("‘’‚‛′`´", "'")
    | dict.fromkeys("“”„‟″", '"')
    | dict.fromkeys("‐‑‒–—―−", "-")
    | {"…": "..."}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", "")
)

# What closes a sentence and is often left out of a quotation: "where do I start" of "where do I start?". A full stop
# inside a word or number ("3.5") does not close; after an ideographic one no space need follow.
_CLOSING = re.compile(r"[。！？]+[」』”’]*|[.!?…]*[\"'”’»)\]*_`]*(?=\s|$)")


class Quoted(NamedTuple):
    """One place where a quotation lies."""

    span: CharSpan
    """Characters of the text, closing punctuation included."""
    exact: bool
    """False when white space or typography differs."""


def locate(text: str, quote: str) -> Iterator[Quoted]:
    """The places in ``text`` where ``quote`` lies, first to last: the exact ones if there are any, else the folded
    ones.

    Args:
        text: what was quoted.
        quote: what came back; white space around it does not count.

    Yields:
        Places that neither begin nor end inside a word; none when ``quote`` is empty or not there.
    """
    quote = quote.strip()
    if not quote:
        return
    exact = list(_occurrences(text, quote))
    for start in exact:
        yield Quoted(_closed(text, start, start + len(quote)), True)
    if exact:
        return
    folded, origins = _fold(text)
    wanted = _fold(quote)[0].strip()
    for start in _occurrences(folded, wanted) if wanted else ():
        yield Quoted(_closed(text, origins[start], origins[start + len(wanted) - 1] + 1), False)


def _occurrences(text: str, piece: str) -> Iterator[int]:
    start = text.find(piece)
    while start >= 0:
        end = start + len(piece)
        if not (_inside_word(text, start) or _inside_word(text, end)):
            yield start
        start = text.find(piece, start + 1)


def _inside_word(text: str, position: int) -> bool:
    return 0 < position < len(text) and text[position - 1].isalnum() and text[position].isalnum()


def _closed(text: str, start: int, end: int) -> CharSpan:
    closing = _CLOSING.match(text, end)
    return CharSpan(start, closing.end() if closing else end)


def _fold(text: str) -> tuple[str, list[int]]:
    """``text`` folded, and for each folded character the position that it came from."""
    characters: list[str] = []
    origins: list[int] = []
    for position, character in enumerate(text):
        folded = " " if character.isspace() else _FOLDED.get(character, character)
        if folded == " " and characters and characters[-1] == " ":
            continue
        characters.extend(folded)
        origins.extend([position] * len(folded))
    return "".join(characters), origins
