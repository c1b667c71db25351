"""Measurement of a probe's chunks, each by one of the processes that share a run.

Chunks and the batches inside them are a function of the data alone, never of the number of processes: whoever measures
a chunk gets the same numbers. Those that are not done yet are dealt out one by one; each is written whole or not at
all, so that what a killed process leaves undone is dealt out again by the next attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.kept_batches import KeptBatches
from safekey_interp.capture.pass_cost import Cost, counted_passes
from safekey_interp.capture.streaming import (
    CHUNK,
    Entry,
    StreamSettings,
    encoded,
    in_chunks,
    measure_chunk,
    threads_for,
)
from safekey_interp.data.trace_reader import TraceSource
from safekey_interp.experiments.probe_chunks import write_chunk
from safekey_interp.experiments.probe_survey import Survey
from safekey_interp.progress import Progress
from safekey_interp.runs.memory_release import known_objects_frozen, release_memory
from safekey_interp.runs.multiprocess import all_parts, my_share
from safekey_interp.runs.processes import Team
from safekey_interp.runs.run_writer import RunWriter
from safekey_interp.runs.storage import read_json, write_json

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

_EVEN = 16
"""Chunks come in multiples of this, so that 2, 4, 8 or 16 processes have the same number each."""
_SMALLEST = 32
"""Traces below which batches of one chunk are no longer of near equal length."""
_RECORD = "measured.json"


def chunk_size(n: int) -> int:
    """Traces of a chunk of ``n`` in all: the same whoever measures them, and small enough to be dealt out evenly."""
    n_chunks = _EVEN * -(-n // (_EVEN * CHUNK))
    return min(CHUNK, max(_SMALLEST, -(-n // n_chunks)))


def measure(
    model: Model,
    source: TraceSource,
    request: CaptureRequest,
    settings: StreamSettings,
    *,
    writer: RunWriter,
    overview: Survey,
    team: Team,
    tell: Progress,
    cost: Cost | None = None,
) -> list[Path]:
    """Measure every chunk that is not done, each by one process.

    Args:
        model: the model.
        source: the traces.
        request: what is asked of each forward pass.
        settings: how traces are prepared and grouped.
        writer: of the run folder.
        overview: of the data.
        team: the processes that share the work.
        tell: is told how far this process is, and passes over the others' chunks as it goes.
        cost: of the run, where it was estimated.

    Returns:
        The chunks' folders, in order; all are there.

    Raises:
        RunError: a chunk that another process wrote does not appear, or another process stopped.
    """
    size = writer.manifest["plan"]["chunk"]
    n_chunks = -(-overview.n // size)
    share = set(my_share(writer, n_chunks, team))
    tell.stage("measuring", overview.n, cost and cost.passes)

    def advance(n: int) -> None:
        tell.advance(n)
        team.check()

    with known_objects_frozen():
        for number, chunk in enumerate(in_chunks(overview.entries(source), size)):
            if number not in share:
                advance(len(chunk))
                continue
            entries = [encoded(model, entry, settings, overview.spans.request) for entry in chunk]
            kept = KeptBatches(writer.path_of_batches(number), request)
            options: Any = {"token_weights_of": set(overview.examples), "kept": kept, "on_batch": advance}
            with counted_passes(model, tell.passed):
                measured = measure_chunk(model, entries, request, settings, **options)
            writer.write_part(number, _filler(model, measured, request, overview, team))
            del measured, entries, chunk
            release_memory()
    return all_parts(writer, n_chunks, team)


def record_measuring(manifest: dict[str, Any], parts: Sequence[Path]) -> None:
    """Write to a manifest which process measured how many chunks, and which layers had no pattern."""
    records = [read_json(part / _RECORD) for part in parts]
    who = Counter((r["process"], r["of"], r["device"], r["threads"]) for r in records)
    names = ("process", "of", "device", "threads")
    manifest["measured_by"] = [
        dict(zip(names, key, strict=True)) | {"chunks": n} for key, n in sorted(who.items(), key=str)
    ]
    without = [r["layers_without_pattern"] for r in records if r["layers_without_pattern"] is not None]
    manifest["layers_without_pattern"] = without[0] if without else []


def _filler(
    model: Model, entries: Sequence[Entry], request: CaptureRequest, overview: Survey, team: Team
) -> Callable[[Path], None]:
    without = next((e.measured.layers_without_pattern for e in entries if e.measured), None)
    record = {
        "process": team.rank,
        "of": team.world_size,
        "device": str(model.device),
        "threads": threads_for(model),
        "layers_without_pattern": without,
    }

    def fill(folder: Path) -> None:
        layers = list(request.layers or range(model.n_layers))
        write_chunk(
            folder,
            entries,
            layers,
            overview.positions,
            states=request.states,
            conditions=overview.conditions,
            spans=overview.spans,
        )
        write_json(folder / _RECORD, record)

    return fill
