"""Examples of a probe's run: traces that its page shows token by token, with each query's attention on every token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safekey_interp.capture.measured_spans import BUILT_IN, MeasuredSpans
from safekey_interp.capture.streaming import Entry
from safekey_interp.models.encoding import TokenSet
from safekey_interp.runs.storage import save_tensors, write_aside, write_json


def write_examples(folder: Path, entries: Sequence[Entry], spans: MeasuredSpans) -> None:
    """Write the rows and the maps of one chunk's examples, all of which are measured."""
    save_tensors(folder / "examples.safetensors", _token_maps(entries, spans.maps))
    rows = [example_row(entry, spans) for entry in entries]
    (folder / "examples.json").write_text(json.dumps(rows), encoding="utf-8")


def join_examples(parts: Sequence[Path], path: Path) -> None:
    """Write the run's examples, if there are any: their rows, and their maps."""
    from safetensors.numpy import load_file

    rows: list[dict[str, Any]] = []
    maps: dict[str, np.ndarray] = {}
    for part in parts:
        if (part / "examples.json").is_file():
            rows += json.loads((part / "examples.json").read_text(encoding="utf-8"))
            maps |= load_file(part / "examples.safetensors")
    if rows:
        write_aside(path / "examples.safetensors", lambda file: save_tensors(file, maps))
        write_json(path / "examples.json", rows)


def example_row(entry: Entry, asked: MeasuredSpans = BUILT_IN) -> dict[str, Any]:
    """One trace of ``examples.json``: its tokens as text, and where its spans lie among them.

    ``spans`` and ``template`` of the recipe; of a user's own expressions ``pieces``, each an interval of tokens.
    """
    encoding = entry.encoding
    assert encoding is not None
    offsets = encoding.offsets[: encoding.end]
    row = {
        "trace_id": entry.trace.trace_id,
        "tokens": [encoding.text[start:end] for start, end in offsets],
        "starts": [start for start, _ in offsets],
        "response_start": encoding.response_start,
    }
    if not asked.is_recipe:
        pieces = {name: _pieces(encoding.positions(name)) for name in asked.expressions}
        return row | {"pieces": pieces, "map": entry.trace.trace_id}
    spans = {
        name: [[span.start, span.end] for span in (value.spans if isinstance(value, TokenSet) else (value,))]
        for name, value in encoding.spans.items()
        if value is not None
    }
    return row | {
        "spans": {name: pieces[0] for name, pieces in spans.items() if name != "template"},
        "template": spans.get("template", []),
        "map": entry.trace.trace_id,
    }


def _pieces(positions: Sequence[int]) -> list[list[int]]:
    """Ascending positions as half-open intervals."""
    where = np.asarray(positions, dtype=np.int64)
    runs = np.split(where, np.flatnonzero(np.diff(where) > 1) + 1) if len(where) else []
    return [[int(run[0]), int(run[-1]) + 1] for run in runs]


def _token_maps(entries: Sequence[Entry], maps: Mapping[str, str]) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for entry in entries:
        assert entry.measured is not None
        assert entry.measured.token_weights is not None
        assert entry.measured.attention is not None
        queries = entry.measured.attention.spans.queries
        for name, query in maps.items():
            weights = entry.measured.token_weights[:, :, queries.index(query)]
            tensors[f"{name}.{entry.trace.trace_id}"] = np.ascontiguousarray(weights.astype(np.float16))
    return tensors
