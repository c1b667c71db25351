"""Settings of a reader of traces: names of columns, and a limit."""

from __future__ import annotations

from pydantic import Field

from safekey_interp.runs.settings import Settings, settings_model


@settings_model
class ReadingSettings(Settings):
    """Which columns of a file are read, and how many rows."""

    prompt_field: str | None = None
    """Column of the prompt."""
    response_field: str | None = None
    """Column of the response."""
    label_field: str | None = None
    """Column of the label."""
    id_field: str | None = None
    """Column of the trace's id."""
    limit: int | None = Field(default=None, ge=1)
    """Read no more traces than this."""


@settings_model
class GroupedReadingSettings(ReadingSettings):
    """The same where folds and intervals are over groups."""

    group_field: str | None = None
    """Column that ties twins."""
