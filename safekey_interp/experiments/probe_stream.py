"""Streaming part of a probe's run: attention of every trace of a stream of any length, in constant memory.

    the stream, once, in chunks -> segment, encode, forward passes -> shards of tables, sums over all traces
                                -> a sample of whole groups -> what needs single traces (an ordinary run)

Nothing is known of the whole beforehand: classes and conditions are those of the first traces. A later value that is
none of these counts in ``all`` alone, and a trace of another label is not in the sample. Chunks that an earlier attempt
measured are read, compared and passed over.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.kept_batches import KeptBatches
from safekey_interp.capture.pass_cost import counted_passes
from safekey_interp.capture.streaming import (
    CHUNK,
    Entry,
    encoded,
    in_chunks,
    measure_chunk,
)
from safekey_interp.data.class_labels import OUTCOME, check_label_by
from safekey_interp.data.conditions import Conditions, check_by, condition_of, label_of
from safekey_interp.data.group_sample import GroupSample
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import TraceSource, read_traces
from safekey_interp.data.trace_record import record_of
from safekey_interp.data.unique_ids import UniqueIds
from safekey_interp.errors import InputError
from safekey_interp.experiments.experiment_settings import ProbeSettings
from safekey_interp.experiments.probe_chunks import attended, entry_subsets, head_sums, quantity_reader, write_chunk
from safekey_interp.experiments.probe_cost import probe_cost
from safekey_interp.experiments.probe_survey import Survey, request_of, survey
from safekey_interp.measures.attention_moments import moments_table, with_squares
from safekey_interp.measures.attention_summary import QUANTITIES, HeadSums
from safekey_interp.models.chat_template import tokenizer_hash
from safekey_interp.runs.manifest import manifest_of
from safekey_interp.runs.memory_release import known_objects_frozen, release_memory
from safekey_interp.runs.run_session import RunSession
from safekey_interp.runs.storage import write_table
from safekey_interp.runs.stream_writer import StreamWriter
from safekey_interp.segmentation.segmenter import segmented

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

FIRST = 2_000
"""Traces that say which classes and conditions there are."""
_HEAD, _LAYER = "head", "layer"


@dataclass(frozen=True, kw_only=True)
class StreamedAttention:
    """What was measured of a whole stream."""

    sample: TraceSource
    """Some of its traces, in whole groups, for what needs single traces."""
    conditions: Conditions
    """Those that are told apart."""
    data: dict[str, Any]
    """What ``run.json`` says of its reading."""
    record: dict[str, Any]
    """What ``run.json`` says of it as ``stream``."""
    sums: Mapping[str, HeadSums]
    """Sums over its traces, by head and by layer."""

    def write_tables(self, path: Path, request: CaptureRequest, n_layers: int) -> None:
        """Write the tables of all traces of the stream: by head in place of the sample's, and moments by layer."""
        about = list(request.layers or range(n_layers)), request.spans
        write_table(path / "attention_by_head.parquet", self.sums[_HEAD].table(*about))
        write_table(path / "stream" / "moments_by_layer.parquet", moments_table(self.sums[_LAYER], *about))


def measure_whole_stream(
    model: Model,
    source: TraceSource,
    settings: ProbeSettings,
    options: dict[str, Any],
    plan: Mapping[str, Any],
    *,
    session: RunSession,
    overwrite: bool,
    allow_unknown: bool,
    command: Sequence[str],
) -> StreamedAttention:
    """Measure the attention of every trace of a stream, and write its shards.

    Args:
        model: the model.
        source: of ``read_traces(stream=True)``.
        settings: of the probe.
        options: the same, as ``run.json`` has them.
        plan: how the work is cut; ``chunk`` is the number of traces of a shard when the settings name none.
        session: of the run.
        overwrite: delete a stream that is there.
        allow_unknown: accept text that the model's tokenizer does not know.
        command: what the user typed.

    Raises:
        InputError: several processes; the first traces cannot be measured, or have no attention to measure.
        RunError: the folder cannot be used, or holds what was measured of another stream.
    """
    if not session.team.is_alone:
        n = session.team.world_size
        raise InputError(f"stream: got {n} processes, expected one; split the data, and probe each part in a folder")
    tell, seed = session.progress, settings.seed
    stream = iter(source)
    first = list(islice(stream, FIRST))
    check_by(first, settings.by)
    check_label_by(first, settings.label_by)
    about: dict[str, Any] = {"spans": settings.spans, "label_by": settings.label_by, "by": settings.by, "seed": seed}
    overview = survey(model, first, settings, n_examples=0, allow_unknown=allow_unknown, **about)
    request = replace(request_of(model, overview, options, seed), states=False)
    if not request.attention:
        raise InputError(
            f"stream: of every trace attention is measured, and none of the first {len(first):,} has a query; "
            "leave out --stream and draw some with --limit"
        )
    plan = {**plan, "chunk": settings.chunk or CHUNK}
    read = {"traces_sha256": _hash_of(first), "n_read": len(first)}
    manifest = manifest_of(
        model.record(), tokenizer_hash(model.tokenizer), read, options, plan=plan, seed=seed, command=command
    )
    cost: Any = {"left": 1, "chunk": plan["chunk"], "estimator": settings.estimator}
    tell.starts(lambda: replace(probe_cost(model, request, settings, overview, **cost), cheaper=()))
    tell.stage("measuring the stream", None)
    sample, n_chunks = GroupSample(settings.sample_size, seed), 0
    known = {None, *overview.classes, *(_label(trace, settings) for trace in first)}
    with known_objects_frozen(), StreamWriter(session.path, manifest, overwrite=overwrite) as writer:
        for number, chunk in enumerate(in_chunks(chain(first, stream), plan["chunk"])):
            _check_ids(chunk, number * plan["chunk"])
            is_other = [_label(trace, settings) not in known for trace in chunk]
            for trace, is_out in zip(chunk, is_other, strict=True):
                sample.add(trace, is_out=is_out)
            n_chunks, sha256 = number + 1, _hash_of(chunk)
            if number < writer.n_done:
                writer.check(number, sha256)
                if writer.is_whole(number):
                    tell.advance(len(chunk))
                    continue
            entries = [
                encoded(model, Entry(trace=trace, segmentation=segmentation), settings, overview.spans.request)
                for trace, segmentation in segmented(chunk, settings)
            ]
            kept = KeptBatches(writer.path_of_batches(sha256), request)
            with counted_passes(model, tell.passed):
                measured = measure_chunk(model, entries, request, settings, kept=kept, on_batch=tell.advance)
            filler = _Filler(model, measured, request, overview, writer, n_other=sum(is_other))
            filler.write(number, sha256)
            del measured, entries, chunk
            release_memory()
        writer.check_end(n_chunks)
        sums, counts = writer.sums, writer.counts
    drawn = sample.traces()
    note = f"{len(drawn):,} of these {sample.n_offered:,} traces drawn by seed {seed}, whole groups"
    return StreamedAttention(
        sample=read_traces(drawn),
        conditions=overview.conditions,
        data={"sources": list(source.names), "read_as": [*source.notes, note]},
        record={"n_sample": len(drawn), "n_first": len(first), "chunk": plan["chunk"], "n_chunks": n_chunks, **counts},
        sums={kind: _without_repetition(_unpacked(sums, kind)) for kind in (_HEAD, _LAYER)},
    )


