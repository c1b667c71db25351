"""How does a file of traces become a run folder?

    read and check -> segment -> encode -> one forward pass each, in chunks -> tables -> findings -> page

Nothing is written before the data, the model and the folder are known to be usable. A killed run goes on after its last
whole chunk.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch

from safekey_interp.attention_summary import QUANTITIES, summarise_layers
from safekey_interp.capture.check import check_attention
from safekey_interp.capture.request import CaptureRequest
from safekey_interp.capture.runner import Backend
from safekey_interp.capture.states import States
from safekey_interp.capture.stream import CHUNK, BatchSize, Entry, StreamSettings, in_chunks, measure_chunk, prepare
from safekey_interp.datasets import TraceSource, read_traces
from safekey_interp.errors import RunError
from safekey_interp.findings import find
from safekey_interp.parts import head_sums, join_examples, join_tables, quantity_reader, subsets_of, write_chunk
from safekey_interp.runs import Run, RunWriter, check_out, write_aside, write_json, write_table
from safekey_interp.separability import SeparabilityResult, separability_table
from safekey_interp.survey import Survey, survey
from safekey_interp.text_baseline import texts_by_position
from safekey_interp.version import __version__

if TYPE_CHECKING:
    from safekey_interp.models import Model

_VERSIONS = ("torch", "transformers", "transformer-lens", "numpy", "pandas", "scikit-learn", "tokenizers")


class Progress(Protocol):
    """Who is told how far a run is."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins; ``total`` steps, None when unknown."""

    def advance(self, n: int) -> None:
        """Steps done in the stage."""


class _Silent:
    def stage(self, name: str, total: int | None) -> None: ...

    def advance(self, n: int) -> None: ...


