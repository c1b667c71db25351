"""Collection of hidden states, or of features of them, at positions of traces, by forward passes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.capture_request import STATE_POSITIONS, CaptureRequest, expressions
from safekey_interp.capture.feature_maps import FeatureMap, check_features
from safekey_interp.capture.feature_states import FeatureStates, write_features
from safekey_interp.capture.hidden_states import States, write_states
from safekey_interp.capture.streaming import CHUNK, Entry, StreamSettings, measure_stream
from safekey_interp.capture.words_read import read_words

if TYPE_CHECKING:
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
    words: dict[str, list[str | None]] = {name: [] for name in wanted if name not in STATE_POSITIONS}

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
            for name, texts in words.items():
                texts.append(read_words(entry.measured.encoding, name))
        if len(waiting) == CHUNK:
            flush()
    flush()
    ids = [trace.trace_id for trace in kept]
    about: Any = {"words": words, "left_out": left_out, "keep_alive": folder}
    if features is not None:
        return FeatureStates(files, ids, features, wanted, **about), kept, segmentations
    return States(files, ids, request.sites(model.n_layers), wanted, **about), kept, segmentations
