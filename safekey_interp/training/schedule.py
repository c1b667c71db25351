"""Schedule of a training run: its steps, the step from which the auxiliary losses count, and the order of rows.

SafeKey trains with language modelling alone first, and with the two extra losses in the last epochs (paper: 2 of 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Sampler

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


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order of rows, and this process's part of it."""

    lengths: Sequence[int]
    """Tokens of each row."""
    batch_size: int
    """Rows of a step, over all processes."""
    micro_batch_size: int
    """Most rows of a forward pass of one process."""
    seed: int
    """Of the draws."""
    shuffles: bool = True
    """Whether each epoch is shuffled."""
    rank: int = 0
    """This process."""
    world_size: int = 1
    """Processes."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last may have fewer rows."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def passes_per_step(self) -> int:
        """Forward passes of a process in a whole step."""
        return self._n_passes(self.batch_size)

    @property
    def passes_per_epoch(self) -> int:
        """Forward passes of a process in an epoch."""
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole * self.passes_per_step + self._n_passes(rest)

    def rows(self, epoch: int, step: int) -> list[int]:
        """All rows of a step, over all processes, the longest first."""
        order = self._epoch(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        return sorted(order, key=lambda row: (-self.lengths[row], row))

    def passes(self, epoch: int) -> Iterator[list[int]]:
        """The rows of each of this process's forward passes in an epoch; some lists may be empty."""
        for step in range(self.steps_per_epoch):
            rows = self.rows(epoch, step)
            n = self._n_passes(len(rows)) * self.world_size
            for number in range(self.rank, n, self.world_size):
                yield rows[len(rows) * number // n : len(rows) * (number + 1) // n]

    def _n_passes(self, n_rows: int) -> int:
        return -(-n_rows // (self.micro_batch_size * self.world_size))

    def _epoch(self, epoch: int) -> list[int]:
        if not self.shuffles:
            return list(range(len(self.lengths)))
        generator = torch.Generator().manual_seed((self.seed << 20) + epoch)
        return torch.randperm(len(self.lengths), generator=generator).tolist()


class PassSampler(Sampler[list[int]]):
    """What a DataLoader takes for the rows of each forward pass."""

    def __init__(self, order: Order) -> None:
        self.order = order
        """The order."""
        self.epoch = 0
        """The epoch that is read next."""

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return self.order.passes(self.epoch)

    def __len__(self) -> int:
        return self.order.passes_per_epoch


class PassLoader(DataLoader):
    """Lists of rows as they are, an epoch at a time."""

    def __init__(self, rows: Sequence[Any], order: Order) -> None:
        self._sampler = PassSampler(order)
        # A generator of its own: the loader draws a number for its workers, and training draws what it would without.
        options: Any = {"collate_fn": list, "generator": torch.Generator()}
        super().__init__(rows, batch_sampler=self._sampler, **options)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self._sampler.set_epoch(epoch)
