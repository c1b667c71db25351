"""Display of text from data and of marked spans in notebooks, terminals and pages.

No mark rests on colour alone: each has a letter (X, U, K) and a line of its own under the text. A notebook does not say
whether its page is light or dark, so the text keeps the page's ink, and a tone lies half-way (in OKLab) between those
that :mod:`safekey_interp.reporting.figures.figure_style` has for a light and for a dark page. :func:`printable` is the
rule for text from data wherever it is shown.

A kernel of Jupyter runs what JupyterLab, VS Code and Colab call a notebook. Everything else, IPython in a terminal
included, is a terminal. IPython is asked only where something else has imported it.
"""

from __future__ import annotations

import html
import sys
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple


def is_listening() -> bool:
    """Whether this code runs in a kernel of Jupyter."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def send(page: str, text: str) -> None:
    """Show HTML below the cell that runs, only where :func:`is_listening`; ``text`` in a front end that shows none."""
    from IPython.display import display

    display({"text/html": page, "text/plain": text}, raw=True)


_WASH = 35
"""Per cent of a mark's tone behind its text."""
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


class _Replacements(dict[int, str]):
    """The replacement of each character, by code point: itself, or of a character that is not shown ``form``."""

    def __init__(self, form: str) -> None:
        self._form = form

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # Spaces of every width move nothing; joiners are letters' own in many scripts.
        keeps = character in "\n\t\u200c\u200d" or character.isprintable() or unicodedata.category(character) == "Zs"
        return self.setdefault(code, character if keeps else self._form.format(code))


_REPLACED, _SPELLED = _Replacements("\ufffd"), _Replacements("‹U+{:04X}›")


def printable(text: str) -> str:
    """``text`` as a terminal, a page, a figure or JSON may show it: the one rule for text from data.

    Controls (C0 and C1, but for line feed and tab), separators of lines and paragraphs, marks, embeddings, overrides
    and isolates of direction, characters without width, lone surrogates and code points without a character become
    U+FFFD, one for one. Spaces of every width and the joiners U+200C and U+200D stay.
    """
    return text if text.isprintable() else text.translate(_REPLACED)


def spelled_out(text: str) -> str:
    """``text`` with each character that :func:`printable` replaces as its code point: ``‹U+202E›``."""
    return text if text.isprintable() else text.translate(_SPELLED)


def one_line(text: str) -> str:
    """Printable ``text`` in one line, with single spaces."""
    return printable(" ".join(text.split()))


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
    style = "text-align:left;vertical-align:top;white-space:nowrap;padding-right:.6em"
    cells = "".join(
        f'<tr style="background:none"><th scope="row" style="{style}">{escaped(name)}</th>'
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
