"""Learning rate of the safety head, from how far one optimizer step moves its logit.

The head's logit is w · x + b, with x a mean of states. A step of AdamW moves each weight by about its learning rate η,
whatever the size of the gradient, so one step moves the logit by up to η · |x|₁, a number that grows with the width and
the scale of the states. The rate is therefore taken from them:

    η_head = LOGIT_STEP / (θ · E|mean over U|₁ + (1 − θ) · E|mean over the context|₁)

The scaling with 1 / width is that of output layers under Adam in Yang et al. 2022 (arXiv 2203.03466, table 8); here the
norm is measured, since final norms scale states differently (|x|₁ is 60 in ``organism:base``, 420 in SmolLM2-135M).
:data:`LOGIT_STEP` was chosen on frozen states of these two models, by the loss of held-out traces after 35 steps.

Where we differ: the paper and its released code give the head the model's rate (1e-5), at which its loss stays where it
began: on SmolLM2-135M's states a rate of 5e-5 moves the logit by at most .02 a step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from safekey_interp.capture.architecture import evaluating

if TYPE_CHECKING:
    from safekey_interp.models.model import Model
    from safekey_interp.training.config import TrainingConfig
    from safekey_interp.training.examples import Example

LOGIT_STEP = 2.0
"""Most that one step at the peak of the schedule moves the logit of a typical trace."""
N_TRACES = 32
"""Traces of training whose states are measured."""


class HeadRate(NamedTuple):
    """The safety head's learning rate and what it follows from."""

    learning_rate: float
    """Peak of the schedule, to two significant digits, so that every process and machine takes the same."""
    states_l1: float | None
    """Mean |x|₁ of what the head reads; None where the rate was given."""
    n: int
    """Traces that were measured; 0 where the rate was given."""


def head_rate(model: Model, examples: Sequence[Example], config: TrainingConfig) -> HeadRate | None:
    """The learning rate of the safety head: the one that was set, else from the states that the head reads.

    Args:
        model: before its first step.
        examples: rows of training.
        config: head_weight, head_learning_rate, head_layer, theta, learning_rate and seed.

    Returns:
        The rate; None without a safety head. The model's own rate where no trace counts for the head, or where its
        states are no numbers.
    """
    if not config.head_weight:
        return None
    if config.head_learning_rate is not None:
        return HeadRate(config.head_learning_rate, None, 0)
    counted = [row for row in examples if row.label is not None and len(row.encoding.positions("understanding"))]
    drawn = random.Random(config.seed).sample(counted, min(N_TRACES, len(counted)))
    with torch.no_grad(), evaluating(model.hf):
        norms = [_l1_of_read(model, row, config) for row in drawn]
    norm = sum(norms) / max(1, len(norms))
    if not math.isfinite(norm) or norm <= 0:
        return HeadRate(config.learning_rate, None, len(drawn))
    return HeadRate(rate_for(norm), norm, len(drawn))


def rate_for(states_l1: float) -> float:
    """Learning rate at which one step of AdamW moves the logit of a state with this |x|₁ by :data:`LOGIT_STEP`.

    Args:
        states_l1: above 0.
    """
    return float(f"{LOGIT_STEP / states_l1:.1e}")


def _l1_of_read(model: Model, example: Example, config: TrainingConfig) -> float:
    """|x|₁ of what each path of the head reads of a trace, weighed as the paths' losses are."""
    encoding, layer = example.encoding, config.head_layer
    end = encoding.positions("context")[-1] + 1
    ids = encoding.input_ids[None, :end].to(model.device)
    out = model.hf.get_decoder()(input_ids=ids, use_cache=False, output_hidden_states=layer is not None)
    states = (out.last_hidden_state if layer is None else out.hidden_states[layer + 1])[0].float()
    paths = ((config.theta, "understanding"), (1 - config.theta, "context"))
    return sum(share * float(states[list(encoding.positions(name))].mean(0).abs().sum()) for share, name in paths)
