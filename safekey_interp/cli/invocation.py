"""Invocation of the command line: the words as they were typed, and how long the user has waited since."""

from __future__ import annotations

import time
from typing import NamedTuple


class Invocation(NamedTuple):
    """What ``ctx.obj`` of every command is."""

    words: list[str]
    """As they were typed, without the program's name."""
    began: float
    """``time.monotonic()`` when the program began."""

    @classmethod
    def of(cls, words: list[str]) -> Invocation:
        """One that begins now."""
        return cls(words, time.monotonic())

    @property
    def seconds(self) -> float:
        """Seconds that the user has waited: loading, measuring and drawing, and nothing of an earlier attempt."""
        return time.monotonic() - self.began
