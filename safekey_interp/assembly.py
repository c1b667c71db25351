"""How do the chunks of a run become its tables?

Chunks are read one after another, so that memory grows with the number of traces by a few numbers each and no more.
The tables depend on the chunks alone: not on where a run was killed, and not on an earlier attempt.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from safekey_interp.attention_summary import summarise_layers
from safekey_interp.capture.request import CaptureRequest
from safekey_interp.capture.states import States
from safekey_interp.errors import RunError
from safekey_interp.parts import (
    head_sums,
    join_examples,
    join_tables,
    quantity_reader,
    state_files,
    store_states,
    subsets_of,
)
from safekey_interp.run_writer import RunWriter
from safekey_interp.separability import SeparabilityResult, separability_table
from safekey_interp.storage import write_table
from safekey_interp.survey import Survey
from safekey_interp.text_baseline import texts_by_position

if TYPE_CHECKING:
    from safekey_interp.models import Model

_ABOUT_TRACES = [
    *("trace_id", "label", "group", "aha", "status", "left_out", "prompt", "understanding", "key_sentence"),
]


class Progress(Protocol):
    """Who is told how far a run is."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins; ``total`` steps, None when unknown."""

    def advance(self, n: int) -> None:
        """Steps done in the stage."""


def release_memory() -> None:
    """Give freed memory back to the system; else the holes that chunks leave in the heap grow for dozens of chunks."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)


def assemble(
    writer: RunWriter, parts: list[Path], *, request: CaptureRequest, model: Model, found: Survey, tell: Progress
) -> None:
    """Write every table of a run from its chunks.

    Args:
        writer: of the run folder.
        parts: the chunks' folders, in order.
        request: what was asked of each forward pass.
        model: that answered.
        found: what the data hold.
        tell: is told how far this is.

    Raises:
        RunError: no trace was measured; the run is then deleted.
    """
    label_by = writer.manifest["settings"]["label_by"]
    path, seed = writer.path, request.seed
    writer.remove_results()
    join_tables(parts, "traces.parquet", path / "traces.parquet")
    traces = pd.read_parquet(path / "traces.parquet", columns=_ABOUT_TRACES)
    measured = traces.loc[traces["status"] == "measured"].reset_index(drop=True)
    if measured.empty:
        first = traces.iloc[0]
        writer.discard()
        raise RunError(f"no trace could be measured, nothing is kept; trace {first['trace_id']}: {first['left_out']}")
    tell.stage("summarising attention", None)
    if join_tables(parts, "attention.parquet", path / "attention.parquet"):
        _summarise_attention(path, parts, measured, list(request.layers or range(model.n_layers)), seed)
    join_examples(parts, path)
    if not request.states:
        why = f"needs two classes by {label_by}, got {found.in_words(label_by)}"
        writer.manifest["separability_left_out"] = [
            {"what": "separability", "why": why, "n": found.classes(label_by).total()},
        ]
        return
    sites = request.sites(model.n_layers)
    states = States(state_files(parts), list(measured["trace_id"]), sites, request.positions)
    release_memory()
    result = _separability(states, measured, label_by, seed, tell)
    if not result.table.empty:
        write_table(path / "separability.parquet", result.table)
        write_table(path / "coordinates.parquet", result.coordinates)
    writer.manifest["separability_left_out"] = [reason._asdict() for reason in result.left_out]
    if writer.manifest["settings"]["states"]:
        store_states(states, path / "states")


def _summarise_attention(path: Path, parts: list[Path], measured: pd.DataFrame, layers: list[int], seed: int) -> None:
    attended = measured.loc[measured["key_sentence"].notna()]
    labels, outcomes = _column(attended, "label"), _column(attended, "aha")
    belongs = [subsets_of(label, aha) for label, aha in zip(labels, outcomes, strict=True)]
    names = list(dict.fromkeys(name for mine in belongs for name in mine))
    masks = {name: np.array([name in mine for mine in belongs]) for name in names}
    masks = {name: mask for name, mask in masks.items() if name == "all" or not mask.all()}
    by_layer = summarise_layers(quantity_reader(parts), list(attended["group"]), masks, layers, seed=seed)
    write_table(path / "attention_by_layer.parquet", by_layer)
    by_head = head_sums(parts).table(layers)
    write_table(path / "attention_by_head.parquet", by_head.loc[by_head["subset"].isin(list(masks))])


def _separability(
    states: States, measured: pd.DataFrame, label_by: str, seed: int, tell: Progress
) -> SeparabilityResult:
    tell.stage("probing states", len(states.layers) * len(states.positions))
    last = 0

    def advance(done: int, total: int) -> None:
        nonlocal last
        tell.advance(done - last)
        last = done

    return separability_table(
        states,
        _column(measured, "label" if label_by == "label" else "aha"),
        list(measured["group"]),
        texts_by_position(*(_column(measured, name) for name in ("prompt", "understanding", "key_sentence"))),
        label_by=label_by,
        seed=seed,
        progress=advance,
    )


def _column(table: pd.DataFrame, name: str) -> list[str | None]:
    return [None if pd.isna(value) else value for value in table[name]]
