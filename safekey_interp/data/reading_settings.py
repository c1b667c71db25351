"""Settings of a reader of traces: names of columns, meanings of labels, and how many."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from safekey_interp.data.span_expressions import check_span_name
from safekey_interp.errors import InputError
from safekey_interp.runs.settings import SettingError, Settings, settings_model

_SPANS = ("span", "prompt_span")


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
    label_map: str | None = None
    """What values of the label mean, as VALUE=harmful,VALUE=benign; VALUE= for no label."""
    limit: int | None = Field(default=None, ge=1)
    """Draw so many traces by the seed, whole groups, stratified by label and source."""
    first: int | None = Field(default=None, ge=1)
    """Read the first so many traces."""
    span: tuple[str, ...] | None = None
    """Span of the responses, as NAME=REGEX or NAME=@FINDER.key_sentence; may be given several times."""
    prompt_span: tuple[str, ...] | None = None
    """Span of the prompts, as NAME=REGEX; may be given several times."""

    @field_validator(*_SPANS)
    @classmethod
    def _named(cls, words: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        names: set[str] = set()
        for word in words or ():
            name, equals, source = word.partition("=")
            option = str(info.field_name)
            if not equals or not source:
                raise SettingError(option, f"got {word!r}, expected NAME=REGEX")
            try:
                check_span_name(name)
            except InputError as error:
                raise SettingError(option, str(error).removeprefix("span name: ")) from None
            if name in names:
                raise SettingError(option, f"got {name!r} twice, expected it once; A|B is found where either is")
            names.add(name)
        return words

    @field_validator("label_map")
    @classmethod
    def _mapped(cls, text: str | None) -> str | None:
        values: set[str] = set()
        for entry in text.split(",") if text is not None else ():
            value, equals, _ = entry.partition("=")
            value = value.strip().casefold()
            if not equals or not value:
                raise SettingError("label_map", f"got {entry!r}, expected VALUE=CLASS, as in 2=harmful,0=benign")
            if value in values:
                raise SettingError("label_map", f"got {value!r} twice, expected it once")
            values.add(value)
        return text

    @property
    def fields(self) -> dict[str, Any]:
        """What :func:`~safekey_interp.data.trace_reader.read_traces` takes."""
        entries = self.label_map.split(",") if self.label_map is not None else ()
        label_map = {value.strip(): word for value, _, word in (entry.partition("=") for entry in entries)}
        given = {name: value for name, value in self.to_dict().items() if name not in _SPANS}
        return given | {"label_map": label_map or None}

    @property
    def spans(self) -> dict[str, str]:
        """Spans of the responses by name."""
        return dict(word.split("=", 1) for word in self.span or ())

    @property
    def prompt_spans(self) -> dict[str, str]:
        """Spans of the prompts by name."""
        return dict(word.split("=", 1) for word in self.prompt_span or ())


@settings_model
class GroupedReadingSettings(ReadingSettings):
    """The same where folds and intervals are over groups."""

    group_field: str | None = None
    """Column that ties twins."""
