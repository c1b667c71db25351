"""Cost of a training run, estimated by a trial: forward and backward of some of its passes, which move nothing.

    seconds ≈ Σ over parts of a run (steps of one loss, of all losses, held-out rows) of seconds a token · tokens

The optimizer's own time, checkpoints and snapshots are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from safekey_interp.capture.pass_cost import NOTHING, Cost, trial
from safekey_interp.training.batch import QueryMask, collate
from safekey_interp.training.losses import LossSums
from safekey_interp.training.model_preparation import prepared_loss
from safekey_interp.training.query_mask import Way
from safekey_interp.training.schedule import Order, Schedule

if TYPE_CHECKING:
    from safekey_interp.models.model import Model
    from safekey_interp.training.batch_loss import BatchLoss
    from safekey_interp.training.config import TrainingConfig
    from safekey_interp.training.examples import Example, Examples

_TRIED = 8
"""Most passes of a trial."""


def training_cost(
    model: Model,
    loss: BatchLoss,
    examples: Examples,
    config: TrainingConfig,
    schedule: Schedule,
    *,
    way: Way | None,
    memory: int,
    done: int = 0,
) -> Cost:
    """What the steps of a run cost that are not done yet.

    Args:
        model: that is trained.
        loss: model and head.
        examples: rows of the steps, and those held out.
        config: the settings.
        schedule: when what happens.
        way: in which K is predicted with the prompt masked; None without that loss.
        memory: bytes that training needs, as estimated.
        done: steps that a checkpoint has.
    """
    layout: QueryMask | None = way.layout if way else None
    order = Order(
        lengths=[len(row.encoding.input_ids) for row in examples.train],
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        seed=config.seed,
    )
    passes = [numbers for numbers in order.passes(0) if numbers]
    step = max(1, len(passes) // _TRIED)
    rows = [[examples.train[number] for number in numbers] for numbers in passes[::step]]
    left, per_step = schedule.steps - done, len(passes) / order.steps_per_epoch
    auxiliary = min(left, schedule.steps - schedule.auxiliary_from)
    whole = NOTHING
    parts: list[tuple[int, QueryMask | None]] = [(left - auxiliary, None), (auxiliary, layout)]
    for n_steps, of_steps in parts:
        if n_steps:
            whole = whole.plus(_tried(model, loss, config, rows, of_steps, backward=True).times(n_steps * per_step))
    if examples.held_out and left:
        every = config.evaluate_every or schedule.steps_per_epoch
        n_rows = (1 + left // every) * len(examples.held_out)
        held_out = [[row] for row in examples.held_out[:_TRIED]]
        whole = whole.plus(_tried(model, loss, config, held_out, layout, backward=False).times(n_rows))
    fewer = tuple((f"max_steps={n}", whole.seconds * n / max(1, left)) for n in (left // 4,) if n)
    return replace(whole, memory=max(memory, whole.memory), cheaper=fewer)


def planned_cost(model: Model, examples: Examples, config: TrainingConfig, schedule: Schedule, **about: Any) -> Cost:
    """The cost of a run that does not begin: the model is prepared for it and left as it was.

    Arguments as for :func:`training_cost`.
    """
    with prepared_loss(model, config) as (loss, adapted):
        cost = training_cost(model, loss, examples, config, schedule, **about)
        if adapted is not None:
            adapted.unload()
    return cost


def _tried(
    model: Model,
    loss: BatchLoss,
    config: TrainingConfig,
    rows: Sequence[Sequence[Example]],
    layout: QueryMask | None,
    *,
    backward: bool,
) -> Cost:
    """The mean cost of a pass over some rows; no weight and no random state is changed."""
    was_training = loss.training

    def work(some: Sequence[Sequence[Example]]) -> None:
        for part in some:
            encodings, labels = [row.encoding for row in part], [row.label for row in part]
            batch = collate(encodings, labels, layout=layout, packing=config.packing).to(model.device)
            terms: LossSums = loss(batch)
            if backward:
                sum(term for term in terms if term.requires_grad).backward()  # type: ignore[union-attr]

    device: Any = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=device), torch.set_grad_enabled(backward):
        loss.train(backward)
        try:
            tried, cost = trial(model, [*rows, *rows], work)
        finally:
            loss.train(was_training)
            for parameter in loss.parameters():
                parameter.grad = None
    return cost.times(1 / len(tried))
