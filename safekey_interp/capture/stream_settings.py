"""Settings of forward passes over traces: batches, the longest trace and the backend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from safekey_interp.runs.settings import settings_model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

BatchSize = Annotated[int, Field(ge=1)] | Literal["auto"]
Backend = Literal["hf", "bridge"]


@settings_model
class StreamSettings(SegmentationSettings):
    """How traces are segmented, encoded and batched."""

    batch_size: BatchSize = "auto"
    """Traces a forward pass, or auto."""
    max_length: int | None = Field(default=None, ge=2)
    """Most tokens up to the end of the key sentence."""
    backend: Backend = "hf"
    """hf (fast) or bridge (TransformerLens)."""
    rendering: Literal["chat", "released"] = Field(default="chat", json_schema_extra={"option": None})
    """``released`` for what the reference's attention script reads."""
