"""Command ``safekey-interp segment``: key sentences alone, without a model."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safekey_interp.cli.options import Asked, Traces, progress_of, with_options
from safekey_interp.cli.shared import say, say_reading, traces_of
from safekey_interp.data.reading_settings import ReadingSettings
from safekey_interp.data.trace_record import intervals_of
from safekey_interp.display import one_line
from safekey_interp.errors import InputError
from safekey_interp.segmentation.segmentation_settings import SegmentationSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from safekey_interp.data.trace import CharSpan, Trace
    from safekey_interp.data.trace_reader import TraceSource
    from safekey_interp.segmentation.segmentation_record import Segmentation


app = typer.Typer()
_SHOWN = 200
"""Characters of a span that are printed."""


@app.command()
@with_options
def segment(
    *,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="The same as --traces, without its name.",
        ),
    ] = None,
    traces: Traces = None,
    out: Annotated[Path | None, typer.Option(help="Write .jsonl or .parquet instead of printing.")] = None,
    settings: SegmentationSettings,
    agreement: Annotated[
        Path | None,
        typer.Option(help="Annotated openings to compare with; where no traces are named, these are read."),
    ] = None,
    reading: ReadingSettings,
    starting: Asked,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")] = False,
) -> None:
    """Segment the traces, and print, write or compare the segmentations."""
    from safekey_interp.models.organism import TRACES
    from safekey_interp.segmentation.segmenter import segmented
    from safekey_interp.segmentation.unread_languages import counted, unread_language

    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"--out {out}: expected a name that ends in .jsonl or .parquet")
    if out is not None:
        _check_file(out, overwrite=overwrite)
    agree = None if agreement is None else _comparison(agreement)
    named = [*(files or ()), *(traces or ())]
    source = traces_of(named or agreement or TRACES, reading, settings.delimiters)
    if out is not None and any(file.path.resolve() == out.resolve() for file in source.files):
        raise InputError(f"--out {out}: the file that is read, expected another; its traces would be lost")
    seen: Counter[str | None] = Counter()
    with progress_of(starting) as bar:
        if starting.dry_run or settings.finder == "llm":
            from safekey_interp.capture.pass_cost import NOTHING, SERVER, CostElsewhere

            asked = CostElsewhere(source.content.n, SERVER)
            bar.starts(lambda: asked if settings.finder == "llm" else NOTHING)
        if agree is not None or out is not None:  # else what is printed shows how far it is
            bar.stage("finding key sentences", source.content.n)

        def note(segmentation: Segmentation) -> None:
            seen.update([unread_language(segmentation)])
            bar.advance(1)

        _finish(_noted(segmented(source, settings), note), agree, out, source, [*reading.spans, *reading.prompt_spans])
    if not sys.stderr.isatty():
        say_reading(source.notes, sys.stderr)
    unread = counted(language for language in seen.elements() if language)
    if unread.n:
        say(unread.in_words(seen.total()))


def _noted(
    pairs: Iterable[tuple[Trace, Segmentation]], note: Callable[[Segmentation], None]
) -> Iterator[tuple[Trace, Segmentation]]:
    """The pairs as they pass, each noted."""
    for trace, segmentation in pairs:
        note(segmentation)
        yield trace, segmentation


def _finish(
    pairs: Iterable[tuple[Trace, Segmentation]],
    agree: Callable[[Iterable[Segmentation]], object] | None,
    out: Path | None,
    source: TraceSource,
    asked: Sequence[str],
) -> None:
    """Compare, write or print the segmentations."""
    if agree is not None:
        print(agree(segmentation for _, segmentation in pairs))
    elif out is not None:
        _write(pairs, out, with_spans=bool(source.content.span_names))
        print(one_line(str(out)))
    else:
        _print(pairs, asked)


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


def _print(pairs: Iterable[tuple[Trace, Segmentation]], asked: Sequence[str]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    found: Counter[str] = Counter()
    n = 0
    for trace, segmentation in pairs:
        # What files and endpoints say must not reach a terminal as it is.
        shown = replace(segmentation, trace_id=one_line(segmentation.trace_id), reason=one_line(segmentation.reason))
        console.print(shown.to_rich())
        for name, intervals in trace.spans.items():
            _print_span(name, trace.response, intervals)
        for name, intervals in trace.prompt_spans.items():
            _print_span(f"{name} (prompt)", trace.prompt, intervals)
        console.print()
        n += 1
        found.update(trace.span_names)
    for name in asked:
        say(f"{name}: in {found[name]:,} of {n:,} traces")


def _print_span(name: str, text: str, intervals: Iterable[CharSpan]) -> None:
    for span in intervals:
        shown = span.text(text)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        say(f"{name} [{span.start}, {span.end}): {shown}", hang="  ")


def _write(pairs: Iterable[tuple[Trace, Segmentation]], out: Path, *, with_spans: bool) -> None:
    from safekey_interp.runs.storage import write_aside

    columns = (*_COLUMNS, *(_SPANS_COLUMNS if with_spans else ()))
    rows = (_row(*pair, columns) for pair in pairs)

    def jsonl(aside: Path) -> None:
        with aside.open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def parquet(aside: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, _arrow_type(pa, name)) for name in columns])
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            flat = (row | {name: json.dumps(row[name]) for name in _SPANS_COLUMNS if name in row} for row in rows)
            while chunk := list(islice(flat, 4096)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))

    try:
        write_aside(out, jsonl if out.suffix == ".jsonl" else parquet)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from error


_COLUMNS = (
    *("trace_id", "understanding", "key_sentence", "understanding_text", "key_sentence_text", "aha", "hint"),
    *("confidence", "reason", "region", "family", "language", "marks", "finder"),
)


_SPANS_COLUMNS = ("spans", "prompt_spans")
"""Own spans of the traces, where there are any; in Parquet as JSON text."""


def _row(trace: Trace, segmentation: Segmentation, columns: Sequence[str]) -> dict[str, Any]:
    spans = {name: getattr(segmentation, name) for name in ("understanding", "key_sentence")}
    row = {name: getattr(segmentation, name) for name in _COLUMNS if name not in spans}
    row |= {name: None if span is None else [span.start, span.end] for name, span in spans.items()}
    row |= {name: intervals_of(getattr(trace, name)) for name in _SPANS_COLUMNS}
    return {name: row[name] for name in columns}


def _arrow_type(pa: Any, name: str) -> Any:
    if name in ("understanding", "key_sentence"):
        return pa.list_(pa.int64())
    return {"hint": pa.bool_(), "confidence": pa.float64()}.get(name, pa.string())
