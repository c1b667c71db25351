"""Settings of segmentation: the finder of key sentences and the marks of the reasoning."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from safekey_interp.runs.settings import SettingError, Settings, settings_model
from safekey_interp.segmentation.finder_registry import Finder, finder_names, make_finder


@settings_model
class SegmentationSettings(Settings):
    """How the understanding and the key sentence of a trace are found."""

    finder: str | Finder = "rules"
    """How key sentences are found: rules, given, llm."""
    delimiters: tuple[str, str] | None = None
    """Marks of the reasoning: OPENING,CLOSING."""

    @field_validator("finder")
    @classmethod
    def _known(cls, finder: str | Finder) -> str | Finder:
        if isinstance(finder, str) and finder not in finder_names():
            raise SettingError("finder", f"got {finder!r}, expected one of {', '.join(finder_names())}")
        return finder

    @property
    def identity(self) -> Any:
        """What the segmentations depend on beyond the finder's name (an endpoint, a model); None for nothing."""
        return getattr(self.make(), "identity", None)

    def make(self) -> Finder:
        """The finder; one that was given as an object has its own marks."""
        return make_finder(self.finder, self.delimiters) if isinstance(self.finder, str) else self.finder
