"""Callback of a ``Trainer`` that takes snapshots: attention, separability and key sentences by step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from safekey_interp.capture.capture_request import STATE_POSITIONS, expressions, span_pairs
from safekey_interp.capture.streaming import StreamSettings
from safekey_interp.errors import InputError
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, read_key_sentences
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.probe_snapshots import Snapshots

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


class SnapshotCallback(TrainerCallback):
    """Takes snapshots during the training of any ``Trainer``, in the first process alone.

        trainer.add_callback(ski.SnapshotCallback(ski.from_hf(hf, tokenizer), held_out, "snapshots", every=50))
        trainer.train()
        tables = ski.read_snapshots("snapshots")

    The first is taken before the first step, the last after the last. Training proceeds as without it. The weights must
    be whole in each process: not with FSDP or ZeRO-3.
    """

    def __init__(
        self,
        model: Model,
        traces: Sequence[Trace],
        folder: str | Path,
        *,
        every: int = 1,
        finder: str = "rules",
        delimiters: tuple[str, str] | None = None,
        queries: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        positions: Sequence[str] | None = None,
        key_sentences: KeySentences | None = None,
        seed: int = 0,
    ) -> None:
        """Say what is measured.

        Args:
            model: from ``from_hf`` or ``load``; ``model.hf`` is what the trainer trains.
            traces: held out from training.
            folder: of the snapshots, a folder each.
            every: steps between two.
            finder: finds U and K.
            delimiters: marks of the reasoning; the known families' when None.
            queries: span expressions of the tokens that attend; the built-in ones when None.
            keys: of the tokens that are attended to.
            positions: of the tokens whose states are probed.
            key_sentences: safe and compliant ones that are scored; those that fit the tokenizer when None.
            seed: of every draw.

        Raises:
            InputError: an expression that cannot be parsed, or fewer than one step.
        """
        if every < 1:
            raise InputError(f"every: got {every}, expected at least 1 step")
        wanted = STATE_POSITIONS if positions is None else expressions(positions, "positions")
        options: Any = {"seed": seed, "bank": key_sentences, "spans": span_pairs(queries, keys), "positions": wanted}
        settings = StreamSettings(finder=finder, delimiters=delimiters)
        self._prepare = partial(Snapshots, model, traces, settings, **options)
        self._snapshots: Snapshots | None = None
        self._folder, self._every = Path(folder), every
        self._latest: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The snapshot before the first step."""
        if state.global_step == 0:
            self._take(args, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A snapshot every so many steps, and one after the last; before a checkpoint says that the step is done."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            self._take(args, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last snapshot of a run that stops early, which its measurement decides."""
        if control.should_training_stop and self._latest != state.global_step:
            self._take(args, state.global_step)

    def _take(self, args: Any, step: int) -> None:
        self._latest = step
        if args.process_index == 0:
            self._snapshots = self._snapshots or self._prepare()
            self._snapshots.take(self._folder, step)


def bank_of(model: Model, config: TrainingConfig) -> KeySentences:
    """The key sentences that a run asks for.

    Raises:
        InputError: their file cannot be used, or the tokenizer can spell no bank.
    """
    named = config.key_sentences
    return read_key_sentences(named) if named else bank_for(model.tokenizer)


def callback_of(model: Model, traces: Sequence[Trace], folder: Path, config: TrainingConfig) -> SnapshotCallback:
    """The callback of a run of ``train``; errors as for :func:`bank_of`."""
    return SnapshotCallback(
        model,
        traces,
        folder,
        every=config.probe_every or 1,
        finder=config.finder,
        delimiters=config.delimiters,
        queries=config.probe_queries,
        keys=config.probe_keys,
        positions=config.probe_positions,
        key_sentences=bank_of(model, config),
        seed=config.seed,
    )
