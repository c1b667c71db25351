"""How are states walked through, position by position, all layers of one side by side?

What separability and transfer share: which states they read, which they refuse, and how what could not be measured is
said once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32

from safekey_interp.errors import InputError
from safekey_interp.measures.folds import CLASSES

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.segmentation.segmenter import Segmentation

AFTER_THE_FACT = ("key_sentence",)
"""Positions that read the decision itself: kept for labels and marked, refused for outcomes."""

Result = TypeVar("Result")


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


def class_names(traces: Sequence[Trace], segmentations: Sequence[Segmentation], label_by: str) -> list[str | None]:
    """The class name of each trace: its label, or its key sentence's outcome. Raises InputError for another way."""
    if label_by == "label":
        return [trace.label for trace in traces]
    if label_by == "aha":
        return [found.aha for found in segmentations]
    raise InputError(f"label_by: got {label_by!r}, expected one of {', '.join(CLASSES)}")


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
    circular = [position for position in positions if label_by == "aha" and position in AFTER_THE_FACT]
    kept = [position for position in positions if position not in circular]
    return kept, [LeftOut(f"{what} at {position}", why, n) for position in circular]


def each_position(
    positions: Sequence[str],
    indices: Sequence[int],
    measure: Callable[[str, int], Result],
    *,
    n_workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, list[Result]]]:
    """``measure`` of every layer, position by position.

    Layers run side by side, each on one thread of linear algebra: as fast, never slower than alone on a busy machine,
    and the same to the bit however many cores there are.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_workers or _cores()) as pool:
        for number, position in enumerate(positions):
            measured: list[Result] = []
            for layer in pool.map(lambda index, position=position: measure(position, index), indices):
                measured.append(layer)
                if progress:
                    progress(number * len(indices) + len(measured), len(positions) * len(indices))
            yield position, measured


def said_once(by_layer: Iterable[tuple[int, Sequence[LeftOut]]]) -> list[LeftOut]:
    """Reasons of the layers of one position: once where all layers share them, else with the layer."""
    layers = list(by_layer)
    shared = [reason for reason in (layers[0][1] if layers else ()) if all(reason in reasons for _, reasons in layers)]
    return shared + [
        reason._replace(what=f"{reason.what}, layer {layer}")
        for layer, reasons in layers
        for reason in reasons
        if reason not in shared
    ]


def _cores() -> int:
    """Cores that this process may use, at most eight: each worker holds one matrix of states."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, 8)
