"""Span expressions: the grammar that names tokens of a trace, in every function, command, column and page.

    NAME                tokens of a span: ``prompt``, ``key_sentence``, or a name of the user's own
    first(E), last(E)   the first or the last token of E
    before(E), after(E) the token right before E's first, or right after E's last
    E + E               the tokens of both
    E .. E              from the first token of the one to the last token of the other, both among them
    sentence(n), turn(n), understanding(n), key_sentence(n), token(n)
                        the n-th of the trace, counted from 0 as in Python; negative numbers count from the end

``..`` binds tighter than ``+``; brackets group. An expression stands for a set of token positions, without order; it is
empty where the trace lacks one of its spans, and ``E .. F`` also where F ends before E begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

from safekey_interp.errors import InputError

ALIASES = {
    "start": "token(0)",
    "end": "token(-1)",
    "decision": "before(key_sentence)",
    "context": "start .. last(understanding)",
    "prompt_end": "last(prompt)",
    "understanding_end": "last(understanding)",
}
"""Names of expressions."""
SPAN_NAMES = (
    *("prompt", "system", "template", "first_token"),
    *("reasoning", "answer", "understanding", "key_sentence"),
)
"""Spans that are built in; not every trace has each."""
NUMBERED = ("sentence", "turn", "token", "understanding", "key_sentence")
"""Spans of which there may be several; ``NAME(n)`` is the n-th."""
FUNCTIONS = ("first", "last", "before", "after")
"""Single tokens of an expression."""
_TOKEN = re.compile(r"\s*(?:(?P<name>[^\W\d][\w-]*)|(?P<number>-?\d+)|(?P<mark>\.\.|[()+]))")
_NAME = re.compile(r"[^\W\d][\w-]*\Z")


class NumberedSpan(NamedTuple):
    """Reference to the n-th span of a kind."""

    kind: str
    """One of :data:`NUMBERED`."""
    number: int
    """From 0; from the end where negative."""

    def __str__(self) -> str:
        return f"{self.kind}({self.number})"


@dataclass(frozen=True)
class SpanExpression:
    """A parsed expression: an operator with its operands, or a reference to a span."""

    operator: str
    """``span``, one of :data:`FUNCTIONS`, ``+`` or ``..``."""
    operands: tuple[SpanExpression, ...] = ()
    """None for a span."""
    span: str | NumberedSpan = ""
    """What a ``span`` refers to."""

    @property
    def is_one_token(self) -> bool:
        """Whether it is one token at most: of a function, or ``token(n)``."""
        return self.operator in FUNCTIONS or (isinstance(self.span, NumberedSpan) and self.span.kind == "token")

    @property
    def united(self) -> tuple[str | NumberedSpan, ...]:
        """The spans that it joins with ``+``, or the one that it is; none of any other expression."""
        if self.operator == "span":
            return (self.span,)
        parts = [operand.united for operand in self.operands] if self.operator == "+" else []
        return tuple(span for part in parts for span in part) if all(parts) else ()

    def references(self) -> Iterator[str | NumberedSpan]:
        """The spans that it is made of, each as often as it occurs."""
        if self.operator == "span":
            yield self.span
        for operand in self.operands:
            yield from operand.references()

    def positions(self, tokens_of: Callable[[str | NumberedSpan], Iterable[int]], n_tokens: int) -> list[int]:
        """Its token positions, ascending, each once.

        Args:
            tokens_of: tokens of a span; none where the trace lacks it.
            n_tokens: tokens of the sequence.
        """
        if self.operator == "span":
            return sorted(set(tokens_of(self.span)))
        parts = [operand.positions(tokens_of, n_tokens) for operand in self.operands]
        if self.operator == "+":
            return sorted(set().union(*parts))
        if not all(parts):
            return []
        if self.operator == "..":
            return list(range(parts[0][0], parts[1][-1] + 1))
        single = {
            "first": parts[0][0],
            "last": parts[0][-1],
            "before": parts[0][0] - 1,
            "after": parts[0][-1] + 1,
        }[self.operator]
        return [single] if 0 <= single < n_tokens else []


@lru_cache(maxsize=1024)
def parse_span(text: str) -> SpanExpression:
    """Parse an expression; aliases become what they stand for.

    Raises:
        InputError: what is wrong, at which character.
    """
    return _Parser(text).parse()


def span_references(expressions: Iterable[str]) -> tuple[str | NumberedSpan, ...]:
    """The spans that expressions are made of, each once, in their order; errors as for :func:`parse_span`."""
    return tuple(dict.fromkeys(name for text in expressions for name in parse_span(text).references()))


def check_spans(expressions: Iterable[str], own: Collection[str]) -> None:
    """Refuse an expression that cannot be parsed, or names a span that is not there.

    Args:
        expressions: of token positions.
        own: names of the user's own spans.

    Raises:
        InputError: names the spans that are there, and the nearest.
    """
    there = (*SPAN_NAMES, *sorted(own))
    for name in span_references(expressions):
        if isinstance(name, str) and name not in there:
            raise InputError(
                f"span {name!r}: no trace has one; {_nearest(name, (*there, *ALIASES))}expected one of "
                f"{', '.join(there)}, {', '.join(ALIASES)}, or an expression such as last(prompt)"
            )


def check_span_name(name: str) -> str:
    """A name of a user's own span, unless it is no word or has a meaning already.

    Raises:
        InputError: it has.
    """
    if not _NAME.match(name):
        raise InputError(f"span name: got {name!r}, expected a letter, then letters, digits, _ or -")
    if name in (*SPAN_NAMES, *ALIASES, *NUMBERED, *FUNCTIONS):
        raise InputError(f"span name: got {name!r}, which is built in; expected another name")
    return name


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise InputError(f"span expression: got a value of type {type(text).__name__}, expected text")
        self.text = text
        self.words: list[tuple[str, str, int]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise self._error(f"got {text[at]!r}", at, "a name, a number, (, ), + or ..")
            kind = match.lastgroup or ""
            self.words.append((kind, match[kind], match.start(kind)))
            at = match.end()
        self.at = 0

    def parse(self) -> SpanExpression:
        try:
            expression = self._union()
        except RecursionError:
            raise InputError("span expression: nested too deeply; expected fewer brackets") from None
        if self.at < len(self.words):
            raise self._unexpected("+, .. or the end")
        return expression

    def _union(self) -> SpanExpression:
        parts = [self._range()]
        while self._take("+"):
            parts.append(self._range())
        return parts[0] if len(parts) == 1 else SpanExpression("+", tuple(parts))

    def _range(self) -> SpanExpression:
        expression = self._atom()
        while self._take(".."):
            expression = SpanExpression("..", (expression, self._atom()))
        return expression

    def _atom(self) -> SpanExpression:
        if self._take("("):
            expression = self._union()
            self._expect(")")
            return expression
        kind, name, start = self._word()
        if kind != "name":
            raise self._unexpected("a span's name")
        self.at += 1
        if not self._take("("):
            if name in ("sentence", "turn", "token"):
                raise self._error(f"got {name!r} alone", start, f"a number, such as {name}(0)")
            if name in FUNCTIONS:
                raise self._error(f"got {name!r} alone", start, f"a span, such as {name}(key_sentence)")
            return parse_span(ALIASES[name]) if name in ALIASES else SpanExpression("span", span=name)
        if name in FUNCTIONS:
            expression = SpanExpression(name, (self._union(),))
        elif name in NUMBERED:
            kind, number, _ = self._word()
            if kind != "number":
                raise self._unexpected("a whole number")
            self.at += 1
            expression = SpanExpression("span", span=NumberedSpan(name, int(number)))
        else:
            known = (*FUNCTIONS, *NUMBERED)
            raise self._error(f"got {name}(", start, f"one of {', '.join(known)} before a (", _nearest(name, known))
        self._expect(")")
        return expression

    def _word(self) -> tuple[str, str, int]:
        return self.words[self.at] if self.at < len(self.words) else ("end", "the end", len(self.text))

    def _take(self, mark: str) -> bool:
        kind, word, _ = self._word()
        taken = kind == "mark" and word == mark
        self.at += taken
        return taken

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise self._unexpected(repr(mark))

    def _unexpected(self, expected: str) -> InputError:
        kind, word, start = self._word()
        return self._error(f"got {word if kind == 'end' else repr(word)}", start, expected)

    def _error(self, got: str, start: int, expected: str, nearest: str = "") -> InputError:
        where = f"span expression {self.text!r}: {got} at character {start}"
        return InputError(f"{where}{'; ' if nearest else ', '}{nearest}expected {expected}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""
