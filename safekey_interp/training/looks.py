"""When does training look at itself with the probes? Before the first step, every so many steps, and after the last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from safekey_interp.key_sentence_bank import KeySentences, bank_for, read_key_sentences
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.watching import watch

if TYPE_CHECKING:
    from safekey_interp.models import Model
    from safekey_interp.trace import Trace


def bank_of(model: Model, config: TrainingConfig) -> KeySentences:
    """The key sentences that a run asks for.

    Raises:
        InputError: their file cannot be used, or the tokenizer can spell no bank.
    """
    named = config.key_sentences
    return read_key_sentences(named) if named else bank_for(model.tokenizer)


class Watches(TrainerCallback):
    """Has the probes look at the same held-out traces; in the first process alone."""

    def __init__(self, model: Model, traces: Sequence[Trace], folder: Path, config: TrainingConfig) -> None:
        self._model, self._traces, self._folder, self._config = model, traces, folder, config
        self._latest: int | None = None
        self._bank = bank_of(model, config)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The look before the first step."""
        if state.global_step == 0:
            self._look(args, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A look every so many steps, and one after the last; before a checkpoint says that the step is done."""
        if state.global_step % (self._config.probe_every or 1) == 0 or state.global_step >= state.max_steps:
            self._look(args, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last look of a run that stops early, which its measurement decides."""
        if control.should_training_stop and self._latest != state.global_step:
            self._look(args, state.global_step)

    def _look(self, args: Any, step: int) -> None:
        self._latest = step
        if args.process_index == 0:
            found = {"finder": self._config.finder, "delimiters": self._config.delimiters}
            watch(self._model, self._traces, self._folder, step=step, seed=self._config.seed, bank=self._bank, **found)
