"""How does text look with its prompt, understanding and key sentence marked, in a notebook and in a terminal?

No mark rests on colour alone: each has a letter (X, U, K) and a line of its own under the text. A notebook does not say
whether its page is light or dark, so the text keeps the page's ink, and a tone lies half-way (in OKLab) between those
that :mod:`safekey_interp.figures.drawing` has for a light and for a dark page. What data say is escaped, and characters
that move a cursor, turn text around or hide are shown as U+FFFD.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import NamedTuple

_WASH = 35
"""Per cent of a mark's tone behind its text."""
# Control characters but for tab and line feed; what turns the direction of its neighbours; lone surrogates.
_CONTROLS = (*range(9), *range(11, 32), *range(127, 160))
_FORBIDDEN = dict.fromkeys(
    [*_CONTROLS, *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)], "\ufffd"
)
# MathJax leaves out what has either class: a response may hold dollars.
_FRAME = (
    '<div class="tex2jax_ignore mathjax_ignore" style="text-align:left;line-height:1.6;max-width:60rem;'
    'overflow-wrap:anywhere">'
)


class Mark(NamedTuple):
    """How one span is told from the others."""

    letter: str
    """Stands before it."""
    tone: str
    """#rrggbb, for the wash and the line."""
    ink: str
    """#rrggbb of the letter, on the tone."""
    line: str
    """Under it, as CSS calls it."""
    rich: str
    """Its style in a terminal."""


MARKS: dict[str, Mark] = {
    "prompt": Mark("X", "#406cd2", "#ffffff", "dotted", "blue"),
    "understanding": Mark("U", "#cc9640", "#1b1f24", "solid", "cyan"),
    "key_sentence": Mark("K", "#b63a40", "#ffffff", "double", "bold yellow"),
}
"""The spans that are marked wherever text is shown."""


def printable(text: str) -> str:
    """``text`` that a page or a terminal can show as it is, without being moved by it; line feeds and tabs stay."""
    shown = text.translate(_FORBIDDEN)
    return shown if shown.isprintable() else "".join(map(_shown, shown))


def marked_words(name: str, text: str) -> str:
    """``[U: the text]`` for a terminal, where a colour may be missing; the text alone where there is no such mark."""
    mark = MARKS.get(name)
    return printable(text) if mark is None or not text else f"[{mark.letter}: {printable(text)}]"


def escaped(text: object) -> str:
    """``text`` as HTML text or attribute value."""
    return html.escape(printable(str(text)))


def framed(*parts: str) -> str:
    """Parts that are HTML already, as what a notebook shows."""
    return f"{_FRAME}{''.join(parts)}</div>"


def facts_html(rows: Iterable[tuple[str, str]]) -> str:
    """Names with their values, which are HTML already, one below the other."""
    cells = "".join(
        f'<tr style="background:none"><th scope="row" style="text-align:left;vertical-align:top">{escaped(name)}</th>'
        f'<td style="text-align:left;white-space:pre-wrap" dir="auto">{value}</td></tr>'
        for name, value in rows
    )
    return f'<table style="border-collapse:collapse">{cells}</table>'


def pieces_html(pieces: Iterable[tuple[str, str]]) -> str:
    """Texts in a row, each with the name of its mark, or of none."""
    return "".join(span_html(name, escaped(text)) for name, text in pieces)


def span_html(name: str, inner: str) -> str:
    """HTML inside the mark of that name; as it is where there is no such mark."""
    mark = MARKS.get(name)
    if mark is None or not inner:
        return inner
    letter = (
        f'<b style="background:{mark.tone};color:{mark.ink};border-radius:3px;padding:0 .3em;margin-right:.3em;'
        f'font-size:.8em">{mark.letter}</b>'
    )
    style = f"color:inherit;background:{mark.tone}{round(2.55 * _WASH):02x};border-bottom:3px {mark.line} {mark.tone}"
    return f'<mark title="{name}" style="{style}">{letter}{inner}</mark>'


def _shown(character: str) -> str:
    # Spaces of every width move nothing; joiners are letters' own in many scripts.
    keeps = character in "\n\t\u200c\u200d" or character.isprintable() or character.isspace()
    return character if keeps else "\ufffd"
