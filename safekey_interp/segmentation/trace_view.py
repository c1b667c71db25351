"""View of one trace, with its prompt, understanding and key sentence marked.

A notebook gets a coloured page, everything else the same in a terminal's words: ``[X: …]``, ``[U: …]``, ``[K: …]``,
coloured where the terminal has colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safekey_interp.data.trace import Trace, html_of, pieces_of
from safekey_interp.display import MARKS, is_listening, marked_words, printable, send
from safekey_interp.errors import InputError
from safekey_interp.segmentation.finder_registry import Finder
from safekey_interp.segmentation.reasoning_span import Delimiters
from safekey_interp.segmentation.segmenter import Segmentation, segment

if TYPE_CHECKING:
    from rich.text import Text

_WIDTH = 80


def show(
    trace: Trace,
    segmentation: Segmentation | None = None,
    *,
    finder: str | Finder = "rules",
    delimiters: Delimiters | None = None,
    rest: int | None = 800,
) -> None:
    """Show a trace with its spans: in a notebook below the cell, else printed.

    Args:
        trace: the trace.
        segmentation: its spans; segmentation by ``finder`` when None.
        finder: a registered name or a finder, as for :func:`safekey_interp.segment`.
        delimiters: marks of the reasoning; the known families' when None.
        rest: characters of the response that are shown behind the key sentence; all of them when None.

    Raises:
        InputError: the segmentation is of another response, ``rest`` is negative, or an unknown finder.
    """
    if rest is not None and rest < 0:
        raise InputError(f"rest: got {rest}, expected a number of characters, or None for all")
    if segmentation is None:
        segmentation = segment(trace, finder=finder, delimiters=delimiters)
    if segmentation.response != trace.response:
        raise InputError(
            f"segmentation: got one of trace {segmentation.trace_id} with another response than trace "
            f"{trace.trace_id} has; expected the trace's own"
        )
    *before, (_, after) = pieces_of(
        trace.response, {"understanding": segmentation.understanding, "key_sentence": segmentation.key_sentence}
    )
    cut = 0 if rest is None or not before else max(0, len(after) - rest)
    pieces = [*before, ("", after[: len(after) - cut]), ("", f" … ({cut:,} characters more)" if cut else "")]
    text = _text(trace, pieces, segmentation.verdict)
    if is_listening():
        send(html_of(trace, pieces, segmentation.verdict), text.plain)
    else:
        _print(text)


def _text(trace: Trace, pieces: list[tuple[str, str]], verdict: str) -> Text:
    from rich.text import Text

    about = [trace.trace_id, trace.label or "no label", *filter(None, [trace.source])]
    turns = [(f"{message.role}: ", message.content) for message in trace.messages]
    words = Text(f"{printable(' · '.join(about))}\n", style="bold")
    steps = [(f"{step.role}: ", step.content) for step in trace.steps]
    for name, piece in [*turns, ("prompt", trace.prompt), ("", "\n"), *steps, *pieces, ("", f"\nfound: {verdict}")]:
        mark = MARKS.get(name)
        words.append(marked_words(name, piece) if mark else printable(name + piece), style=mark.rich if mark else "")
        words.append("\n" if name.endswith(": ") else "")
    return words


def _print(text: Text) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    console.print(text, width=min(console.width, _WIDTH))
