"""How does the mechanism move while the model is trained?

Every so many steps the same held-out traces are looked at: what K attends to, by layer; how well the states tell
harmful from benign; how likely safe key sentences are beside go-aheads. Each look is a folder of tables, written as a
whole or not at all::

    step-000123/attention_by_layer.parquet, separability.parquet, aha.parquet

Training does not notice: modes, gradients and random numbers are as they were. A part that the traces do not allow
(separability needs two classes of five groups each) is absent.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from transformers import TrainerCallback

from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.recording import evaluating
from safekey_interp.capture.streaming import StreamSettings, measure_stream
from safekey_interp.data.conditions import subsets_of
from safekey_interp.generation.aha_score import measure_aha, summarise_aha
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, read_key_sentences
from safekey_interp.measures.attention_summary import QUANTITIES, summarise_layers, summarise_trace
from safekey_interp.measures.separability import measure_separability
from safekey_interp.runs.storage import remove_leftovers, write_folder_aside
from safekey_interp.training.config import TrainingConfig

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


TABLES = ("attention_by_layer", "separability", "aha")
"""What a look leaves, each table with a first column ``step``."""
_NAME = re.compile(r"step-(\d{6,})")


def watch(
    model: Model,
    traces: Sequence[Trace],
    folder: Path,
    *,
    step: int,
    seed: int = 0,
    bank: KeySentences | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
) -> None:
    """Look at some traces through the model as it is now, and write what is seen to ``folder/step-…``.

    The model and the random numbers of Python, NumPy and torch are afterwards as they were. A look at the same step
    is replaced.

    Args:
        model: in training or not, with gradient checkpointing or without.
        traces: the same at every look; held out from training.
        folder: of all looks.
        step: optimizer steps done.
        seed: of every draw; the same at every look, so that looks differ by the model alone.
        bank: key sentences; :func:`~safekey_interp.generation.key_sentence_bank.bank_for` the tokenizer when None.
        finder: finds U and K.
        delimiters: marks of the reasoning; the known families' when None.

    Raises:
        InputError: no trace can be measured, or none has an understanding.
        ModelError: the model's attention cannot be read.
    """
    found: dict[str, Any] = {"finder": finder, "delimiters": delimiters}
    with _undisturbed(model.hf), evaluating(model.hf):
        tables = {
            "attention_by_layer": _attention_by_layer(model, traces, StreamSettings(**found), seed),
            # Empty, and so not written, with one class or too few groups.
            "separability": measure_separability(model, traces, label_by="label", seed=seed, **found),
            "aha": summarise_aha(measure_aha(model, traces, bank=bank, **found)),
        }

    def fill(aside: Path) -> None:
        for name, table in tables.items():
            if not table.empty:
                table.insert(0, "step", step)
                table.to_parquet(aside / f"{name}.parquet", index=False, compression="zstd")

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}"
    shutil.rmtree(path, ignore_errors=True)
    write_folder_aside(path, fill)


def joined(folder: Path) -> dict[str, pd.DataFrame]:
    """Each of :data:`TABLES` over all looks, in the order of steps; one that no look has is absent."""
    tables = {}
    for name in TABLES:
        files = [file for _, look in _looks(folder) if (file := look / f"{name}.parquet").is_file()]
        if files:
            tables[name] = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    return tables


def forget_after(folder: Path, step: int) -> None:
    """Delete the looks later than a step, and what killed ones left: training goes on from there."""
    for number, look in _looks(folder):
        if number > step:
            shutil.rmtree(look, ignore_errors=True)  # another process may be at it, too
    remove_leftovers(folder)


def _looks(folder: Path) -> list[tuple[int, Path]]:
    """Steps and folders of all looks, in the order of steps."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(name[1]), path) for path in entries if (name := _NAME.fullmatch(path.name)))


def _attention_by_layer(model: Model, traces: Sequence[Trace], settings: StreamSettings, seed: int) -> pd.DataFrame:
    """The table of the same name of a probe's run."""
    summaries, groups, belongs = [], [], []
    for entry in measure_stream(model, traces, CaptureRequest(states=False, seed=seed), settings):
        if entry.measured is None or entry.measured.attention is None or not entry.measured.attention.n_q.any():
            continue
        summaries.append(summarise_trace(entry.measured.attention).by_layer)
        groups.append(entry.trace.group)
        belongs.append(subsets_of(entry.trace.label, entry.segmentation.aha))
    if not summaries:
        return pd.DataFrame()
    stacked = np.stack(summaries)
    names = list(dict.fromkeys(name for mine in belongs for name in mine))
    masks = {name: np.array([name in mine for mine in belongs]) for name in names}
    masks = {name: mask for name, mask in masks.items() if name == "all" or not mask.all()}
    return summarise_layers(lambda name: stacked[..., QUANTITIES.index(name)], groups, masks, range(model.n_layers))


@contextmanager
def _undisturbed(hf: Any) -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had been drawn; a compiled model runs as it was written."""
    cards = sorted({p.device.index for p in hf.parameters() if p.device.type == "cuda"})
    python, legacy = random.getstate(), np.random.get_state()
    try:
        # Hooks and the attention tap change what a compiled layer was compiled for.
        with torch.random.fork_rng(devices=cards), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


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