def run_probe(
    model: Model,
    traces: Any,
    *,
    out: str | Path,
    layers: Sequence[int] | None = None,
    finder: str = "rules",
    delimiters: tuple[str, str] | None = None,
    batch_size: BatchSize = "auto",
    max_length: int | None = None,
    backend: Backend = "hf",
    label_by: Literal["label", "aha"] = "label",
    seed: int = 0,
    limit: int | None = None,
    n_examples: int = 40,
    n_random: int = 20,
    keep_states: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Find key sentences, measure what they attend to and how separable the states are, and write a run folder.

    Args:
        model: from ``load`` or ``from_hf``.
        traces: what ``read_traces`` reads, or what it returned.
        out: the run folder; a run of the same settings in it is continued, or returned when it is complete.
        layers: layers to measure; all when None.
        finder: finder of U and K.
        delimiters: marks of the reasoning; the known families' when None.
        batch_size: traces a forward pass.
        max_length: most tokens up to the end of K; longer traces are left out and named.
        backend: ``hf`` (fast) or ``bridge`` (TransformerLens).
        label_by: separability of the file's labels, or of each trace's own outcome.
        seed: seed of every draw.
        limit: read no more traces than this.
        n_examples: traces whose attention on every token is kept for the page.
        n_random: draws of each random key set.
        keep_states: leave the states in the folder's ``states``.
        overwrite: delete a run that is there.
        command: what the user typed, for the record.
        progress: is told how far the run is.

    Returns:
        The run; its page is drawn by ``report.write_report``.

    Raises:
        InputError: the data cannot be read, or no trace can be measured.
        ModelError: the model's attention cannot be read.
        RunError: the folder cannot be used.
    """
    tell = progress or _Silent()
    clock = _Clock()
    path = Path(out)
    check_out(path)
    settings = StreamSettings(
        finder=finder, delimiters=delimiters, batch_size=batch_size, max_length=max_length, backend=backend
    )
    tell.stage("reading", None)
    source = traces if isinstance(traces, TraceSource) else read_traces(traces, limit=limit)
    found = survey(model, source, settings, n_examples=n_examples, seed=seed, on_trace=tell.advance)
    check_attention(model)
    clock.lap("reading")
    separable = min(found.classes(label_by).values()) > 0
    request = CaptureRequest(
        attention=found.n_with_key_sentence > 0,
        states=separable or keep_states,
        layers=model.layer_numbers(layers),
        positions=found.positions,
        n_random=n_random,
        seed=seed,
    )
    options = {
        "layers": request.layers,
        "finder": finder,
        "delimiters": delimiters,
        "batch_size": batch_size,
        "max_length": max_length,
        "backend": backend,
        "label_by": label_by,
        "limit": limit,
        "examples": n_examples,
        "n_random": n_random,
        "states": keep_states,
    }
    writer = RunWriter.begin(path, _manifest(model, source, found, options, seed, command), overwrite=overwrite)
    if writer.is_complete:
        return Run(path, writer.manifest)
    parts = _measure(model, source, request, settings, writer, found, tell)
    clock.lap("measuring")
    _assemble(writer, parts, request, model, found, label_by=label_by, seed=seed, keep_states=keep_states, tell=tell)
    clock.lap("summarising")
    writer.manifest["timings"] = clock.laps
    write_json(path / "findings.json", find(Run(path, writer.manifest)))
    return writer.finish()


def _measure(
    model: Model,
    source: TraceSource,
    request: CaptureRequest,
    settings: StreamSettings,
    writer: RunWriter,
    found: Survey,
    tell: Progress,
) -> list[Path]:
    layers = request.layers or range(model.n_layers)
    shown = set(found.examples)
    tell.stage("measuring", found.n)
    parts = []
    for index, chunk in enumerate(in_chunks(source)):
        done = writer.part(index)
        if done is not None:
            tell.advance(len(chunk))
            parts.append(done)
            continue
        entries = list(prepare(model, chunk, settings))
        entries = measure_chunk(model, entries, request, settings, token_weights_of=shown, on_batch=tell.advance)
        without = next((e.measured.layers_without_pattern for e in entries if e.measured), None)
        if without is not None and writer.manifest.get("layers_without_pattern") != list(without):
            writer.manifest["layers_without_pattern"] = list(without)
            writer.save()

        def fill(folder: Path, entries: list[Entry] = entries) -> None:
            write_chunk(folder, entries, list(layers), request.positions, states=request.states)

        try:
            parts.append(writer.write_part(index, fill))
        except OSError as error:
            raise RunError(f"out {writer.path}: cannot be written: {error.strerror or error}") from error
    return parts


def _assemble(
    writer: RunWriter,
    parts: list[Path],
    request: CaptureRequest,
    model: Model,
    found: Survey,
    *,
    label_by: str,
    seed: int,
    keep_states: bool,
    tell: Progress,
) -> None:
    path = writer.path
    layers = list(request.layers or range(model.n_layers))
    join_tables(parts, "traces.parquet", path / "traces.parquet")
    traces = pd.read_parquet(
        path / "traces.parquet",
        columns=["trace_id", "label", "group", "aha", "status", "prompt", "understanding", "key_sentence"],
    )
    measured = traces[traces["status"] == "measured"].reset_index(drop=True)
    if measured.empty:
        first = pd.read_parquet(path / "traces.parquet", columns=["trace_id", "left_out"]).iloc[0]
        raise RunError(f"out {path}: no trace could be measured; trace {first['trace_id']}: {first['left_out']}")
    tell.stage("summarising attention", None)
    if join_tables(parts, "attention.parquet", path / "attention.parquet"):
        attended = measured[measured["key_sentence"].notna()]
        belongs = [
            subsets_of(_or_none(label), _or_none(aha)) for label, aha in zip(attended["label"], attended["aha"], strict=True)
        ]
        names = list(dict.fromkeys(name for mine in belongs for name in mine))
        masks = {name: np.array([name in mine for mine in belongs]) for name in names}
        masks = {name: mask for name, mask in masks.items() if name == "all" or not mask.all()}
        by_layer = summarise_layers(quantity_reader(parts), list(attended["group"]), masks, layers, seed=seed)
        write_table(path / "attention_by_layer.parquet", by_layer)
        by_head = head_sums(parts).table(layers)
        write_table(path / "attention_by_head.parquet", by_head[by_head["subset"].isin(list(masks))])
    _write_examples(path, parts)
    if request.states:
        files = [part / "states.safetensors" for part in parts if (part / "states.safetensors").is_file()]
        states = States(files, list(measured["trace_id"]), request.sites(model.n_layers), request.positions)
        result = _separability(states, measured, label_by, seed, tell)
        if not result.table.empty:
            write_table(path / "separability.parquet", result.table)
            write_table(path / "coordinates.parquet", result.coordinates)
        writer.manifest["separability_left_out"] = [reason._asdict() for reason in result.left_out]
        if keep_states:
            _keep_states(path, files, states)
    else:
        counts = found.classes(label_by)
        why = ", ".join(f"{n} {name}" for name, n in counts.items())
        writer.manifest["separability_left_out"] = [
            {"what": "separability", "why": f"needs two classes by {label_by}, got {why}", "n": sum(counts.values())}
        ]


def _separability(states: States, measured: pd.DataFrame, label_by: str, seed: int, tell: Progress) -> SeparabilityResult:
    tell.stage("probing states", len(states.layers) * len(states.positions))
    last = 0

    def advance(done: int, total: int) -> None:
        nonlocal last
        tell.advance(done - last)
        last = done

    def column(name: str) -> list[str | None]:
        return [_or_none(value) for value in measured[name]]

    return separability_table(
        states,
        column("label" if label_by == "label" else "aha"),
        list(measured["group"]),
        texts_by_position(column("prompt"), column("understanding"), column("key_sentence")),
        label_by=label_by,
        seed=seed,
        progress=advance,
    )


def _write_examples(path: Path, parts: list[Path]) -> None:
    from safetensors.numpy import save_file

    rows, maps = join_examples(parts)
    if rows:
        write_aside(path / "examples.safetensors", lambda aside: save_file(maps, aside))
        write_json(path / "examples.json", rows)


def _keep_states(path: Path, files: list[Path], states: States) -> None:
    """Move the states out of the parts: one file a chunk, with an index of their rows."""
    folder = path / "states"
    folder.mkdir(exist_ok=True)
    index = {
        "files": [f"{i:06d}.safetensors" for i in range(len(files))],
        "trace_ids": list(states.trace_ids),
        "sites": [list(site) for site in states.layers],
        "positions": list(states.positions),
        "key": "site index / position -> (trace, d_model) float32",
    }
    for file, name in zip(files, index["files"], strict=True):
        write_aside(folder / name, lambda aside, file=file: aside.write_bytes(file.read_bytes()) and None)
    write_json(folder / "index.json", index)


def _manifest(
    model: Model, source: TraceSource, found: Survey, options: dict[str, Any], seed: int, command: Sequence[str]
) -> dict[str, Any]:
    record = dict(model.record())
    data = {
        "sources": list(source.names),
        "sha256": source.sha256,
        "n_read": found.n,
        "n_surrogates": source.n_surrogates,
    }
    identity = {
        "model": {name: record[name] for name in ("architecture", "adapter", "dtype", "attn", "weights_sha256")},
        "data": {"sha256": data["sha256"], "n_read": found.n},
        "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()},
        "seed": seed,
        "version": __version__,
    }
    return {
        "safekey_interp": __version__,
        "command": list(command),
        "model": record,
        "data": data,
        "settings": options,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS}},
        "seed": seed,
        "plan": {
            "chunk": CHUNK,
            "batch_size": options["batch_size"],
            "threads": torch.get_num_threads(),
            "quantities": list(QUANTITIES),
        },
        "layers_without_pattern": [],
        "timings": {},
        "identity": identity,
    }


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _or_none(value: Any) -> Any:
    return None if pd.isna(value) else value
