"""Loop over positions and layers of hidden states, shared by separability and transfer.

Which states are read, which are refused, how the rows of a table come about, and how a reason that all layers share is
given once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.data.class_labels import OUTCOME, check_label_by, label_of
from safekey_interp.data.trace_list import as_traces
from safekey_interp.errors import InputError
from safekey_interp.measures.best_layers import AmongAll, best_of_layers, over_all_places
from safekey_interp.measures.layer_scores import Cell
from safekey_interp.measures.text_baseline import texts_at, with_own_words

if TYPE_CHECKING:
    from safekey_interp.capture.state_array import StateArray
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model
    from safekey_interp.segmentation.segmenter import Segmentation

AFTER_THE_FACT = ("key_sentence",)
"""Positions that read the decision itself: kept for labels and marked, refused for outcomes."""
_ENOUGH = 500
"""Traces from which on layers are measured side by side."""


@runtime_checkable
class SiteLike(Protocol):
    """Where in the model states were read."""

    @property
    def layer(self) -> int: ...  # noqa: D102
    @property
    def site(self) -> str: ...  # noqa: D102


@runtime_checkable
class StatesLike(Protocol):
    """Hidden states of traces, one matrix per layer and position, read one at a time."""

    @property
    def layers(self) -> Sequence[SiteLike]: ...  # noqa: D102
    @property
    def positions(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def trace_ids(self) -> Sequence[str]: ...  # noqa: D102
    def matrix(self, layer_index: int, position: str) -> Float32[np.ndarray, "n d_model"]: ...  # noqa: D102


class LeftOut(NamedTuple):
    """Something that was not measured."""

    what: str
    """``separability`` or ``transfer``, or that of a condition, position or layer."""
    why: str
    """The reason, in words."""
    n: int
    """Labelled rows concerned."""

    def __str__(self) -> str:
        return f"{self.what} left out: {self.why}"


class LayerResult(NamedTuple):
    """Measurement of one layer at one position."""

    number: int
    """The layer."""
    present: np.ndarray
    """(trace) bool: whether the trace counts here."""
    cells: list[Cell]
    """Rows of the table."""
    left_out: list[LeftOut]
    """What was not measured and why."""


class ProbeData(NamedTuple):
    """States of traces with what is probed for in them; one value a trace."""

    states: StatesLike
    traces: Sequence[Trace]
    labels: list[str | None]
    """Class names."""
    groups: list[str]
    texts: dict[str, list[str | None]]
    """Words read up to each position."""

    @classmethod
    def of(
        cls, states: StatesLike, traces: Sequence[Trace], segmentations: Sequence[Segmentation], label_by: str
    ) -> ProbeData:
        """From states and the traces that they belong to."""
        labels = class_names(traces, segmentations, label_by)
        texts = with_own_words(texts_at(states.positions, traces, segmentations), getattr(states, "words", {}))
        return cls(states, traces, labels, [trace.group for trace in traces], texts)

    @classmethod
    def collect(
        cls, model: Model | StateArray, traces: Sequence[Trace], label_by: str, settings: StreamSettings, **options: Any
    ) -> ProbeData:
        """By forward passes, or from states that are there; ``options`` are
        :func:`~safekey_interp.capture.state_collection.collect_states`'s."""
        from safekey_interp.capture.state_array import StateArray
        from safekey_interp.capture.state_collection import collect_states, states_read_before

        traces = list(as_traces(traces))
        check_label_by(traces, label_by)  # before the forward passes
        collect = states_read_before if isinstance(model, StateArray) else collect_states
        return cls.of(*collect(model, traces, settings, **options), label_by)  # type: ignore[arg-type]


def class_names(traces: Sequence[Trace], segmentations: Sequence[Segmentation], label_by: str) -> list[str | None]:
    """Each trace's value of the column ``label_by``."""
    if label_by == OUTCOME:
        return [segmentation.aha for segmentation in segmentations]
    return [label_of(trace, label_by) for trace in traces]


