"""Fine-tuning with the safety head and query-mask modelling, through the spans that the probes use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safekey_interp.head_file import load_safety_head as load_safety_head
    from safekey_interp.training.config import TrainingConfig as TrainingConfig
    from safekey_interp.training.config import read_config as read_config
    from safekey_interp.training.running import train as train
    from safekey_interp.training.terms import loss_terms as loss_terms

_HOMES = {
    "TrainingConfig": "config",
    "read_config": "config",
    "train": "running",
    "loss_terms": "terms",
    "load_safety_head": ".head_file",
}

__all__ = ["TrainingConfig", "load_safety_head", "loss_terms", "read_config", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
