"""Array of activations with named axes: trace, position, layer, component, d_model; its file and its view in xarray."""

from __future__ import annotations

import importlib
import json
import math
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from safekey_interp.capture.capture_request import STATE_POSITIONS
from safekey_interp.capture.places import HeadValues
from safekey_interp.capture.words_read import read_words
from safekey_interp.errors import InputError
from safekey_interp.runs.storage import save_tensors, write_aside

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.encoding import Encoding
    from safekey_interp.segmentation.segmenter import Segmentation

IN_MEMORY = 2**30
"""Bytes above which an array stays on disk, memory-mapped."""
_TENSOR = "states"
_AXES = ("positions", "layers", "components")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StateArray:
    """Activations of traces as one array, with the names of its axes."""

    array: Float32[np.ndarray, "trace position layer component d_model"]
    """Means over each position's tokens; NaN where a trace lacks the position, or a layer the component. Read-only and
    on disk above 1 GB. Of heads' z, the last axis is d_head."""
    index: pd.DataFrame
    """One row a trace: trace_id, label, source, group, aha (what K decides)."""
    positions: tuple[str, ...]
    """Of the second axis."""
    layers: tuple[int, ...]
    """Of the third axis; the number of layers stands for ``ln_final``, and for nothing else."""
    components: tuple[str, ...]
    """Of the fourth axis; of ``head``, ``head.0`` and so on."""
    head: HeadValues
    """What was read of heads."""
    model: str
    """Whose states they are."""
    left_out: Mapping[str, str]
    """Other traces and why they could not be measured."""
    words: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """What each trace has read at positions that are no built-in ones: of these a probe's text baseline needs it."""

    @property
    def trace_ids(self) -> tuple[str, ...]:
        """Of the first axis."""
        return tuple(self.index["trace_id"])

    def to_xarray(self) -> Any:
        """An ``xarray.DataArray`` with dimensions trace, position, layer, component and d_model (d_head of z).

        Raises:
            InputError: xarray is not installed.
        """
        try:
            xarray: Any = importlib.import_module("xarray")
        except ImportError:
            raise InputError("to_xarray: needs the package xarray; pip install xarray") from None
        width = "d_head" if self.of_z else "d_model"
        about = {name: ("trace", self.index[name].to_numpy(object)) for name in self.index if name != "trace_id"}
        axes = {"trace": self.trace_ids, "position": self.positions, "layer": self.layers, "component": self.components}
        coordinates = {name: list(labels) for name, labels in axes.items()} | about
        options = {"dims": (*axes, width), "name": "states", "attrs": {"model": self.model, "head": self.head}}
        return xarray.DataArray(self.array, coords=coordinates, **options)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all: the array, and everything else in its header.

        Raises:
            InputError: it cannot be written there.
        """
        about = {name: getattr(self, name) for name in (*_AXES, "head", "model")}
        about |= {"left_out": dict(self.left_out), "index": self.index.to_dict("list"), "words": dict(self.words)}
        metadata = {"safekey_interp": type(self).__name__, "fields": json.dumps(about)}
        try:
            write_aside(Path(path), lambda file: save_tensors(file, {_TENSOR: self.array}, metadata))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error}); expected a file in a folder that is there"
            ) from None

    @classmethod
    def load(cls, path: str | Path) -> StateArray:
        """Read what :meth:`save` wrote; above 1 GB, the array stays in the file, memory-mapped.

        Raises:
            InputError: in one line, for any other file.
        """
        from safetensors import SafetensorError, safe_open

        expected = f"expected a file written by {cls.__name__}.save"
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                arrays = {name: (part.get_dtype(), *part.get_shape()) for name, part in slices.items()}
            if about.get("safekey_interp") != cls.__name__:
                raise InputError(f"{path}: got a file of {about.get('safekey_interp') or 'something else'}, {expected}")
            fields = json.loads(about["fields"])
            index = pd.DataFrame(fields.pop("index"), dtype=object)
            fields |= {name: tuple(fields[name]) for name in _AXES}
            sizes = ("F32", len(index), *(len(fields[name]) for name in _AXES))
            if set(arrays) != {_TENSOR} or arrays[_TENSOR][:-1] != sizes:
                raise InputError(f"{path}: got arrays {arrays}, expected one of {(*sizes, 'd_model')}; {expected}")
            shape = arrays[_TENSOR][1:]
            return cls(array=read_array(Path(path), shape), index=index, **fields)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); {expected}") from None

    @property
    def of_z(self) -> bool:
        """Whether the last axis is d_head: z of heads."""
        return self.head == "z" and self.components[0].startswith("head.")

    def __repr__(self) -> str:
        n_traces, n_positions, n_layers, n_components, width = self.array.shape
        return (
            f"StateArray({n_traces} traces, {n_positions} positions, {n_layers} layers, {n_components} components, "
            f"width {width}; {len(self.left_out)} traces left out)"
        )


class RowFile:
    """Rows of an array, written down as they come, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="safekey-states-")
        self._file = Path(self._folder.name) / "states"
        self._n, self._shape = 0, ()

    def add(self, row: Float32[np.ndarray, "position layer component d_model"]) -> None:
        """The next trace's."""
        with self._file.open("ab") as stream:
            row.astype("<f4").tofile(stream)
        self._n, self._shape = self._n + 1, row.shape

    def array(self) -> Float32[np.ndarray, "trace position layer component d_model"]:
        """All rows: in memory, or where they are many in the file, which goes when the array does."""
        array = read_array(self._file, (self._n, *self._shape))
        if isinstance(array, np.memmap):
            weakref.finalize(array, self._folder.cleanup)
        else:
            self._folder.cleanup()
        return array


class WordsRead:
    """What each trace has read at positions that are no built-in ones, as traces come."""

    def __init__(self, positions: Sequence[str]) -> None:
        self.at: dict[str, list[str | None]] = {name: [] for name in positions if name not in STATE_POSITIONS}

    def add(self, encoding: Encoding) -> None:
        """The next trace's."""
        for name, texts in self.at.items():
            texts.append(read_words(encoding, name))


def about_trace(trace: Trace, segmentation: Segmentation) -> dict[str, str | None]:
    """A trace's row of :attr:`StateArray.index`."""
    about = {"trace_id": trace.trace_id, "label": trace.label, "source": trace.source, "group": trace.group}
    return about | {"aha": segmentation.aha}


def read_array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers at the end of a file, little-endian: in memory, or mapped where they are many."""
    size = 4 * math.prod(shape)
    offset = file.stat().st_size - size
    mapped = np.memmap(file, dtype="<f4", mode="r", offset=offset, shape=shape)
    return mapped if size > IN_MEMORY else np.array(mapped, dtype=np.float32)
