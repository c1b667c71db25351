"""How many steps does a run take, and from which on do the auxiliary losses count?

SafeKey trains with language modelling alone first, and with the two extra losses in the last epochs (paper: 2 of 5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from safekey_interp.training.config import TrainingConfig


class Schedule(NamedTuple):
    """When what happens, in optimizer steps."""

    steps: int
    """Of the whole run."""
    steps_per_epoch: int
    """Of one pass over the data."""
    warmup_steps: int
    """In which the learning rate rises."""
    auxiliary_from: int
    """The first step, from 0, in which the auxiliary losses count; ``steps`` when none does."""
    epochs: float
    """Passes over the data."""


def schedule_of(config: TrainingConfig, steps_per_epoch: int) -> Schedule:
    """The schedule of a run whose epoch takes so many steps."""
    steps = config.max_steps or math.ceil(config.epochs * steps_per_epoch)
    share = 1.0 if config.auxiliary_epochs is None else min(1.0, config.auxiliary_epochs / config.epochs)
    if not (config.head_weight or config.query_mask_weight or config.key_weight):
        share = 0.0
    return Schedule(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=math.ceil(config.warmup * steps),
        auxiliary_from=steps - round(share * steps),
        epochs=steps / steps_per_epoch,
    )
