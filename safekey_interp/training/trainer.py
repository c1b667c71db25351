"""Trainer of transformers on all terms of the loss.

The base class brings accumulation, mixed precision, DDP, FSDP, DeepSpeed, schedules and trackers. What differs:

- The model is a :class:`~safekey_interp.training.batch_loss.BatchLoss`: both losses stand inside one forward call.
- Every term is a sum divided by its own count over all rows of the step: of all passes that are accumulated and of all
  processes. Gradients are averaged over processes, so the loss is multiplied by their number.
- Which rows a step sees is a function of the seed alone (:mod:`~safekey_interp.training.schedule`).
- Terms are logged as themselves, each over the rows and tokens since the last line.
- A checkpoint is written aside and renamed, so that it is whole or absent; nothing in it needs unpickling.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from safekey_interp.errors import RunError
from safekey_interp.runs.whole_files import write_sizes
from safekey_interp.training.batch import QueryMask, TrainingBatch, collate
from safekey_interp.training.batch_loss import BatchLoss
from safekey_interp.training.callbacks import Rhythm
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.examples import Example
from safekey_interp.training.gradient_norms import PREFIX, term_gradient_norms
from safekey_interp.training.losses import Counts, LossSums, LossTerms, combine
from safekey_interp.training.optimizer import adamw, rate_of_head
from safekey_interp.training.other_prompts import OtherPrompts, other_prompts_of
from safekey_interp.training.schedule import Order, PassLoader, Schedule
from safekey_interp.training.training_checkpoints import STATE, forget_old, load_weights, save_weights

TERMS = ("lm", "head", "query_mask", "key")
"""The terms of the loss, as tables name them."""
COUNTS = ("tokens", "rows", "key_tokens", "visible_key_tokens")
"""What they are divided by."""


class SafeKeyTrainer(Trainer):
    """transformers' Trainer on a :class:`BatchLoss`."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        loss: BatchLoss,
        *,
        config: TrainingConfig,
        arguments: TrainingArguments,
        schedule: Schedule,
        layout: QueryMask | None,
        train: Sequence[Example],
        held_out: Sequence[Example] = (),
        limit: int | None = None,
        tokenizer: Any = None,
        adapted: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.config, self.schedule = config, schedule
        self._layout: QueryMask | None = layout
        self._train, self._held_out, self.adapted = list(train), list(held_out), adapted
        self._others = other_prompts_of(config, self._train, limit or config.max_length)
        self._held_out_others = other_prompts_of(config, self._held_out, limit or config.max_length)
        self.loss = loss
        self._passes: list[tuple[Tensor, Counts]] = []
        self._since = time.perf_counter()
        super().__init__(
            model=loss,
            args=arguments,
            train_dataset=self._train,  # type: ignore[arg-type]
            eval_dataset=self._held_out or None,  # type: ignore[arg-type]
            processing_class=tokenizer,
            callbacks=[*callbacks, Rhythm(config, schedule, has_held_out=bool(held_out))],
        )
        self.pop_callback(PrinterCallback)
        if self.is_fsdp_enabled and config.precision == "bf16":
            # Sums of losses are numbers in the thousands, and gradients are added up over processes.
            from torch.distributed.fsdp import MixedPrecisionPolicy

            plugin: Any = self.accelerator.state.fsdp_plugin
            plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32
            )

    # The rows of a step

    def order(self, rows: Sequence[Example], *, shuffles: bool = True) -> Order:
        """The order in which rows are read, and this process's part of it."""
        return Order(
            lengths=[len(row.encoding.input_ids) for row in rows],
            batch_size=self.config.batch_size,
            micro_batch_size=self.config.micro_batch_size,
            seed=self.config.seed,
            shuffles=shuffles,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )

    def get_train_dataloader(self) -> DataLoader:
        """Lists of rows, one for each of this process's forward passes; collated when a step begins."""
        return PassLoader(self._train, self.order(self._train))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The forward passes of a step, and the counts of the step over all of them and all processes."""
        layout = self._layout if self.is_auxiliary else None
        step, others = self.state.global_step, self._others
        rows = [rows for _, rows in zip(range(num_batches), epoch_iterator, strict=False)]
        passes = [self._collated(of_pass, layout, others, step) for of_pass in rows]
        counts = torch.zeros(len(COUNTS), dtype=torch.int64)
        for batch in passes:
            counts += torch.stack([torch.as_tensor(count) for count in batch.counts])
        counts = self._summed(counts)
        interval = self.config.log_gradient_norms_every
        if interval and step % interval == 0:
            self._log_gradient_norms(passes, Counts(*counts))
        return [{"batch": batch} for batch in passes], counts

    @property
    def is_auxiliary(self) -> bool:
        """Whether the auxiliary losses count in the step that is next."""
        return self.state.global_step >= self.schedule.auxiliary_from

    # The loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This pass's part of the step's loss."""
        batch: TrainingBatch = inputs["batch"].to(self.args.device)
        sums: LossSums = model(batch)
        # Read when a line is logged, so that no pass waits for its own numbers.
        self._passes.append((torch.stack([term.detach().float() for term in sums]), batch.counts))
        terms = self._terms(sums, Counts(*num_items_in_batch), auxiliary=self.is_auxiliary)
        loss = terms.total * self.args.world_size
        return (loss, terms) if return_outputs else loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Every term over the held-out rows; ``loss`` is the total with all weights, whatever the step."""
        rows = self._held_out if eval_dataset is None else list(eval_dataset)
        model: Any = self.model_wrapped if self.is_in_train else self.loss
        was_training = self.loss.training
        model.eval()
        sums, counts = torch.zeros(2, len(TERMS), dtype=torch.float64)
        with torch.no_grad(), self.compute_loss_context_manager():
            for numbers in self.order(rows, shuffles=False).passes(0):
                # The same partners at every measurement, so that measurements differ by the model alone.
                batch = self._collated([rows[number] for number in numbers], self._layout, self._held_out_others, 0)
                sums += torch.stack([term.float().cpu().double() for term in model(batch.to(self.args.device))])
                counts += torch.stack([torch.as_tensor(count).double() for count in batch.counts])
        model.train(was_training)
        sums, counts = self._counted(self._summed(torch.stack([sums, counts])))
        terms = self._terms(LossSums(*sums), Counts(*counts), auxiliary=True)
        measured = {"loss": float(terms.total)} | _by_name(sums, counts)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a line; that of a training step has every term as itself."""
        if "loss" in logs:
            sums, counts = self._counted(self._summed(self._tally()))
            self._passes.clear()
            now = time.perf_counter()
            if not math.isfinite(logs["loss"]):
                raise RunError(
                    f"step {self.state.global_step}: the loss is not a number; lower learning_rate, or take precision "
                    "bf16 or fp32"
                )
            logs |= _by_name(sums, counts) | {"seconds": now - self._since}
            if "learning_rate" in logs and self.loss.head is not None:
                # The schedule scales both alike.
                share = logs["learning_rate"] / self.config.learning_rate
                logs["head_learning_rate"] = share * rate_of_head(self.config)
            self._since = now
        super().log(logs, start_time)

    def _log_gradient_norms(self, passes: Sequence[TrainingBatch], counts: Counts) -> None:
        """A line with the norm of the gradient of each term that counts in the step that is next."""
        counted = [True, *(exists and self.is_auxiliary for exists in self._has[1:])]
        names = [name for name, counts_now in zip(TERMS, counted, strict=True) if counts_now]
        self.loss.train()
        moved = [batch.to(self.args.device) for batch in passes]
        # Of the step alone: a run that resumes restores its random state only after this.
        seed = (self.config.seed << 20) + self.state.global_step

        def summed(tensor: Tensor) -> Tensor:
            return tensor if self.args.world_size == 1 else self.accelerator.reduce(tensor, "sum")  # type: ignore[return-value]

        with self.compute_loss_context_manager():
            norms = term_gradient_norms(self.loss, moved, counts, names, summed=summed, seed=seed)
        self.log({f"{PREFIX}{name}": norms.get(name, math.nan) for name in TERMS})

    def _terms(self, sums: LossSums, counts: Counts, *, auxiliary: bool) -> LossTerms:
        names = ("head_weight", "query_mask_weight", "key_weight")
        return combine(sums, counts, **{name: getattr(self.config, name) if auxiliary else 0.0 for name in names})

    def _tally(self) -> Tensor:
        """Sums and counts of this process's passes since the last line."""
        tally = torch.zeros(2, len(TERMS), dtype=torch.float64)
        for sums, counts in self._passes:
            tally[0] += sums.cpu().double()
            tally[1] += torch.tensor([int(count) for count in counts], dtype=torch.float64)
        return tally

    def _counted(self, tally: Tensor) -> Tensor:
        """Sums and counts of the terms that this run has; the others count nothing, so that their mean is NaN."""
        return tally * torch.tensor(self._has, dtype=tally.dtype)

    @property
    def _has(self) -> list[bool]:
        """Which of the terms this run has."""
        return [True, self.loss.head is not None, self._layout is not None, self.loss.weighs_key]

    def _collated(
        self, rows: Sequence[Example], layout: QueryMask | None, others: OtherPrompts | None, step: int
    ) -> TrainingBatch:
        encodings, labels = [row.encoding for row in rows], [row.label for row in rows]
        prompts = None if others is None else [others.partner(row, step) for row in rows]
        return collate(encodings, labels, layout=layout, packing=self.config.packing, prompts=prompts)

    def _summed(self, tensor: Tensor) -> Tensor:
        """The same of all processes, summed."""
        if self.args.world_size == 1:
            return tensor.clone()
        return self.accelerator.reduce(tensor.to(self.args.device), "sum").cpu()  # type: ignore[union-attr]

    # The optimizer

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW of :mod:`~safekey_interp.training.optimizer`."""
        if self.optimizer is None:
            self.optimizer = adamw(model or self.loss, self.loss.head, self.config)
        return self.optimizer

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """All that a run needs to resume, written aside and renamed: a kill leaves the whole of it or nothing."""
        checkpoints = Path(str(self.args.output_dir))
        folder = checkpoints / f"checkpoint-{self.state.global_step}"
        aside = folder.with_name(f".{folder.name}.00000000.aside")
        if self.args.should_save:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            self.save_model(str(aside), _internal_call=True)
            self._save_optimizer_and_scheduler(str(aside))
            self._save_scaler(str(aside))
            self._save_rng_state(str(aside))
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)  # on a full disk, half of a checkpoint takes the room of others
            raise
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(aside / STATE))
            write_sizes(aside)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
            forget_old(checkpoints, self.state.log_history, self.config)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            save_weights(folder, self.loss, self.processing_class, adapted=self.adapted, state=state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[arg-type]
        else:
            load_weights(Path(resume_from_checkpoint), self.loss, adapted=self.adapted)


def _by_name(sums: Tensor, counts: Tensor) -> dict[str, float]:
    """The mean of each term, NaN where nothing counts for it, and what it was divided by."""
    means = torch.where(counts > 0, sums / counts.clamp(min=1), math.nan)
    return dict(zip((*TERMS, *COUNTS), (*means.tolist(), *map(int, counts)), strict=True))
