"""What must be there before the processes that a launcher started can train together?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from safekey_interp.errors import InputError
from safekey_interp.processes import place
from safekey_interp.training.config import TrainingConfig

if TYPE_CHECKING:
    from safekey_interp.models import Model


def check_installed() -> None:
    """Raise InputError where the packages of ``safekey-interp[train]`` are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("accelerate", "peft") if find_spec(name) is None]
    if missing:
        raise InputError(f"training needs {' and '.join(missing)}: pip install 'safekey-interp[train]'")


def n_shards() -> int:
    """How many devices a launcher spreads weights, gradients and optimizer over."""
    shards = any(os.environ.get(f"ACCELERATE_USE_{way}", "").lower() == "true" for way in ("FSDP", "DEEPSPEED"))
    return place().world_size if shards else 1


def check_sharded(config: TrainingConfig) -> None:
    """Refuse what needs whole weights in one process while these are spread over several.

    Raises:
        InputError: a setting does.
    """
    if n_shards() == 1:
        return
    for name in ("patience", "lora_rank", "probe_every", "log_gradient_norms_every"):
        if getattr(config, name):
            raise InputError(f"{name}: needs whole weights, which FSDP and DeepSpeed shard; expected null there")


def meet(model: Model) -> None:
    """Open the process group that the Trainer will use, before the processes speak to one another."""
    if place().world_size > 1:
        from accelerate import PartialState

        PartialState(cpu=model.device.type == "cpu")
