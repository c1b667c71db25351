"""Terms of SafeKey's loss from states and spans: tensors alone, no model, no data, no trainer.

Of the states h after the final norm, for a prompt with label y (1 = harmful), understanding U, key sentence K and
context C (the sequence's first token to the end of U):

    head       = θ · BCE(w_u · mean_{t in U} h_t + b_u, y) + (1 − θ) · BCE(w_c · mean_{t in C} h_t + b_c, y)
    query_mask = mean over t in K of −log p(x_t | the response before t), the prompt masked
    key        = mean over t in K of −log p(x_t | all before t): query_mask's control, the prompt visible
    total      = lm + w_head · head + w_qmm · query_mask + w_key · key

the Dual-Path Safety Head and Query-Mask Modeling of SafeKey (Zhou et al. 2025, arXiv 2505.16186). Each term is a sum
and a count until the very end: rows differ in length, ranks in rows, and a mean of means would weigh them by chance.

Where we differ: C is what the released code averages (the template's tokens too), the paper says X and U; each term is
logged as itself, and none is added to another in place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from safekey_interp.capture.unembedding import Unembedding
from safekey_interp.models.safety_head import THETA, HeadLogits

HEAD_WEIGHT = 0.2
"""w_head of the paper."""
QUERY_MASK_WEIGHT = 0.2
"""w_qmm of the paper."""


def head_loss(
    logits: HeadLogits, harmful: Float[Tensor, " row"], counted: Bool[Tensor, " row"], *, theta: float = THETA
) -> Float[Tensor, ""]:
    """Summed loss of both paths over the rows that count.

    Args:
        logits: from :class:`SafetyHead`.
        harmful: 1 for harmful, 0 for benign; anything where the row does not count.
        counted: rows with a label and a U; the others give nothing.
        theta: share of U's path.
    """
    target = torch.where(counted, harmful, 0.0)
    by_u, by_c = (F.binary_cross_entropy_with_logits(path, target, reduction="none") for path in logits)
    return torch.where(counted, theta * by_u + (1 - theta) * by_c, 0.0).sum()


class Counts(NamedTuple):
    """What each term is divided by: of this batch, or of all ranks and micro-batches of one step."""

    tokens: Tensor | int
    """Response tokens."""
    rows: Tensor | int
    """Rows with a label and a U."""
    key_tokens: Tensor | int
    """Tokens of key sentences that the prompt-masked pass predicts."""
    visible_key_tokens: Tensor | int = 0
    """Tokens of key sentences, where these are weighed with the prompt visible."""


class LossSums(NamedTuple):
    """Each term before it is divided."""

    lm: Float[Tensor, ""]
    """Cross-entropy summed over response tokens, nats."""
    head: Float[Tensor, ""]
    """The safety head's loss summed over its rows, nats."""
    query_mask: Float[Tensor, ""]
    """Cross-entropy summed over tokens of K with the prompt masked, nats."""
    key: Float[Tensor, ""]
    """The same with the prompt visible, where it is weighed; else 0."""


class LossTerms(NamedTuple):
    """The loss of one batch; each term is a mean of its own, 0 where nothing counts for it."""

    lm: Float[Tensor, ""]
    """Nats a response token."""
    head: Float[Tensor, ""]
    """Nats a row."""
    query_mask: Float[Tensor, ""]
    """Nats a token of K."""
    total: Float[Tensor, ""]
    """lm + w_head · head + w_qmm · query_mask + w_key · key."""
    key: Float[Tensor, ""]
    """Nats a token of K, the prompt visible; 0 unless it is weighed."""
    counts: Counts
    """What the terms were divided by."""


def combine(
    sums: LossSums,
    counts: Counts,
    *,
    head_weight: float = HEAD_WEIGHT,
    query_mask_weight: float = QUERY_MASK_WEIGHT,
    key_weight: float = 0.0,
) -> LossTerms:
    """Terms and total from sums.

    Args:
        sums: of this batch.
        counts: of this batch, or of all that one optimizer step sees.
        head_weight: w_head.
        query_mask_weight: w_qmm.
        key_weight: w_key.
    """
    lm, head, query_mask, key = (
        total / torch.as_tensor(count, device=total.device).clamp(min=1)
        for total, count in zip(sums, counts, strict=True)
    )
    weighed = head_weight * head + query_mask_weight * query_mask + key_weight * key
    return LossTerms(lm, head, query_mask, lm + weighed, key, counts)


