"""Loss of a batch: language modelling, safety head and query-mask modelling.

One forward of the decoder gives the states that the safety head reads and, where a loss reads them alone, the logits.
Both losses stand inside one module's forward, so that whatever wraps it (DDP, FSDP2, DeepSpeed) sees one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from safekey_interp.capture.unembedding import unembedding_of
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import InputError
from safekey_interp.models.safety_head import SafetyHead
from safekey_interp.segmentation.segmenter import segment_all
from safekey_interp.training.batch import LAYOUTS, QueryMask, TrainingBatch, collate
from safekey_interp.training.losses import (
    HEAD_WEIGHT,
    QUERY_MASK_WEIGHT,
    LossSums,
    LossTerms,
    combine,
    head_loss,
    summed_cross_entropy,
)
from safekey_interp.training.query_mask import check_packing, exact_way

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


def loss_terms(
    model: Model,
    head: SafetyHead,
    traces: Sequence[Trace],
    *,
    query_mask: QueryMask = "short",
    other_prompts: Sequence[Trace] | None = None,
    packing: bool = False,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    head_weight: float = HEAD_WEIGHT,
    query_mask_weight: float = QUERY_MASK_WEIGHT,
) -> LossTerms:
    """The three terms of one batch, differentiable.

    Args:
        model: from ``load`` or ``from_hf``.
        head: the safety head.
        traces: the batch; the tokens are exactly those of ``model.encode(trace)``.
        query_mask: ``short``, ``packed`` or ``masked``; where that is not exact for the model, the next way that is.
        other_prompts: for each trace, one whose prompt stands before the trace's response when K is predicted, in place
            of the mask; the prompt is masked when None.
        packing: all traces behind one another in one row.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.
        head_weight: w_head.
        query_mask_weight: w_qmm.

    Returns:
        ``lm``, the mean over all response tokens of the batch; ``head``, over the rows with a label and a U;
        ``query_mask``, over all tokens of K; ``total``. A term for which nothing counts is 0.

    Raises:
        InputError: no trace, an unknown way, a model that does not keep traces in one row apart, or other prompts that
            are not one for each trace, or behind which its response has other tokens.
        TraceError: a trace cannot be encoded.
        ModelError: its logits are not what its configuration says.
    """
    traces = list(as_traces(traces))
    if not traces:
        raise InputError("traces: got none, expected at least one")
    if query_mask not in LAYOUTS:
        raise InputError(f"query_mask: got {query_mask!r}, expected one of {', '.join(LAYOUTS)}")
    segmentations = list(segment_all(traces, finder=finder, delimiters=delimiters))
    encodings = [model.encode(*pair) for pair in zip(traces, segmentations, strict=True)]
    layout = exact_way(model.hf, query_mask, shows_other=other_prompts is not None).layout
    others = None
    if other_prompts is not None:
        if len(other_prompts) != len(traces):
            raise InputError(f"other_prompts: got {len(other_prompts)}, expected one for each of {len(traces)} traces")
        swapped = [
            trace.with_(prompt=o.prompt, messages=o.messages, steps=o.steps)
            for trace, o in zip(traces, other_prompts, strict=True)
        ]
        others = [model.encode(*pair) for pair in zip(swapped, segmentations, strict=True)]
        for other, own in zip(others, encodings, strict=True):
            if not torch.equal(other.input_ids[other.response_start :], own.input_ids[own.response_start :]):
                raise InputError(f"other_prompts: trace {own.trace_id}'s response has other tokens behind that prompt")
    if packing:
        check_packing(model.hf)
    labels = [trace.label for trace in traces]
    batch = collate(encodings, labels, layout=layout, packing=packing, prompts=others).to(model.device)
    sums = BatchLoss(model.hf, head)(batch)
    return combine(sums, batch.counts, head_weight=head_weight, query_mask_weight=query_mask_weight)


class BatchLoss(nn.Module):
    """Model and safety head as one module: a batch goes in, summed terms come out."""

    def __init__(
        self, hf: Any, head: SafetyHead | None, *, head_layer: int | None = None, weighs_key: bool = False
    ) -> None:
        super().__init__()
        self.hf = hf
        """The causal model."""
        self.head = head
        """The safety head; None where there is no such loss."""
        self.head_layer = head_layer
        """The layer whose output the head reads; None for the states after the final norm (the paper's)."""
        self.weighs_key = weighs_key
        """Whether K is predicted once more with the prompt in sight."""
        self._unembedding = unembedding_of(hf)
        self._no_split_modules = _names_of_blocks(hf)

    def forward(self, batch: TrainingBatch) -> LossSums:
        """Summed terms of a batch; see :class:`~safekey_interp.training.losses.LossSums`."""
        options: dict[str, Any] = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
        if self.head_layer is not None:
            options["output_hidden_states"] = True
        out = self.hf.get_decoder()(input_ids=batch.input_ids, use_cache=False, **options)
        states = out.last_hidden_state
        by_head = key = states.new_zeros((), dtype=torch.float32)
        if self.head is not None:
            read = states if self.head_layer is None else out.hidden_states[self.head_layer + 1]
            if batch.beginnings is not None:
                read = read[0, batch.beginnings]
            logits = self.head(read, batch.understanding, batch.context)
            by_head = head_loss(logits, batch.harmful.to(read.device), batch.counted, theta=self.head.theta)
        lm = self._predict(states, batch.input_ids, batch.response)
        if self.weighs_key:
            key = self._predict(states, batch.input_ids, batch.key)
        if batch.query is None:
            masked = self._predict(states, batch.input_ids, batch.packed)
        else:
            mask = batch.query.attention_mask
            options = {} if mask is None else {"attention_mask": mask}
            again = self.hf.get_decoder()(input_ids=batch.query.input_ids, use_cache=False, **options).last_hidden_state
            masked = self._predict(again, batch.query.input_ids, batch.query.targets)
        return LossSums(lm, by_head, masked, key)

    def _predict(self, states: Tensor, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy of the target tokens, each from the state before it."""
        chosen = targets[:, 1:]
        return summed_cross_entropy(states[:, :-1][chosen], input_ids[:, 1:][chosen], self._unembedding)


def _names_of_blocks(hf: Any) -> list[str]:
    """What accelerate asks a module for when it wraps layers; of the model's own list only what is in this model."""
    present = {type(module).__name__ for module in hf.modules()}
    return sorted(present & set(getattr(hf, "_no_split_modules", None) or ()))
