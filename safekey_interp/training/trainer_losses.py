"""SafeKey's two losses for other trainers: a mixin for transformers' ``Trainer`` and TRL's ``SFTTrainer``.

    class SafeKeySFTTrainer(ski.SafeKeyLosses, SFTTrainer): ...

    rows = Dataset.from_list(ski.training_rows(model, traces))
    trainer = SafeKeySFTTrainer(model=model.hf, train_dataset=rows, processing_class=model.tokenizer, args=SFTConfig(
        "out", remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}))

The trainer's own loss stays what it is. The head's and query-mask modelling's are added to it, each over its own count
of the step, accumulated passes and processes included (:mod:`safekey_interp.training.losses`). Data, optimizer,
schedule and logging are the trainer's. The safety head is a part of the model (``model.safety_head``), so that it is
trained and saved with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from safekey_interp.capture.residual_edits import final_states
from safekey_interp.errors import InputError
from safekey_interp.models.encoding import Encoding, TokenSpan
from safekey_interp.models.safety_head import THETA, SafetyHead
from safekey_interp.training.batch import QueryMask, QueryPass, TrainingBatch, collate
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import Example, prepare_examples
from safekey_interp.training.losses import HEAD_WEIGHT, QUERY_MASK_WEIGHT, head_loss
from safekey_interp.training.query_mask import exact_way

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

_BATCH = "safekey"
_IGNORED = -100


def training_rows(
    model: Model,
    traces: Iterable[Trace],
    *,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    max_length: int = 8192,
) -> list[dict[str, Any]]:
    """Traces as rows of a data set for :class:`SafeKeyLosses`: plain lists and numbers.

    Args:
        model: its tokenizer and template.
        traces: prompts with responses.
        finder: finds U and K; ``given`` takes the spans that came with the data.
        delimiters: marks of the reasoning; the known families' when None.
        max_length: most tokens of a trace; longer ones are left out, never cut.

    Returns:
        ``input_ids`` and ``labels`` (-100 outside the response), and what the losses read: ``label``,
        ``response_start``, and tokens of ``understanding`` and ``key_sentence`` as [start, end), None where absent.

    Raises:
        InputError: no trace is left.
    """
    about: Any = {"finder": finder, "delimiters": delimiters, "max_length": max_length, "held_out": 0.0}
    config = TrainingConfig(head_weight=0, query_mask_weight=0, **about)
    return [_row(example) for example in prepare_examples(model, traces, config).train]


class SafeKeyLosses:
    """Mixin of a ``Trainer``, before it in the list of bases: adds both losses to its own.

    Args:
        *args: the trainer's.
        head_weight: w_head; 0 for no safety head.
        query_mask_weight: w_qmm; 0 for no query-mask modelling.
        theta: θ, share of U's path in the head's loss.
        query_mask: ``short`` or ``masked``; where ``short`` is not exact for the model, ``masked``.
        **kwargs: the trainer's; ``data_collator`` is that of :func:`training_rows` unless it is given.

    Raises:
        InputError: the model is named in place of given, or the way is unknown.
    """

    def __init__(
        self,
        *args: Any,
        head_weight: float = HEAD_WEIGHT,
        query_mask_weight: float = QUERY_MASK_WEIGHT,
        theta: float = THETA,
        query_mask: QueryMask = "short",
        **kwargs: Any,
    ) -> None:
        hf = kwargs.get("model", args[0] if args else None)
        if not isinstance(hf, torch.nn.Module):
            raise InputError(f"model: got {hf!r}, expected the model itself, such as ski.load(NAME).hf")
        if query_mask not in ("short", "masked"):
            raise InputError(f"query_mask: got {query_mask!r}, expected short or masked")
        self._weights = head_weight, query_mask_weight
        layout = exact_way(hf, query_mask).layout if query_mask_weight else None
        if head_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(getattr(kwargs.get("args"), "seed", 0))
                width = hf.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
                hf.safety_head = SafetyHead(width, theta=theta).to(next(hf.parameters()).device)
        self._head: SafetyHead | None = getattr(hf, "safety_head", None) if head_weight else None
        self._step_counts: Tensor | None = None
        kwargs.setdefault("data_collator", partial(collate_rows, layout=layout))
        super().__init__(*args, **kwargs)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The passes of a step; what their losses are divided by is counted over all of them."""
        samples, n_items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        counts = sum((_counts(sample[_BATCH]) for sample in samples), torch.zeros(2, dtype=torch.int64))
        trainer: Any = self
        if trainer.args.world_size > 1:
            counts = trainer.accelerator.reduce(counts.to(trainer.args.device), "sum").cpu()
        self._step_counts = counts
        return samples, n_items

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The trainer's loss and both of SafeKey's, of one pass."""
        rest = {name: value for name, value in inputs.items() if name != _BATCH}
        trainer: Any = self
        batch: TrainingBatch = inputs[_BATCH].to(trainer.args.device)
        how: Any = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch}
        with final_states(trainer.model) as seen:
            found: Any = super().compute_loss(model, rest, **how)  # type: ignore[misc]
        loss, outputs = found if return_outputs else (found, None)
        of_step = model.training and self._step_counts is not None
        n_rows, n_tokens = (self._step_counts if of_step else _counts(batch)).clamp(min=1).tolist()  # type: ignore[union-attr]
        head_weight, query_mask_weight = self._weights
        added = torch.zeros((), device=trainer.args.device)
        if self._head is not None:
            logits = self._head(seen[0], batch.understanding, batch.context)
            summed = head_loss(logits, batch.harmful, batch.counted, theta=self._head.theta)
            added = added + head_weight * summed / n_rows
        if query_mask_weight and batch.query is not None:
            added = added + query_mask_weight * _masked_loss(model, batch.query) / n_tokens
        loss = loss + added * (trainer.args.world_size if of_step else 1)
        return (loss, outputs) if return_outputs else loss


def collate_rows(rows: Sequence[dict[str, Any]], layout: QueryMask | None = "short") -> dict[str, Any]:
    """A batch of :func:`training_rows`: padded ids and labels, and the tensors that the losses read.

    Args:
        rows: the rows.
        layout: of the pass in which the prompt is masked; None for none.
    """
    batch = collate([_encoding(row) for row in rows], [row["label"] for row in rows], layout=layout)
    labels = torch.where(batch.response, batch.input_ids, _IGNORED)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(batch.input_ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": batch.input_ids, "attention_mask": mask, "labels": labels, _BATCH: batch}


def _row(example: Example) -> dict[str, Any]:
    encoding = example.encoding
    ids, start = encoding.input_ids.tolist(), encoding.response_start
    row: dict[str, Any] = {"trace_id": example.trace_id, "label": example.label, "response_start": start}
    row |= {"input_ids": ids, "labels": [_IGNORED] * start + ids[start:]}
    for name in ("understanding", "key_sentence"):
        where = encoding.positions(name)
        row[name] = [where[0], where[-1] + 1] if len(where) else None
    return row


def _encoding(row: dict[str, Any]) -> Encoding:
    spans = {name: None if row[name] is None else TokenSpan(*row[name]) for name in ("understanding", "key_sentence")}
    understanding = spans["understanding"]
    context = None if understanding is None else TokenSpan(0, understanding.end)
    return Encoding(
        trace_id=row["trace_id"],
        text="",
        input_ids=torch.tensor(row["input_ids"], dtype=torch.int64),
        offsets=(),
        response_start=row["response_start"],
        spans={**spans, "context": context},
        straddling=(),
    )


def _counts(batch: TrainingBatch) -> Tensor:
    """Rows that the head counts, and tokens of K that are predicted with the prompt masked."""
    return torch.stack([torch.as_tensor(batch.counts.rows), torch.as_tensor(batch.counts.key_tokens)]).cpu()


def _masked_loss(model: Any, query: QueryPass) -> Tensor:
    """Summed cross-entropy of K with the prompt masked, through the model as the trainer wraps it."""
    options: dict[str, Any] = {} if query.attention_mask is None else {"attention_mask": query.attention_mask}
    logits = model(input_ids=query.input_ids, use_cache=False, **options).logits
    chosen = query.targets[:, 1:]
    return F.cross_entropy(logits[:, :-1][chosen].float(), query.input_ids[:, 1:][chosen], reduction="sum")
