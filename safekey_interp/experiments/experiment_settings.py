"""Settings of the runs of ``probe``, ``compare`` and ``intervene``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from safekey_interp.capture.capture_request import expressions
from safekey_interp.capture.measured_spans import MeasuredSpans, measured_spans
from safekey_interp.capture.stream_settings import BatchSize, StreamSettings
from safekey_interp.data.class_labels import LabelBy
from safekey_interp.errors import InputError
from safekey_interp.measures.estimator_names import EstimatorName
from safekey_interp.runs.settings import LARGEST_SEED, SettingError, same_as, settings_model
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

_SAMPLE = 2_000
"""Traces of a stream's sample, unless a number is given."""


def _column(by: str | None) -> str | None:
    if by == "":
        raise SettingError("by", "got '', expected a column's name, or None")
    return None if by == "none" else by


By = Annotated[str | None, AfterValidator(_column)]
"""A column that tells conditions apart; ``none`` on a command line is None."""


@settings_model
class ProbeSettings(StreamSettings):
    """What is measured on which traces."""

    layers: tuple[int, ...] | None = None
    """Layers, such as 0-5,12,-1. Default: all."""
    queries: tuple[str, ...] | None = Field(default=None, json_schema_extra={"option": "query"})
    """Tokens that attend, such as key_sentence or last(NAME); may be given several times."""
    keys: tuple[str, ...] | None = Field(default=None, json_schema_extra={"option": "key"})
    """Tokens that are attended to; several times. Default with --query: prompt, template, first_token."""
    positions: tuple[str, ...] | None = Field(default=None, json_schema_extra={"option": "position"})
    """Tokens whose states are probed; several times. Default with --query: these."""
    label_by: LabelBy = "label"
    """Column of the two classes: label, aha, source, or a name found in meta."""
    estimator: EstimatorName = "logistic"
    """Probe: logistic, mass_mean (difference of means) or lda."""
    sae: str | None = None
    """File or folder of a sparse autoencoder of the model, whose latents are probed, too."""
    by: By = "source"
    """Column that tells conditions apart: source, a name found in meta, or none."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Seed of every draw."""
    n_examples: int = Field(default=40, ge=0, json_schema_extra={"option": "examples"})
    """Traces shown token by token."""
    n_random: int = Field(default=20, ge=1, json_schema_extra={"option": None})
    """Draws of each random key set."""
    keep_states: bool = Field(default=False, json_schema_extra={"option": "states"})
    """Keep the hidden states in the run folder."""
    chunk: int | None = Field(default=None, ge=1)
    """Traces between two points from which a killed run resumes. Default: 32 to 256."""
    stream: bool = False
    """Read the traces once, in constant memory, and keep tables as shards; what needs single traces is of a sample."""
    stream_sample: int | None = Field(default=None, ge=1)
    """Traces of that sample, in whole groups. Default: 2,000."""

    def __post_init__(self) -> None:
        """Refuse the size of a sample that is not taken."""
        if self.stream_sample is not None and not self.stream:
            raise SettingError("stream_sample", f"got {self.stream_sample}, expected none without a stream (--stream)")

    @property
    def sample_size(self) -> int:
        """Traces of a stream's sample."""
        return _SAMPLE if self.stream_sample is None else self.stream_sample

    @property
    def spans(self) -> MeasuredSpans:
        """What is measured; errors as for :func:`~safekey_interp.capture.measured_spans.measured_spans`."""
        return measured_spans(self.queries, self.keys, self.positions)

    @field_validator("queries", "keys", "positions")
    @classmethod
    def _parsed(cls, given: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        try:
            return None if given is None else expressions(given, str(info.field_name))
        except InputError as error:
            raise SettingError(str(info.field_name), str(error)) from None


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
