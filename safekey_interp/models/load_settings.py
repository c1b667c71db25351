"""Settings of loading a model: device, floating-point type, revision and adapter."""

from __future__ import annotations

from safekey_interp.runs.settings import Settings, settings_model


@settings_model
class LoadSettings(Settings):
    """How any model is loaded."""

    device: str | None = None
    """cuda, mps, cpu, or auto for several GPUs."""
    dtype: str | None = None
    """float32, bfloat16, float16."""
    trust_remote_code: bool = False
    """Run code that comes with a hub model."""


@settings_model
class CheckpointSettings(LoadSettings):
    """How one model of the hub or of a folder is loaded."""

    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    adapter: str | None = None
    """PEFT adapter to merge."""
