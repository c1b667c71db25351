"""Files of one chunk of a probe's run, and the run's files that are made of them.

A chunk's folder holds its rows of ``traces`` and ``attention``, its sums (for the summaries), its states while they
wait to be probed, and its examples (:mod:`safekey_interp.experiments.probe_examples`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from safekey_interp.capture.feature_states import write_features
from safekey_interp.capture.hidden_states import States, write_states
from safekey_interp.capture.measured_spans import BUILT_IN, MeasuredSpans
from safekey_interp.capture.streaming import Entry
from safekey_interp.capture.words_read import read_words
from safekey_interp.data.conditions import NO_CONDITIONS, Conditions, condition_of, label_of, subsets_of
from safekey_interp.experiments.probe_examples import write_examples
from safekey_interp.measures.attention import attention_table
from safekey_interp.measures.attention_summary import QUANTITIES, HeadSums, summarise_trace
from safekey_interp.runs.storage import read_json, save_tensors, write_aside, write_json

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_AFTER = 2_000
"""Characters of the response that stay in the tables after the key sentence."""
_ATTENDED, _WORDS, _STATES, _FEATURES = "attended.json", "words.parquet", "states.safetensors", "features.safetensors"
_SHORT = ("trace_id", "from_span", "to_span")


def write_chunk(
    folder: Path,
    entries: Sequence[Entry],
    layers: Sequence[int],
    positions: Sequence[str],
    *,
    states: bool,
    conditions: Conditions = NO_CONDITIONS,
    spans: MeasuredSpans = BUILT_IN,
) -> None:
    """Write one chunk's folder."""
    pd.DataFrame([trace_row(entry, conditions.by) for entry in entries]).astype(_TRACE_TYPES).to_parquet(
        folder / "traces.parquet", index=False, compression="zstd"
    )
    with_attention = [e for e in entries if e.measured is not None and e.measured.attention is not None]
    tables, by_layer, sums, attended = [], [], HeadSums(), []
    for entry in with_attention:
        assert entry.measured is not None
        assert entry.measured.attention is not None
        arrays = entry.measured.attention
        if not arrays.n_q.any():
            continue
        attended.append(entry.trace.trace_id)
        tables.append(attention_table(entry.trace.trace_id, arrays, layers))
        summary = summarise_trace(arrays)
        by_layer.append(summary.by_layer)
        sums.add(summary.by_head, entry_subsets(entry, conditions, spans))
    tables = [table for table in tables if len(table)]
    if tables:
        _as_arrow(pd.concat(tables, ignore_index=True), folder / "attention.parquet")
        write_json(folder / _ATTENDED, attended)
        stacked = np.stack(by_layer)
        by_quantity = {name: np.ascontiguousarray(stacked[..., i]) for i, name in enumerate(QUANTITIES)}
        save_tensors(folder / "by_layer.safetensors", by_quantity)
        per_head = {f"sums/{name}": value for name, value in sums.sums.items()}
        per_head |= {f"counts/{name}": value for name, value in sums.counts.items()}
        save_tensors(folder / "by_head.safetensors", per_head)
    if states and any(entry.measured is not None for entry in entries):
        write_states(folder / _STATES, entries, positions)
        if not spans.is_recipe:
            _words(entries, positions).to_parquet(folder / _WORDS, index=False)
    if any(entry.measured is not None and entry.measured.features is not None for entry in entries):
        write_features(folder / _FEATURES, entries, positions)
    shown = [entry for entry in entries if entry.measured is not None and entry.measured.token_weights is not None]
    if shown:
        write_examples(folder, shown, spans)


def entry_subsets(entry: Entry, conditions: Conditions, spans: MeasuredSpans) -> list[str]:
    """The subsets of the summaries that a trace belongs to."""
    aha = entry.segmentation.aha if spans.is_recipe else None
    condition = condition_of(entry.trace, conditions.by)
    return subsets_of(label_of(entry.trace, conditions.label_by), aha, condition, conditions)


def trace_row(entry: Entry, by: str | None = None) -> dict[str, Any]:
    """One row of the traces table; ``by`` is the column that its condition comes from."""
    trace, segmentation, encoding = entry.trace, entry.segmentation, entry.encoding
    understanding, key_sentence = segmentation.understanding, segmentation.key_sentence
    end = key_sentence.end if key_sentence else 0
    return {
        "trace_id": trace.trace_id,
        "prompt": trace.prompt,
        "response": trace.response[: end + SHOWN_AFTER],
        "label": trace.label,
        "source": trace.source,
        "group": trace.group,
        "condition": condition_of(trace, by),
        "language": segmentation.language,
        "family": segmentation.family,
        "region": segmentation.region,
        "marks": segmentation.marks,
        "understanding_start": understanding.start if understanding else None,
        "understanding_end": understanding.end if understanding else None,
        "key_sentence_start": key_sentence.start if key_sentence else None,
        "key_sentence_end": key_sentence.end if key_sentence else None,
        "understanding": segmentation.understanding_text,
        "key_sentence": segmentation.key_sentence_text,
        "aha": segmentation.aha,
        "hint": segmentation.hint,
        "confidence": segmentation.confidence,
        "reason": segmentation.reason,
        "n_tokens": encoding.end if encoding else None,
        "n_straddling": len(encoding.straddling) if encoding else None,
        "status": "measured" if entry.measured is not None else "left out",
        "left_out": entry.left_out,
        "meta": json.dumps(dict(trace.meta), ensure_ascii=False, default=_plain),
    }


