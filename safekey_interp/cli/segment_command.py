"""Command ``safekey-interp segment``: key sentences alone, without a model."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safekey_interp.cli.options import with_options
from safekey_interp.data.reading_settings import ReadingSettings
from safekey_interp.data.trace import CharSpan
from safekey_interp.display import one_line
from safekey_interp.errors import InputError
from safekey_interp.runs.settings import option_values
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from safekey_interp.segmentation.segmentation_record import Segmentation


app = typer.Typer()


@app.command()
@with_options
def segment(
    *,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="Files of traces (JSONL, JSON, CSV, Parquet), globs, or - for standard input. "
            "Default: the organism's own.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write .jsonl or .parquet instead of printing.")] = None,
    settings: SegmentationSettings,
    agreement: Annotated[Path | None, typer.Option(help="Annotated openings to compare with.")] = None,
    reading: ReadingSettings,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")] = False,
) -> None:
    """Segment the traces, and print, write or compare the segmentations."""
    from safekey_interp.data.trace_reader import read_traces
    from safekey_interp.models.organism import TRACES
    from safekey_interp.segmentation.segmenter import segment_all

    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"--out {out}: expected a name that ends in .jsonl or .parquet")
    if out is not None:
        _check_file(out, overwrite=overwrite)
    agree = None if agreement is None else _comparison(agreement)
    source = read_traces(files or TRACES, **reading.to_dict()).check()
    if out is not None and any(file.path.resolve() == out.resolve() for file in source.files):
        raise InputError(f"--out {out}: the file that is read, expected another; its traces would be lost")
    segmentations = segment_all(source, **option_values(settings))
    if agree is not None:
        print(agree(segmentations))
    elif out is not None:
        _write(segmentations, out)
        print(one_line(str(out)))
    else:
        _print(segmentations)


def _comparison(file: Path) -> Callable[[Iterable[Segmentation]], object]:
    from safekey_interp.evaluation.segmentation_agreement import compare, read_annotations

    annotations = read_annotations(file)
    return lambda segmentations: compare(segmentations, annotations)


def _check_file(out: Path, *, overwrite: bool) -> None:
    from safekey_interp.runs.storage import try_writing

    try:
        if out.is_dir():
            raise InputError(f"--out {out}: a folder, expected a file")
        if out.exists() and not overwrite:
            raise InputError(f"--out {out}: there already; choose another file or pass --overwrite")
        try_writing(out.absolute().parent)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from error


def _print(segmentations: Iterable[Segmentation]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for segmentation in segmentations:
        # What files and endpoints say must not reach a terminal as it is.
        shown = replace(segmentation, trace_id=one_line(segmentation.trace_id), reason=one_line(segmentation.reason))
        console.print(shown.to_rich())
        console.print()


def _write(segmentations: Iterable[Segmentation], out: Path) -> None:
    from safekey_interp.runs.storage import write_aside

    rows = map(_row, segmentations)

    def jsonl(aside: Path) -> None:
        with aside.open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def parquet(aside: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        span = pa.list_(pa.int64())
        types = {"understanding": span, "key_sentence": span, "hint": pa.bool_(), "confidence": pa.float64()}
        schema = pa.schema([(name, types.get(name, pa.string())) for name in _COLUMNS])
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            while chunk := list(islice(rows, 4096)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))

    try:
        write_aside(out, jsonl if out.suffix == ".jsonl" else parquet)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from error


_COLUMNS = (
    *("trace_id", "understanding", "key_sentence", "understanding_text", "key_sentence_text", "aha", "hint"),
    *("confidence", "reason", "region", "family", "finder"),
)


def _row(segmentation: Segmentation) -> dict[str, Any]:
    values = {name: getattr(segmentation, name) for name in _COLUMNS}
    return {name: [v.start, v.end] if isinstance(v, CharSpan) else v for name, v in values.items()}
