"""Snapshots of the mechanism while a model is trained.

Every so many steps the same held-out traces are measured: attention of the key sentence by layer, separability of
harmful and benign traces in the states, log-probability of safe key sentences beside compliant ones. Each snapshot is
a folder of tables, written as a whole or not at all::

    step-000123/attention_by_layer.parquet, separability.parquet, aha.parquet

The traces are segmented and encoded once; attention and states of a batch come from one forward pass. Training
proceeds as without snapshots: modes, gradients and random numbers are restored. A part that the traces do not allow
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

from safekey_interp.capture.architecture import evaluating
from safekey_interp.capture.capture_request import RECIPE, STATE_POSITIONS, CaptureRequest, SpanPairs
from safekey_interp.capture.hidden_states import StatesInMemory
from safekey_interp.capture.streaming import Entry, StreamSettings, measure_entries, prepare
from safekey_interp.data.class_labels import HARM
from safekey_interp.data.conditions import subsets_of
from safekey_interp.generation.aha_score import place_sentences, score_sentences, summarise_aha
from safekey_interp.generation.key_sentence_bank import KeySentences, bank_for, spelled
from safekey_interp.measures.attention_summary import QUANTITIES, subset_masks, summarise_layers, summarise_trace
from safekey_interp.measures.layer_loop import ProbeData
from safekey_interp.measures.separability import Separability
from safekey_interp.runs.storage import remove_leftovers, write_folder_aside

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model


TABLES = ("attention_by_layer", "separability", "aha")
"""Tables of a snapshot, each with a first column ``step``."""
_NAME = re.compile(r"step-(\d{6,})")


class Snapshots:
    """Snapshots of a model on the same traces, which are prepared once."""

    def __init__(
        self,
        model: Model,
        traces: Sequence[Trace],
        settings: StreamSettings = StreamSettings(),
        *,
        spans: SpanPairs = RECIPE,
        positions: Sequence[str] = STATE_POSITIONS,
        seed: int = 0,
        bank: KeySentences | None = None,
    ) -> None:
        """Segment and encode the traces.

        Args:
            model: in training or not, with gradient checkpointing or without.
            traces: held out from training.
            settings: how they are segmented and encoded.
            spans: between which attention is measured.
            positions: span expressions of the tokens whose states are read.
            seed: of every draw; the same in each snapshot, so that snapshots differ by the model alone.
            bank: key sentences; :func:`~safekey_interp.generation.key_sentence_bank.bank_for` the tokenizer when None.

        Raises:
            InputError: the tokenizer cannot spell the bank, or an expression names a span that no trace has.
        """
        self._model, self._seed = model, seed
        self._request = CaptureRequest(spans=spans, positions=tuple(positions), seed=seed)
        self._settings = settings
        self._bank = bank_for(model.tokenizer) if bank is None else spelled(model.tokenizer, bank)
        self._entries = list(prepare(model, traces, self._settings, self._request))
        pairs = ((entry.trace, entry.segmentation) for entry in self._entries)
        self._placed = list(place_sentences(model, pairs, self._bank))
        self._measured_ids: tuple[str, ...] = ()
        self._probes: Separability | None = None

    def take(self, folder: Path, step: int) -> None:
        """Measure the model as it is now and write the tables to ``folder/step-…``, in place of an earlier snapshot.

        The model and the random numbers of Python, NumPy and torch are afterwards as they were.

        Args:
            folder: of all snapshots.
            step: optimizer steps done.

        Raises:
            InputError: no trace can be measured, or none has an understanding.
            ModelError: the model's attention cannot be read.
        """
        with _undisturbed(self._model.hf), evaluating(self._model.hf):
            tables = self._tables()

        def fill(aside: Path) -> None:
            for name, table in tables.items():
                if not table.empty:
                    table.insert(0, "step", step)
                    table.to_parquet(aside / f"{name}.parquet", index=False, compression="zstd")

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{step:06d}"
        shutil.rmtree(path, ignore_errors=True)
        write_folder_aside(path, fill)

    def _tables(self) -> dict[str, pd.DataFrame]:
        request = self._request
        entries = measure_entries(self._model, self._entries, request, self._settings)
        measured = [entry for entry in entries if entry.measured is not None]
        return {
            "attention_by_layer": _attention_by_layer(measured, range(self._model.n_layers), request.spans),
            # Empty, and so not written, with one class or too few groups.
            "separability": self._separability(measured, request),
            "aha": summarise_aha(score_sentences(self._model, self._placed, self._bank)),
        }

    def _separability(self, measured: Sequence[Entry], request: CaptureRequest) -> pd.DataFrame:
        states = StatesInMemory(measured, request.sites(self._model.n_layers), request.positions)
        if self._probes is None or states.trace_ids != self._measured_ids:
            traces, segmentations = ([getattr(e, name) for e in measured] for name in ("trace", "segmentation"))
            data = ProbeData.of(states, traces, segmentations, "label")
            data = data._replace(labels=[label if label in HARM else None for label in data.labels])
            self._probes, self._measured_ids = Separability.of(data, seed=self._seed), states.trace_ids
        return self._probes.measure(states)


def read_snapshots(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Tables of all snapshots in a folder, by name: ``attention_by_layer``, ``separability``, ``aha``.

    Args:
        folder: of a ``SnapshotCallback``.

    Returns:
        Each table in the order of steps, its first column; one that no snapshot has is absent.
    """
    tables = {}
    for name in TABLES:
        files = [file for _, path in _snapshots(Path(folder)) if (file := path / f"{name}.parquet").is_file()]
        if files:
            tables[name] = pd.concat(map(pd.read_parquet, files), ignore_index=True)
    return tables


def forget_after(folder: Path, step: int) -> None:
    """Delete the snapshots later than a step, and what killed ones left: training resumes from there."""
    for number, path in _snapshots(folder):
        if number > step:
            shutil.rmtree(path, ignore_errors=True)  # another process may be at it, too
    remove_leftovers(folder)


def _snapshots(folder: Path) -> list[tuple[int, Path]]:
    """Steps and folders of all snapshots, in the order of steps."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(name[1]), path) for path in entries if (name := _NAME.fullmatch(path.name)))


def _attention_by_layer(measured: Sequence[Entry], layers: Sequence[int], spans: SpanPairs) -> pd.DataFrame:
    """The table of the same name of a probe's run."""
    arrays = [(entry, entry.measured.attention) for entry in measured if entry.measured is not None]
    kept = [(entry, attention) for entry, attention in arrays if attention is not None and attention.n_q.any()]
    if not kept:
        return pd.DataFrame()
    stacked = np.stack([summarise_trace(attention).by_layer for _, attention in kept])
    masks = subset_masks([subsets_of(entry.trace.label, entry.segmentation.aha) for entry, _ in kept])
    groups = [entry.trace.group for entry, _ in kept]
    return summarise_layers(lambda name: stacked[..., QUANTITIES.index(name)], groups, masks, layers, spans)


@contextmanager
def _undisturbed(hf: Any) -> Iterator[None]:
    """Restore the state of all random numbers; a compiled model runs uncompiled."""
    gpus = sorted({p.device.index for p in hf.parameters() if p.device.type == "cuda"})
    python, legacy = random.getstate(), np.random.get_state()
    try:
        # Hooks change what a compiled layer was compiled for.
        with torch.random.fork_rng(devices=gpus), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
