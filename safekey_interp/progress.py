"""Who is told how far long work is?"""

from __future__ import annotations

from typing import Protocol


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
