"""Settings of sampling: temperature, top-p, the number of samples and the longest response."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from safekey_interp.runs.settings import LARGEST_SEED, SettingError, Settings, settings_model


@settings_model
class DecodingSettings(Settings):
    """How the next token is chosen, and how many there are at most."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a response, prefill not counted; a longer one is cut. Default: 512, or as many as fit."""
    temperature: float = Field(default=0.0, ge=0)
    """0 for the likeliest token each time (greedy)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the likeliest tokens of this much probability."""


@settings_model
class Sampling(DecodingSettings):
    """How responses are drawn."""

    n: int = Field(default=1, ge=1)
    """Samples of each prompt; more than one needs a temperature."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Seed of every draw."""

    def __post_init__(self) -> None:
        """Refuse several samples where all would be the same."""
        if self.n > 1 and self.temperature == 0:
            raise SettingError("n", f"got {self.n} at temperature 0, which gives one response; raise the temperature")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def record(self) -> dict[str, Any]:
        """What decides a response; how many there are does not."""
        return {name: value for name, value in self.to_dict().items() if name != "n"}
