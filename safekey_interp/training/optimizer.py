"""AdamW with four parameter groups: matrices decay, biases and norms do not, and the safety head has its own rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from safekey_interp.training.config import TrainingConfig


def rate_of_head(config: TrainingConfig) -> float:
    """The safety head's peak rate, which a run sets beforehand; the model's where it is open."""
    return config.head_learning_rate or config.learning_rate


def adamw(module: nn.Module, head: nn.Module | None, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer of all weights that are trained.

    Args:
        module: model and safety head.
        head: the safety head in it; None where there is none.
        config: rates, betas and weight decay.
    """
    head_parameters = set() if head is None else {id(parameter) for parameter in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in head_parameters, parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": groups[is_head, decays],
                "lr": rate_of_head(config) if is_head else config.learning_rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for is_head, decays in sorted(groups)
        ],
        lr=config.learning_rate,
        betas=config.betas,
    )
