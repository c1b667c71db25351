"""Trainer callbacks: when a row is logged, the held-out loss measured, a checkpoint written, and the run ended.

Also what is said where a service that ``report_to`` names cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from transformers import TrainerCallback

from safekey_interp.errors import InputError, first_line
from safekey_interp.training.config import TrainingConfig
from safekey_interp.training.schedule import Schedule
from safekey_interp.training.training_checkpoints import has_no_gain


class Rhythm(TrainerCallback):
    """Says after which steps a row is logged, the held-out loss measured, a checkpoint written, in this order.

    A row is closed wherever a run may resume or ends, so that no step is counted twice or never.
    """

    def __init__(self, config: TrainingConfig, schedule: Schedule, *, has_held_out: bool) -> None:
        self._log_every = config.log_every
        self._evaluate_every = (config.evaluate_every or schedule.steps_per_epoch) if has_held_out else None
        # With patience the best model must be there: it is written whenever it is measured.
        save_every = config.evaluate_every if config.patience else config.save_every
        self._save_every = save_every or schedule.steps_per_epoch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Decide."""
        step = state.global_step
        ends = step >= state.max_steps
        if self._evaluate_every is not None:
            control.should_evaluate = ends or step % self._evaluate_every == 0
        control.should_save = ends or step % self._save_every == 0
        control.should_log = control.should_evaluate or control.should_save or step == 1 or step % self._log_every == 0


class StopsEarly(TrainerCallback):
    """Ends a run after so many measurements of the held-out loss without a gain; all it needs is in the log."""

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the measurements so far."""
        if has_no_gain(state.log_history, self._patience):
            control.should_training_stop = True


@contextmanager
def clear_logger_errors(report_to: Sequence[str]) -> Iterator[None]:
    """Name the option where the Trainer's callback of a service fails: no package, no login, an unknown name.

    Args:
        report_to: services that the run reports to.

    Raises:
        InputError: an error came from one of these callbacks.
    """
    try:
        yield
    except Exception as error:
        modules = {frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__)}
        if not report_to or "transformers.integrations.integration_utils" not in modules:
            raise
        said = first_line(error).rstrip(".")
        raise InputError(f"report_to {list(report_to)}: {said}; mend that, or leave report_to out") from error
