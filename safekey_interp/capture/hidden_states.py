"""Storage of hidden states until they are probed: on disk, or in memory for a few traces.

On disk, one safetensors file a chunk of traces holds one tensor per site and position: a probe reads one matrix at a
time, so memory holds no more than that, however many traces there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from safekey_interp.capture.places import Place
from safekey_interp.capture.streaming import Entry
from safekey_interp.errors import InputError
from safekey_interp.runs.storage import save_tensors

if TYPE_CHECKING:
    from safekey_interp.capture.state_array import StateArray


class States:
    """States of traces, averaged over each position, in files."""

    def __init__(
        self,
        files: Sequence[Path],
        trace_ids: Sequence[str],
        layers: Sequence[Place],
        positions: Sequence[str],
        *,
        words: Mapping[str, Sequence[str | None]] = MappingProxyType({}),
        left_out: Mapping[str, str] = MappingProxyType({}),
        keep_alive: Any = None,
    ) -> None:
        self.files = tuple(files)
        """In the order of the traces."""
        self.trace_ids = tuple(trace_ids)
        """One a row."""
        self.layers = tuple(layers)
        """Sites, in the order of ``layer_index``."""
        self.positions = tuple(positions)
        """Positions, by name."""
        self.words = words
        """What each trace has read at positions of a user's own."""
        self.left_out = left_out
        """Traces that were to be read and could not be, and why."""
        self._keep_alive = keep_alive

    def matrix(self, layer_index: int, position: str) -> Float32[np.ndarray, "n d_model"]:
        """States of every trace at one site and position; a NaN row where the trace lacks the position."""
        from safetensors import safe_open

        rows = []
        for file in self.files:
            with safe_open(file, framework="numpy") as tensors:
                rows.append(tensors.get_tensor(state_key(layer_index, position)))
        return np.concatenate(rows)


class StatesInMemory:
    """States of a few traces, in the order of the entries, all of which are measured."""

    def __init__(self, entries: Sequence[Entry], layers: Sequence[Place], positions: Sequence[str]) -> None:
        self.trace_ids = tuple(entry.trace.trace_id for entry in entries)
        """One a row."""
        self.layers, self.positions = tuple(layers), tuple(positions)
        self._states = _states_of(entries)

    def matrix(self, layer_index: int, position: str) -> Float32[np.ndarray, "n d_model"]:
        """As :meth:`States.matrix`."""
        return np.stack([state[layer_index, self.positions.index(position)] for state in self._states])


class StatesOfArray:
    """States that were read before, as a :class:`~safekey_interp.capture.state_array.StateArray`."""

    def __init__(
        self,
        array: StateArray,
        trace_ids: Sequence[str],
        layers: Sequence[int] | None = None,
        positions: Sequence[str] | None = None,
    ) -> None:
        """Take some of its traces, layers and positions (all of these two when None), with all of its components.

        Raises:
            InputError: it lacks one.
        """
        row_of = {name: row for row, name in enumerate(array.trace_ids)}
        if missing := [name for name in trace_ids if name not in row_of]:
            raise InputError(f"states: none of trace {missing[0]}, expected those of all {len(trace_ids)} traces")
        self.trace_ids = tuple(trace_ids)
        self._rows = [row_of[name] for name in trace_ids]
        self.words = {name: [texts[row] for row in self._rows] for name, texts in array.words.items()}
        self.positions = array.positions if positions is None else tuple(positions)
        self._position = {name: array.positions.index(name) for name in self.positions}
        if missing := [layer for layer in layers or () if layer not in array.layers]:
            raise InputError(f"layers: got {missing[0]}, expected some of {list(array.layers)}, whose states are there")
        chosen = [(at, layer) for at, layer in enumerate(array.layers) if layers is None or layer in layers]
        # A component that a layer lacks is NaN in all traces; one number of each state tells.
        there: Any = np.isfinite(array.array[..., 0]).any((0, 1))
        self._at = [(at, c) for at, _ in chosen for c in range(len(array.components)) if there[at, c]]
        self.layers = tuple(Place(array.layers[at], array.components[c]) for at, c in self._at)
        self._array = array.array

    def matrix(self, layer_index: int, position: str) -> Float32[np.ndarray, "n d_model"]:
        """As :meth:`States.matrix`."""
        layer, component = self._at[layer_index]
        return self._array[:, self._position[position], layer, component][self._rows]


def state_key(layer_index: int, position: str) -> str:
    """Name of a site's and position's tensor in a file."""
    return f"{layer_index}/{position}"


def write_states(file: Path, entries: Iterable[Entry], positions: Sequence[str]) -> None:
    """Write the states of the measured entries, in order."""
    states = _states_of(entries)
    tensors = {
        state_key(site, position): np.stack([state[site, p] for state in states])
        for site in range(len(states[0]))
        for p, position in enumerate(positions)
    }
    save_tensors(file, tensors)


def _states_of(entries: Iterable[Entry]) -> list[np.ndarray]:
    measured = [entry.measured.states for entry in entries if entry.measured is not None]
    return [states for states in measured if states is not None]