def summed_cross_entropy(
    states: Float[Tensor, "token d_model"],
    targets: Int64[Tensor, " token"],
    unembedding: Unembedding,
    *,
    chunk: int = 1024,
) -> Float[Tensor, ""]:
    """−Σ log p(target), with the logits of ``chunk`` tokens in memory at a time.

    Where W is an ordinary linear layer, the gradients are taken while the logits are there, so that none is kept or
    computed twice; an adapted or sharded one goes through autograd whole.

    Args:
        states: after the final norm, of the positions that predict.
        targets: ids that follow them.
        unembedding: states to logits.
        chunk: tokens at a time.

    Returns:
        Nats; 0, still a function of ``states`` and of the unembedding, when there is no token.
    """
    if not len(targets):
        # The module is called all the same: where it is sharded, every rank must gather it as often as the others.
        return unembedding(states).sum()
    if type(unembedding.linear) is not nn.Linear or not _is_whole(unembedding.linear):
        return F.cross_entropy(unembedding(states), targets, reduction="sum")
    weight, bias = unembedding.linear.weight, unembedding.linear.bias
    return _Fused.apply(states, targets, weight, bias, unembedding, chunk)  # type: ignore[no-any-return]


def _is_whole(linear: nn.Linear) -> bool:
    """Whether the weight is a tensor of this process, and the module does nothing but multiply."""
    hooks = (linear._forward_hooks, linear._forward_pre_hooks, linear._backward_hooks, linear._backward_pre_hooks)
    return type(linear.weight) in (Tensor, nn.Parameter) and not any(hooks)


class _Fused(torch.autograd.Function):
    """Cross-entropy whose gradients are computed beside it, chunk by chunk: d/dlogits = softmax − one-hot."""

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        states: Tensor,
        targets: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        unembedding: Unembedding,
        chunk: int,
    ) -> Tensor:
        wants_states, _, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        by_states = torch.empty_like(states) if wants_states else None
        by_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        by_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias and bias is not None else None
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            raw = F.linear(states[rows], weight, bias)
            bounded = unembedding.bounded(raw).float()
            log_total = bounded.logsumexp(-1)
            target = rearrange(targets[rows], "token -> token 1")
            total += (log_total - rearrange(bounded.gather(-1, target), "token 1 -> token")).sum()
            if by_states is None and by_weight is None and by_bias is None:
                continue
            by_logits = (bounded - rearrange(log_total, "token -> token 1")).exp_()
            by_logits.scatter_add_(-1, target, by_logits.new_full(target.shape, -1.0))
            by_raw = _through_bounds(by_logits, bounded, unembedding).to(raw.dtype)
            if by_states is not None:
                by_states[rows] = by_raw @ weight.to(raw.dtype)
            if by_weight is not None:
                if raw.dtype == torch.float32:
                    by_weight.addmm_(by_raw.t(), states[rows])
                else:
                    by_weight += by_raw.t() @ states[rows].to(raw.dtype)
            if by_bias is not None:
                by_bias += reduce(by_raw.float(), "token vocab -> vocab", "sum")
        ctx.gradients = (by_states, by_weight, by_bias)
        ctx.dtypes = (states.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = grad_outputs
        by_states, by_weight, by_bias = (
            None if gradient is None else (gradient * factor).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        )
        return by_states, None, by_weight, by_bias, None, None


def _through_bounds(by_bounded: Tensor, bounded: Tensor, unembedding: Unembedding) -> Tensor:
    if unembedding.softcap is not None:
        by_bounded = by_bounded * (1 - (bounded / unembedding.softcap) ** 2)
    return by_bounded if unembedding.scale == 1.0 else by_bounded * unembedding.scale