def choose(
    states: StatesLike,
    per_trace: Mapping[str, Sequence[object]],
    *,
    layers: Sequence[int] | None,
    positions: Sequence[str] | None,
) -> tuple[list[int], list[str]]:
    """Indices of the layers and names of the positions to read, after the checks that need no numbers.

    Args:
        states: the states.
        per_trace: what must have one value a trace, by name.
        layers: layers wanted; all when None.
        positions: positions wanted; all when None.

    Raises:
        InputError: lengths differ, or a layer or position is unknown.
    """
    n = len(states.trace_ids)
    for name, values in per_trace.items():
        if len(values) != n:
            raise InputError(f"{name}: got {len(values)}, expected {n}, one for each trace of the states")
    here = [site.layer for site in states.layers]
    for layer in layers or ():
        if layer not in here:
            raise InputError(f"layers: got {layer}, expected some of {here}")
    for position in positions or ():
        if position not in states.positions:
            raise InputError(f"positions: got {position!r}, expected some of {', '.join(states.positions)}")
    indices = [index for index, layer in enumerate(here) if layers is None or layer in layers]
    return indices, list(states.positions if positions is None else positions)


def without_circular(what: str, positions: Sequence[str], label_by: str, n: int) -> tuple[list[str], list[LeftOut]]:
    """The positions whose words do not define the classes, and the others with the reason."""
    why = "its words define the outcome; only positions before it can be probed for it"
    circular = [position for position in positions if label_by == OUTCOME and position in AFTER_THE_FACT]
    kept = [position for position in positions if position not in circular]
    return kept, [LeftOut(f"{what} at {position}", why, n) for position in circular]


WordsMeasure = Callable[[np.ndarray, Sequence[str | None], str], tuple[list[Cell], list[LeftOut]]]
"""The text baseline's rows, of the traces that are present, their texts and the position's name."""


def table_rows(
    positions: Sequence[str],
    indices: Sequence[int],
    measure: Callable[[str, int], LayerResult],
    measure_words: WordsMeasure,
    texts: Mapping[str, Sequence[str | None]],
    *,
    alike: Sequence[str] = ("method",),
    family: Callable[[dict[str, Any]], str],
    n_workers: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[dict[str, Any]], list[AmongAll], list[LeftOut]]:
    """Rows of a table, position by position, the text baseline's last at each; what each is corrected by, in their
    order; and what was not measured.

    Layers are measured side by side, each on one thread of linear algebra: as fast, never slower than alone on a busy
    machine, and the same to the bit however many cores there are.

    Args:
        positions: of the states.
        indices: of the layers.
        measure: measures one layer at one position.
        measure_words: measures the texts of one position.
        texts: for each position, what was read up to it; None where a trace has no such text.
        alike: columns in which layers agree whose best is taken.
        family: of a row, what ``p_value_over_all`` is corrected with: all rows of its family.
        n_workers: layers side by side.
        progress: called with (cells done, cells in all).
    """
    from threadpoolctl import threadpool_limits

    rows: list[dict[str, Any]] = []
    tested: list[AmongAll] = []
    left_out: list[LeftOut] = []
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_workers) as pool:
        for number, position in enumerate(positions):
            layers: list[LayerResult] = []
            for layer in pool.map(partial(measure, position), indices):
                layers.append(layer)
                if progress:
                    progress(number * len(indices) + len(layers), len(positions) * len(indices))
            left_out += reasons_of(layers)
            cells = [cell for layer in layers for cell in layer.cells]
            words = texts.get(position)
            if words is not None and cells:
                with_text = layers[0].present & np.array([text is not None for text in words])
                of_words, reasons = measure_words(with_text, words, position)
                cells += of_words
                left_out += reasons
            place = {"position": position, "after_the_fact": position in AFTER_THE_FACT}
            added = [row | place for row in best_of_layers(cells, alike)]
            tested += [AmongAll.of(cell, family(row)) for cell, row in zip(cells, added, strict=True)]
            rows += added
    over_all = over_all_places(tested)
    return [row | {"p_value_over_all": p} for row, p in zip(rows, over_all, strict=True)], tested, left_out


def reasons_of(layers: Sequence[LayerResult]) -> list[LeftOut]:
    """Reasons of the layers of one position: once where all layers share them, else with the layer."""
    first = layers[0].left_out if layers else ()
    shared = [reason for reason in first if all(reason in layer.left_out for layer in layers)]
    return shared + [
        reason._replace(what=f"{reason.what}, layer {layer.number}")
        for layer in layers
        for reason in layer.left_out
        if reason not in shared
    ]


def workers_for(n_traces: int) -> int:
    """Layers to measure side by side: the cores that this process may use, at most eight, as each holds a matrix.

    One for few traces: their arrays are so small that threads wait for the interpreter (1.5 times slower at 64).
    """
    if n_traces < _ENOUGH:
        return 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, 8)
