"""Readings of tokens that were looked at: kept as text for a session's page, which asks for them again, and for saving.

A reading is that of its branch's spans: text to come may move these, and what was read before is then read anew.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pandas as pd

from safekey_interp.errors import InputError, RunError, SafekeyError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.session_json import json_text, rows_json

_NUMBER = re.compile(r"-?[0-9]{1,9}")
MOST_READING_BYTES = 16_000_000
"""Most text of readings that is kept, and that a saved page holds; the oldest go first."""


class Asked(NamedTuple):
    """What a page asks for at a token."""

    kind: str
    """``attention``, ``weights``, ``writes`` or ``lens``."""
    branch: str
    """Identifier of the branch."""
    position: int
    """Of the token."""
    layer: int | None = None
    """Of the weights of one head."""
    head: int | None = None
    """Of the weights of one head."""

    @property
    def query(self) -> str:
        """As the page asks for it."""
        words = {name: value for name, value in self._asdict().items() if name != "kind" and value is not None}
        return f"{self.kind}?{urlencode(words)}"


class PositionReadings:
    """Readings of a session at single tokens; of any thread."""

    def __init__(self, session: Session, *, most_bytes: int = MOST_READING_BYTES) -> None:
        self._session, self._most_bytes = session, most_bytes
        self._texts: dict[Asked, tuple[Any, str]] = {}
        """Spans and text of each, the one that was looked at last at the end."""
        self._lock = threading.Lock()
        self._is_over = False

    def read(self, kind: str, asked: dict[str, str]) -> str:
        """A reading that a page asks for, as JSON.

        Raises:
            InputError: a number that is none, or no such branch, token, layer or head.
            ModelError: the model has no such reading.
        """
        where = {name: _number(asked, name) for name in ("layer", "head") if kind == "weights" and asked.get(name)}
        return self.text(Asked(kind, asked.get("branch", ""), _number(asked, "position"), **where))

    def end(self) -> None:
        """Refuse what is asked for from now on, so that a page that is being saved comes to its end."""
        self._is_over = True

    def text(self, asked: Asked) -> str:
        """A reading as JSON; errors as for :meth:`read`."""
        if self._is_over:
            raise RunError("the server has ended")
        spans = self._session.transcript(asked.branch).spans
        with self._lock:
            known = self._texts.pop(asked, None)
        if known is None or known[0] != spans:
            known = spans, json_text(rows_json(_READ[asked.kind](self._session, asked)))
        with self._lock:
            self._texts[asked] = known
            while len(self._texts) > 1 and sum(len(text) for _, text in self._texts.values()) > self._most_bytes:
                del self._texts[next(iter(self._texts))]
        return known[1]

    @property
    def looked_at(self) -> list[Asked]:
        """What is kept, the last first."""
        with self._lock:
            return list(reversed(self._texts))

    def texts(self, wanted: Iterable[Asked]) -> Iterator[tuple[Asked, str]]:
        """Readings as the branches are now; without those that a model has not, and those of branches deleted since."""
        for asked in wanted:
            with suppress(SafekeyError):
                yield asked, self.text(asked)


_READ: dict[str, Callable[[Session, Asked], pd.DataFrame]] = {
    "attention": lambda session, asked: session.attention(asked.branch, asked.position),
    "weights": lambda session, asked: session.token_attention(
        asked.branch, asked.position, layer=asked.layer, head=asked.head
    ),
    "writes": lambda session, asked: session.writes(asked.branch, asked.position),
    "lens": lambda session, asked: session.lens(asked.branch, asked.position),
}
READINGS = tuple(_READ)
"""Kinds of readings, in the order in which the page shows them."""


def _number(asked: dict[str, str], name: str) -> int:
    text = asked.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise InputError(f"{name}: got {text!r}, expected a whole number")
    return int(text)
