"""Gradient norms of the terms of the loss, and the dose that a term adds up to over a run.

    norm_t = ‖∂ term / ∂ model's weights‖₂ at step t            unweighted, over all rows of the step, before clipping
    dose   = w · Σ norm_t                                        over the steps in which the term counts

Two auxiliary losses of equal weight may have gradients of very different norm: in a model that was fine-tuned without
either, query-mask modelling has no prompt to predict K from, and its control (K weighed up with the prompt in sight)
predicts K well already. A control of equal dose is one whose weight makes both sums equal (:func:`match_weight`,
``train/dose_match.py``).

The dose depends on the run: norms shrink as K is learnt, and faster at a larger weight. So it is summed over whole
pilot runs, one for each weight, on data that nothing is tested on. Equal dose does not mean that the weights move
equally far: the total is clipped, AdamW divides by the gradients' own size, and directions differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from safekey_interp.errors import InputError, RunError

if TYPE_CHECKING:
    import pandas as pd

    from safekey_interp.training.batch import TrainingBatch
    from safekey_interp.training.batch_loss import BatchLoss

PREFIX = "gradient_norm_"
"""Of the columns of the table ``gradient_norms``: one for each term."""


def term_gradient_norms(
    loss: BatchLoss,
    passes: Sequence[TrainingBatch],
    counts: Sequence[Any],
    terms: Sequence[str],
    *,
    summed: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Norm of each term's gradient by the model's trained weights, over all forward passes of a step.

    No ``.grad`` is touched, and random numbers (dropout) continue afterwards as if nothing had been drawn.

    Args:
        loss: model and head, neither wrapped nor sharded.
        passes: this process's batches of the step, on the model's device.
        counts: what the terms are divided by, over all passes and processes, in the order of ``LossSums``.
        terms: names of ``LossSums``, of terms that the loss has.
        summed: sums a tensor over processes; None for one process.
        seed: of dropout, which is the same for each term.

    Returns:
        The norm by term, unweighted.
    """
    parameters = [parameter for parameter in loss.hf.parameters() if parameter.requires_grad]
    gpus = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    norms = {}
    with torch.random.fork_rng(devices=gpus):
        for name in terms:
            torch.manual_seed(seed)
            total = [torch.zeros_like(parameter) for parameter in parameters]
            for batch in passes:
                sums = loss(batch)
                number = sums._fields.index(name)
                term = sums[number] / torch.as_tensor(counts[number], device=sums[number].device).clamp(min=1)
                for whole, part in zip(total, torch.autograd.grad(term, parameters, allow_unused=True), strict=True):
                    if part is not None:
                        whole.add_(part)
            squares = [(whole if summed is None else summed(whole)).float().square().sum() for whole in total]
            norms[name] = math.sqrt(float(torch.stack(squares).double().sum()))
    return norms


def dose(table: pd.DataFrame, term: str, *, weight: float, steps: int, first: int = 0) -> float:
    """Weight times the sum over steps of the norm of a term's gradient.

    Args:
        table: a run's ``gradient_norms``: ``step`` (steps done) and the norm of each term at the next one. Between two
            measurements the norm is interpolated linearly; before the first and after the last it is held.
        term: such as ``query_mask`` or ``key``.
        weight: of the term in the loss.
        steps: of the run.
        first: the first step, from 0, in which the term counts.

    Raises:
        InputError: no norm of the term in the table.
    """
    column = f"{PREFIX}{term}"
    norms = table[column].to_numpy(dtype=float) if column in table else np.array([])
    measured = np.isfinite(norms)
    if not measured.any():
        raise InputError(f"dose: the table has no norm of {term}; train with log_gradient_norms_every and its weight")
    at, norms = table["step"].to_numpy(dtype=float)[measured], norms[measured]
    order = at.argsort()
    return weight * float(np.interp(np.arange(first, steps), at[order], norms[order]).sum())


class Pilot(NamedTuple):
    """A run of the control at one weight."""

    weight: float
    """Of the control's term."""
    dose: float
    """What it added up to."""


def match_weight(
    dose_at: Callable[[float], float], target: float, *, start: float, tolerance: float = 0.1, most: int = 8
) -> list[Pilot]:
    """Search the weight at which a term's dose is the target: pilots, the last of which is within the tolerance.

    The dose is taken to grow as a power of the weight, which is fitted to the last two pilots (a secant in logarithms).

    Args:
        dose_at: runs a pilot at a weight and gives its dose.
        target: dose to match, above 0.
        start: first weight, above 0.
        tolerance: largest distance of dose / target from 1.
        most: pilots.

    Raises:
        InputError: a target or a start that is not above 0.
        RunError: no pilot came within the tolerance, with what was reached.
    """
    if not (target > 0 and start > 0):
        raise InputError(f"match_weight: got target {target:g} and start {start:g}, expected both above 0")
    pilots: list[Pilot] = []
    weight = start
    while len(pilots) < most:
        pilots.append(Pilot(weight, dose_at(weight)))
        ratio = pilots[-1].dose / target
        if abs(ratio - 1) <= tolerance:
            return pilots
        if ratio <= 0:
            break
        weight *= ratio ** (-1 / _power(pilots))
    reached = ", ".join(f"{pilot.dose:.3g} at weight {pilot.weight:.3g}" for pilot in pilots)
    raise RunError(
        f"match_weight: no weight of {len(pilots)} comes within {tolerance:.0%} of the dose {target:.3g} ({reached}); "
        "a control that learns K sends less and less: take a lower target, or a larger tolerance"
    )


def _power(pilots: Sequence[Pilot]) -> float:
    """Slope of log dose over log weight at the last two pilots, kept where a step makes sense; 1 from one pilot."""
    if len(pilots) < 2:
        return 1.0
    before, last = pilots[-2:]
    if before.weight == last.weight or before.dose <= 0:
        return 1.0
    return min(2.0, max(0.2, math.log(last.dose / before.dose) / math.log(last.weight / before.weight)))
