"""Settings of a run of ``intervene``."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from safekey_interp.experiments.probe_settings import ProbeSettings
from safekey_interp.runs.settings import same_as, settings_model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings


@settings_model
class InterventionSettings(SegmentationSettings):
    """How traces are segmented, and measured piece by piece."""

    max_length: int | None = Field(default=None, ge=2)
    """Most tokens of a trace; longer are left out."""
    seed: int = same_as(ProbeSettings, "seed")
    chunk: int | None = Field(default=None, ge=1)
    """Traces between two points from which a killed run resumes. Default: 16 of a small model, one of others."""

    @property
    def spans(self) -> dict[str, Any]:
        """How U and K are found, as keywords of every intervention."""
        return {name: getattr(self, name) for name in ("finder", "delimiters", "max_length")}
