"""Record of a segmentation: understanding and key sentence of one trace, as text, HTML and rich text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from safekey_interp.data.trace import CharSpan
from safekey_interp.display import MARKS, escaped, framed, marked_words, pieces_html, printable
from safekey_interp.segmentation.reasoning_span import Marks
from safekey_interp.segmentation.sentence_classes import Aha

if TYPE_CHECKING:
    from rich.text import Text

_SHOWN_AFTER = 200
"""Characters shown after the key sentence; what follows decides nothing."""
_SHOWN_BEFORE = 2_000
_MARKED = ("understanding", "key_sentence")
_AHA_COLOUR = {"safe": "green", "unsafe": "red", "neutral": "white", None: "white"}


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Where the understanding and the key sentence of one trace lie, and what they say."""

    trace_id: str
    """The trace it belongs to."""
    response: str
    """The text that every span counts characters of."""
    reasoning: CharSpan
    """Where the reasoning lies, marks and surrounding white space excluded; the answer when ``region`` says so."""
    region: Literal["reasoning", "answer"]
    """``answer`` when there is no reasoning: the sentences then come from the answer."""
    family: str
    """How the reasoning was marked: a name from :data:`safekey_interp.data.reasoning_marks.FAMILIES`, ``given``
    or ``none``."""
    understanding: CharSpan | None
    """The opening sentences that restate or interpret the request; None when the first sentence is the key sentence."""
    key_sentence: CharSpan | None
    """The first sentence after the understanding; None when there is none, never empty."""
    aha: Aha | None
    """What the key sentence decides; None when there is none, and when its language is not read."""
    hint: bool | None
    """Whether the understanding alone names the harm; None when there is none, and when its language is not read."""
    confidence: float
    """How sure the finder is of the key sentence, in [0, 1]; 0 when there is none."""
    reason: str
    """Why these sentences, in words."""
    finder: str
    """The finder that found them."""
    answer: CharSpan | None = None
    """Where the answer lies; None when the reasoning never closes, and from finders that do not say."""
    language: str = "und"
    """Language in which the reasoning begins (ISO 639-1); ``und`` when it is not known, and from finders that do not
    say."""
    marks: Marks = "tags"
    """How the reasoning was marked. ``none``: no marked reasoning, so that the form of the text decided ``region``."""

    @property
    def understanding_text(self) -> str | None:
        """The words of the understanding, or None."""
        return None if self.understanding is None else self.understanding.text(self.response)

    @property
    def key_sentence_text(self) -> str | None:
        """The words of the key sentence, or None."""
        return None if self.key_sentence is None else self.key_sentence.text(self.response)

    def to_rich(self) -> Text:
        """The opening with both sentences coloured, for ``rich.print``; control characters are shown, not sent."""
        from rich.text import Text

        shown = Text(f"{printable(self.trace_id)}  ", style="dim", no_wrap=False)
        shown.append(printable(self.verdict), style=_AHA_COLOUR[self.aha])
        shown.append("\n")
        for name, piece in self._pieces():
            shown.append(marked_words(name, piece), style=MARKS[name].rich if name else "dim")
        return shown

    def __rich__(self) -> Text:
        return self.to_rich()

    @property
    def verdict(self) -> str:
        """What the finder says, in one line."""
        if self.key_sentence is None:
            return f"no key sentence: {self.reason}"
        hint = {None: "no understanding", True: "understanding names the harm", False: "understanding names no harm"}
        aha = self.aha or f"not read ({self.language})"
        return f"{aha}, {hint[self.hint]}, confidence {self.confidence:.2f} ({self.reason})"

    def _repr_html_(self) -> str:
        head = f"<b>{escaped(self.trace_id)}</b> {escaped(self.verdict)}"
        text = pieces_html(self._pieces())
        return framed(head, f'<div style="white-space:pre-wrap" dir="auto">{text}</div>')

    def _pieces(self) -> Iterator[tuple[str, str]]:
        spans = [(name, span) for name in _MARKED if (span := getattr(self, name)) is not None]
        at = max(0, (spans[0][1] if spans else self.reasoning).start - _SHOWN_AFTER)
        for name, span in spans:
            yield "", self.response[at : span.start]
            yield name, self.response[span.start : min(span.end, span.start + _SHOWN_BEFORE)]
            at = span.end
        yield "", self.response[at : at + _SHOWN_AFTER]
