"""Invocation of the command line: the words as they were typed, how long the user has waited since, and what to do once
it is stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass

from safekey_interp.runs.processes import RESUMES


@dataclass
class Invocation:
    """What ``ctx.obj`` of every command is."""

    words: list[str]
    """As they were typed, without the program's name."""
    began: float
    """``time.monotonic()`` when the program began."""
    if_stopped: str = RESUMES
    """What the user may do after Ctrl-C or SIGTERM; a command says what is true of it by then."""

    @classmethod
    def of(cls, words: list[str]) -> Invocation:
        """One that begins now."""
        return cls(words, time.monotonic())

    @property
    def seconds(self) -> float:
        """Seconds that the user has waited: loading, measuring and drawing, and nothing of an earlier attempt."""
        return time.monotonic() - self.began
