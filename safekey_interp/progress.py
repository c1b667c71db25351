"""Who is told how far long work is? Whoever was named; else the notebook that runs it; else nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from safekey_interp.notebook import Bar, is_listening


class Progress(Protocol):
    """Who is told how far a run is."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins; ``total`` steps, None when unknown."""

    def advance(self, n: int) -> None:
        """Steps done in the stage."""


class Silent:
    """Tells nobody."""

    def stage(self, name: str, total: int | None) -> None:
        """Nothing."""

    def advance(self, n: int) -> None:
        """Nothing."""


@contextmanager
def telling(progress: Progress | None) -> Iterator[Progress]:
    """Whom to tell while work goes on: ``progress``, or a bar in the notebook that runs it, or nobody."""
    if progress is not None or not is_listening():
        yield progress or Silent()
        return
    bar = Bar()
    try:
        yield bar
    except BaseException as error:
        bar.close(error)
        raise
    bar.close()
