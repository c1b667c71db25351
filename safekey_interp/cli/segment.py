"""``safekey-interp segment``: key sentences alone, without a model."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from safekey_interp.cli.shared import parse_delimiters
from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from safekey_interp.finders.record import Segmentation


def segment(
    file: str = typer.Argument(help="File of traces (JSONL, JSON, CSV, Parquet), glob, or - for standard input."),
    out: Path | None = typer.Option(None, help="Write .jsonl or .parquet instead of printing."),
    finder: str = typer.Option("rules", help="rules, given, or llm."),
    delimiters: str | None = typer.Option(None, help="Marks of the reasoning: OPENING,CLOSING."),
    agreement: Path | None = typer.Option(None, help="Annotated openings to compare with."),
    prompt_field: str | None = typer.Option(None, help="Column of the prompt."),
    response_field: str | None = typer.Option(None, help="Column of the response."),
    limit: int | None = typer.Option(None, min=1, help="Read no more traces than this."),
) -> None:
    """Find the understanding and the key sentence of each trace."""
    from safekey_interp.datasets import read_traces
    from safekey_interp.segmentation import segment_all

    marks = parse_delimiters(delimiters)
    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"--out {out}: expected a name that ends in .jsonl or .parquet")
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: its folder does not exist")
    source = read_traces(file, prompt_field=prompt_field, response_field=response_field, limit=limit).check()
    found = segment_all(source, finder=finder, delimiters=marks)
    if agreement is not None:
        _print_agreement(found, agreement)
    elif out is not None:
        _write(found, out)
        print(out)
    else:
        _print(found)


def _print(found: Iterable[Segmentation]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for segmentation in found:
        console.print(segmentation.to_rich())
        console.print()


def _print_agreement(found: Iterable[Segmentation], file: Path) -> None:
    from safekey_interp.agreement import compare, read_annotations

    print(compare(found, read_annotations(file)))


def _write(found: Iterable[Segmentation], out: Path) -> None:
    from safekey_interp.runs import write_aside

    rows = map(_row, found)

    def jsonl(aside: Path) -> None:
        with aside.open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def parquet(aside: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, _arrow_type(pa, name)) for name in _COLUMNS])
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            while chunk := list(islice(rows, 4096)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))

    write_aside(out, jsonl if out.suffix == ".jsonl" else parquet)


_COLUMNS = (
    *("trace_id", "understanding", "key_sentence", "understanding_text", "key_sentence_text", "aha", "hint"),
    *("confidence", "reason", "region", "family", "finder"),
)


def _row(found: Segmentation) -> dict[str, Any]:
    spans = {name: getattr(found, name) for name in ("understanding", "key_sentence")}
    row = {name: getattr(found, name) for name in _COLUMNS if name not in spans}
    row |= {name: None if span is None else [span.start, span.end] for name, span in spans.items()}
    return {name: row[name] for name in _COLUMNS}


def _arrow_type(pa: Any, name: str) -> Any:
    if name in ("understanding", "key_sentence"):
        return pa.list_(pa.int64())
    return {"hint": pa.bool_(), "confidence": pa.float64()}.get(name, pa.string())
