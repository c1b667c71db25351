"""Settings of a comparison of models."""

from __future__ import annotations

from pydantic import Field

from safekey_interp.capture.stream_settings import BatchSize
from safekey_interp.data.class_labels import LabelBy
from safekey_interp.experiments.probe_settings import By, ProbeSettings
from safekey_interp.runs.settings import same_as, settings_model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings


@settings_model
class ComparisonSettings(SegmentationSettings):
    """What is compared on which prompts."""

    keep_responses: bool = False
    """Give every model the traces' own responses: only probes differ."""
    batch_size: BatchSize = same_as(ProbeSettings, "batch_size")
    max_length: int | None = same_as(ProbeSettings, "max_length")
    label_by: LabelBy = same_as(ProbeSettings, "label_by")
    by: By = same_as(ProbeSettings, "by")
    seed: int = same_as(ProbeSettings, "seed")
    n_examples: int = Field(default=12, ge=0, json_schema_extra={"option": "examples"})
    """Prompts shown side by side."""