def _plain(value: Any) -> Any:
    """A number or truth of NumPy's as Python's own; anything else that JSON lacks as text."""
    return value.item() if getattr(value, "shape", None) == () else str(value)


_TRACE_TYPES = {
    name: "Int64"
    for name in (
        *("understanding_start", "understanding_end", "key_sentence_start", "key_sentence_end"),
        *("n_tokens", "n_straddling"),
    )
} | {
    name: "string"
    for name in (
        *("trace_id", "prompt", "response", "label", "source", "group", "condition", "language", "family", "region"),
        *("marks", "understanding", "key_sentence", "aha", "reason", "status", "left_out", "meta"),
    )
} | {"hint": "boolean", "confidence": "float64"}  # fmt: skip


def _words(entries: Sequence[Entry], positions: Sequence[str]) -> pd.DataFrame:
    """What each measured trace has read at each position, for the text baseline."""
    encodings = [entry.measured.encoding for entry in entries if entry.measured is not None]
    return pd.DataFrame(
        {name: [read_words(encoding, name) for encoding in encodings] for name in positions}, dtype="string"
    )


def _as_arrow(table: pd.DataFrame, path: Path) -> None:
    for name in _SHORT:
        table[name] = table[name].astype("category")
    table.to_parquet(path, index=False, compression="zstd")


def join_tables(parts: Iterable[Path], name: str, path: Path, on_row_group: Callable[[], None] = lambda: None) -> bool:
    """Put the chunks' tables together, one chunk in memory at a time; False when no chunk has it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [part / name for part in parts if (part / name).is_file()]
    if not files:
        return False
    schema = _plain_schema(pq.read_schema(files[0]), pa)

    def write(aside: Path) -> None:
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for file in files:
                writer.write_table(pq.read_table(file).cast(schema))
                on_row_group()

    write_aside(path, write)
    return True


def _plain_schema(schema: pa.Schema, pa: Any) -> pa.Schema:
    """Dictionaries of every chunk its own: strings in the schema, and Parquet makes dictionaries again."""
    fields = [
        pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) or pa.types.is_large_string(f.type) else f
        for f in schema
    ]
    return pa.schema(fields)


def quantity_reader(parts: Sequence[Path]) -> Callable[[str], np.ndarray]:
    """Reads one quantity of every trace, (trace, layer, pair), from the chunks."""
    from safetensors import safe_open

    def read(name: str) -> np.ndarray:
        arrays = []
        for part in parts:
            file = part / "by_layer.safetensors"
            if file.is_file():
                with safe_open(file, framework="numpy") as tensors:
                    arrays.append(tensors.get_tensor(name))
        return np.concatenate(arrays)

    return read


def head_sums(parts: Sequence[Path]) -> HeadSums:
    """The chunks' sums per head, added up in their order."""
    from safetensors.numpy import load_file

    total = HeadSums()
    for part in parts:
        file = part / "by_head.safetensors"
        if file.is_file():
            tensors = load_file(file)
            total.merge(
                {name.removeprefix("sums/"): value for name, value in tensors.items() if name.startswith("sums/")},
                {name.removeprefix("counts/"): value for name, value in tensors.items() if name.startswith("counts/")},
            )
    return total


def attended(parts: Sequence[Path]) -> set[str]:
    """Traces with a row in the chunks' summaries by layer."""
    files = [part / _ATTENDED for part in parts]
    return {trace_id for file in files if file.is_file() for trace_id in read_json(file)}


def words_read(parts: Sequence[Path]) -> dict[str, list[str | None]]:
    """What each measured trace has read at each position of the user's own."""
    tables = [pd.read_parquet(part / _WORDS) for part in parts if (part / _WORDS).is_file()]
    if not tables:
        return {}
    whole = pd.concat(tables, ignore_index=True)
    return {name: [None if pd.isna(text) else str(text) for text in whole[name]] for name in whole.columns}


def state_files(parts: Sequence[Path]) -> list[Path]:
    """The chunks' states, in the order of the traces."""
    return [part / _STATES for part in parts if (part / _STATES).is_file()]


def feature_files(parts: Sequence[Path]) -> list[Path]:
    """The chunks' features, in the order of the traces."""
    return [part / _FEATURES for part in parts if (part / _FEATURES).is_file()]


def store_states(states: States, folder: Path) -> None:
    """Keep states in the run folder: one file a chunk, with an index of their rows."""
    folder.mkdir(exist_ok=True)
    names = [f"{i:06d}.safetensors" for i in range(len(states.files))]
    for file, name in zip(states.files, names, strict=True):
        write_aside(folder / name, partial(_link_or_copy, file))
    index = {
        "files": names,
        "trace_ids": list(states.trace_ids),
        "sites": [list(site) for site in states.layers],
        "positions": list(states.positions),
        "key": "site index / position -> (trace, d_model) float32",
    }
    write_json(folder / "index.json", index)


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, target)