class _Filler:
    """Fills a chunk's folder with its tables; gives the sums with this chunk's."""

    def __init__(
        self,
        model: Model,
        entries: Sequence[Entry],
        request: CaptureRequest,
        overview: Survey,
        writer: StreamWriter,
        *,
        n_other: int,
    ) -> None:
        self._entries, self._overview, self._writer, self._n_other = entries, overview, writer, n_other
        self._layers = list(request.layers or range(model.n_layers))

    def write(self, number: int, sha256: str) -> None:
        """Write the chunk; of one that is done its tables alone, for it is in the sums."""
        if number < self._writer.n_done:
            self._writer.write_shards(number, self._tables)
        else:
            self._writer.write(number, sha256, self)

    def _tables(self, folder: Path) -> None:
        conditions, spans = self._overview.conditions, self._overview.spans
        write_chunk(folder, self._entries, self._layers, (), states=False, conditions=conditions, spans=spans)

    def __call__(self, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        conditions, spans = self._overview.conditions, self._overview.spans
        self._tables(folder)
        by_head, by_layer = (_unpacked(self._writer.sums, kind) for kind in (_HEAD, _LAYER))
        there = attended([folder])
        if there:
            of_chunk, of_layers = head_sums([folder]), HeadSums()
            values = np.stack([quantity_reader([folder])(name) for name in QUANTITIES], axis=-1)
            rows = [entry for entry in self._entries if entry.trace.trace_id in there]
            for entry, row in zip(rows, values, strict=True):
                of_layers.add(with_squares(row), entry_subsets(entry, conditions, spans))
            by_head.merge(of_chunk.sums, of_chunk.counts)
            by_layer.merge(of_layers.sums, of_layers.counts)
        counts = Counter(self._writer.counts)
        counts["n_read"] += len(self._entries)
        counts["n_measured"] += sum(entry.measured is not None for entry in self._entries)
        counts["n_other_label"] += self._n_other
        values = [condition_of(entry.trace, conditions.by) for entry in self._entries if conditions.names]
        counts["n_other_condition"] += sum(value not in (None, *conditions.names) for value in values)
        return _packed(by_head, _HEAD) | _packed(by_layer, _LAYER), dict(counts)


def _label(trace: Trace, settings: ProbeSettings) -> str | None:
    """What the data say of a trace's class; nothing where its own outcome is the class."""
    return None if settings.label_by == OUTCOME else label_of(trace, settings.label_by)


def _check_ids(chunk: Iterable[Trace], start: int) -> None:
    """Refuse an id that stands twice in a chunk."""
    ids = UniqueIds()
    for at, trace in enumerate(chunk, start):
        ids.add(trace.trace_id, f"trace {at:,} of the stream (from 0)")


def _hash_of(traces: Iterable[Trace]) -> str:
    digest = hashlib.sha256()
    for trace in traces:
        digest.update(record_of(trace)[0] + b"\n")
    return digest.hexdigest()


def _packed(sums: HeadSums, kind: str) -> dict[str, np.ndarray]:
    return {
        f"{kind}/{what}/{name}": values
        for what, by_subset in (("sums", sums.sums), ("counts", sums.counts))
        for name, values in by_subset.items()
    }


def _unpacked(tensors: Mapping[str, np.ndarray], kind: str) -> HeadSums:
    """Sums by subset, in the order of their names."""
    found = HeadSums()
    for name in sorted(tensors):
        of, what, subset = name.split("/", 2)
        if of == kind:
            (found.sums if what == "sums" else found.counts)[subset] = tensors[name]
    return found


def _without_repetition(sums: HeadSums) -> HeadSums:
    """The sums without subsets that are all traces again."""
    distinct = HeadSums()
    for name, count in sums.counts.items():
        if name == "all" or not np.array_equal(count, sums.counts["all"]):
            distinct.sums[name], distinct.counts[name] = sums.sums[name], count
    return distinct
