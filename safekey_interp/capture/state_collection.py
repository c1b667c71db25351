"""Collection of hidden states, or of features of them, at positions of traces, by forward passes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.capture_request import STATE_POSITIONS, CaptureRequest, expressions
from safekey_interp.capture.feature_maps import FeatureMap, check_features
from safekey_interp.capture.feature_states import FeatureStates, write_features
from safekey_interp.capture.hidden_states import States, StatesOfArray, write_states
from safekey_interp.capture.state_array import WordsRead
from safekey_interp.capture.streaming import CHUNK, Entry, StreamSettings, measure_stream
from safekey_interp.errors import InputError
from safekey_interp.segmentation.segmenter import segmented

if TYPE_CHECKING:
    from safekey_interp.capture.state_array import StateArray
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model
    from safekey_interp.segmentation.segmenter import Segmentation


def collect_states(
    model: Model,
    traces: Iterable[Trace],
    settings: StreamSettings = StreamSettings(),
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    features: FeatureMap | None = None,
) -> tuple[States, list[Trace], list[Segmentation]]:
    """States of traces with the traces and segmentations that they belong to; those left out are in neither.

    Args:
        model: the model.
        traces: any number.
        settings: how they are segmented and grouped.
        layers: layers to read; all when None.
        positions: expressions of the positions; the built-in ones when None.
        features: read these in place of hidden states, at the layer that they are of.

    Raises:
        InputError: an unknown layer, a position that cannot be parsed or that no trace has, no trace to measure.
    """
    wanted = expressions(positions, "positions") if positions else STATE_POSITIONS
    numbers = model.layer_numbers(layers)
    request = CaptureRequest(
        attention=False, states=features is None, features=features, layers=numbers, positions=wanted
    )
    if features is not None:
        check_features(model, features)
    write = write_states if features is None else write_features
    folder = tempfile.TemporaryDirectory(prefix="safekey-states-")
    files: list[Path] = []
    waiting: list[Entry] = []
    kept: list[Trace] = []
    segmentations: list[Segmentation] = []
    words = WordsRead(wanted)

    def flush() -> None:
        if waiting:
            files.append(Path(folder.name) / f"{len(files)}.safetensors")
            write(files[-1], waiting, wanted)
            waiting.clear()

    left_out: dict[str, str] = {}
    for entry in measure_stream(model, traces, request, settings):
        if entry.measured is None:
            left_out[entry.trace.trace_id] = entry.left_out or "not measured"
        else:
            waiting.append(entry)
            kept.append(entry.trace)
            segmentations.append(entry.segmentation)
            words.add(entry.measured.encoding)
        if len(waiting) == CHUNK:
            flush()
    flush()
    ids = [trace.trace_id for trace in kept]
    about: Any = {"words": words.at, "left_out": left_out, "keep_alive": folder}
    if features is not None:
        return FeatureStates(files, ids, features, wanted, **about), kept, segmentations
    return States(files, ids, request.sites(model.n_layers), wanted, **about), kept, segmentations


def states_read_before(
    array: StateArray,
    traces: Iterable[Trace],
    settings: StreamSettings = StreamSettings(),
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[str] | None = None,
    features: FeatureMap | None = None,
) -> tuple[StatesOfArray, list[Trace], list[Segmentation]]:
    """As :func:`collect_states`, of states that are there: without a forward pass.

    Args:
        array: states of these traces; those that it left out are left out.
        traces: the traces.
        settings: how they are segmented.
        layers: some of the array's; all when None.
        positions: some of the array's; all when None.
        features: None.

    Raises:
        InputError: a layer, position or trace that the array does not have; z of heads; features.
    """
    if features is not None:
        raise InputError("features: are read from a model, expected a model in place of the states")
    if array.of_z:
        raise InputError("states: got z of heads, expected components of d_model; read them with head='output'")
    for name in positions or ():
        if name not in array.positions:
            raise InputError(f"positions: got {name!r}, expected some of {', '.join(array.positions)}, which were read")
    found = [(t, s) for t, s in segmented(traces, settings) if t.trace_id not in array.left_out]
    kept, segmentations = [trace for trace, _ in found], [segmentation for _, segmentation in found]
    return StatesOfArray(array, [trace.trace_id for trace in kept], layers, positions), kept, segmentations
