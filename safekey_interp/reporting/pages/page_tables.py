"""Which of a run's tables does the page need? Read one by one, so that an absent one is a sentence and not an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from safekey_interp.errors import RunError
from safekey_interp.reporting.figures.figure_style import Table

# The response and the free-form fields stay on disk: the page quotes prompt, understanding and key sentence.
_TRACE_COLUMNS = (
    "trace_id", "prompt", "label", "source", "group", "condition", "family", "region", "understanding", "key_sentence",
    "aha", "hint", "confidence", "reason", "n_tokens", "n_straddling", "status", "left_out",
)  # fmt: skip
_COORDINATES = ("trace_id", "position", "layer", "site", "label", "lda", "pc1")
# More points than this tell a reader no more, and the table may hold a row for each of 100,000 traces and each layer.
_MAX_TRACES = 1000


class Tables:
    """A run folder as the report reads it; each table is None when its file is absent."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._read: dict[str, Any] = {}
        if not (self.path / "run.json").is_file():
            raise RunError(f"{path}: no run.json here; give a run folder that a command of safekey-interp wrote")

    @property
    def manifest(self) -> dict[str, Any]:
        """run.json."""
        value = self._json("run.json")
        return value if isinstance(value, dict) else {}

    @property
    def findings(self) -> dict[str, Any] | None:
        """findings.json."""
        return self._json("findings.json")

    @property
    def examples(self) -> list[dict[str, Any]] | None:
        """examples.json."""
        return self._json("examples.json")

    @property
    def traces(self) -> Table | None:
        """traces.parquet without responses."""
        return self._table("traces.parquet", _TRACE_COLUMNS)

    @property
    def attention_by_layer(self) -> Table | None:
        """attention_by_layer.parquet."""
        return self._table("attention_by_layer.parquet")

    @property
    def attention_by_head(self) -> Table | None:
        """attention_by_head.parquet."""
        return self._table("attention_by_head.parquet")

    @property
    def separability(self) -> Table | None:
        """separability.parquet."""
        return self._table("separability.parquet")

    @property
    def transfer(self) -> Table | None:
        """transfer.parquet."""
        return self._table("transfer.parquet")

    @property
    def coordinates(self) -> Table | None:
        """coordinates.parquet, without pc2, of a sample of traces; ``attrs["n_traces"]`` counts them all."""
        return self._once("coordinates.parquet", _read_coordinates)

    @property
    def steps(self) -> Table | None:
        """steps.parquet."""
        return self._table("steps.parquet")

    @property
    def held_out(self) -> Table | None:
        """held_out.parquet."""
        return self._table("held_out.parquet")

    @property
    def aha(self) -> Table | None:
        """aha.parquet."""
        return self._table("aha.parquet")

    @property
    def summary(self) -> Table | None:
        """summary.parquet."""
        return self._table("summary.parquet")

    @property
    def comparison(self) -> Table | None:
        """comparison.parquet."""
        return self._table("comparison.parquet")

    @property
    def benchmarks(self) -> Table | None:
        """benchmarks.parquet."""
        return self._table("benchmarks.parquet")

    @property
    def evaluation(self) -> Tables | None:
        """The run of benchmarks inside a comparison's folder; None where there is none."""
        inside = self.path / "benchmarks"
        return Tables(inside) if (inside / "benchmarks.parquet").is_file() else None

    @property
    def side_by_side(self) -> list[dict[str, Any]] | None:
        """side_by_side.json."""
        return self._json("side_by_side.json")

    def _json(self, name: str) -> Any:
        return self._once(name, lambda file: json.loads(file.read_text(encoding="utf-8")))

    def _table(
        self, name: str, columns: tuple[str, ...] | None = None, dictionary: list[str] | None = None
    ) -> Table | None:
        import pyarrow.parquet as pq

        def read(file: Path) -> Table:
            parquet = pq.ParquetFile(file)
            wanted = None if columns is None else [name for name in columns if name in parquet.schema_arrow.names]
            return parquet.read(columns=wanted).to_pandas()

        return self._once(name, read)

    def _once(self, name: str, read: Callable[[Path], Any]) -> Any:
        import pyarrow as pa

        file = self.path / name
        if name not in self._read:
            try:
                self._read[name] = read(file) if file.is_file() else None
            except (pa.ArrowException, ValueError, OSError) as error:
                raise RunError(f"{file}: cannot be read ({error}); write the run again with --overwrite") from error
        return self._read[name]


def sample_traces(ids: list[str], labels: list[str], size: int) -> set[str]:
    """At most ``size`` of the traces, evenly from each class, so that classes keep their share."""
    ordered = [trace_id for _, trace_id in sorted(zip(labels, ids, strict=True))]
    if len(ordered) <= size:
        return set(ordered)
    return {ordered[int(place * len(ordered) / size)] for place in range(size)}


def _read_coordinates(file: Path) -> Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, read_dictionary=["trace_id", "position", "site", "label"])
    traces: dict[str, str] = {}
    for batch in parquet.iter_batches(columns=["trace_id", "label"]):
        pairs = pa.Table.from_batches([batch]).unify_dictionaries().group_by(["trace_id", "label"]).aggregate([])
        traces |= zip(pairs["trace_id"].to_pylist(), map(str, pairs["label"].to_pylist()), strict=True)
    chosen = sample_traces(list(traces), list(traces.values()), _MAX_TRACES)
    lookup = pc.SetLookupOptions(value_set=pa.array(sorted(chosen), pa.string()))
    kept = [
        batch.filter(pc.call_function("is_in", [batch["trace_id"].cast(pa.string())], lookup))
        for batch in parquet.iter_batches(columns=list(_COORDINATES))
    ]
    schema = kept[0].schema if kept else pa.schema([parquet.schema_arrow.field(name) for name in _COORDINATES])
    table = pa.Table.from_batches(kept, schema=schema).unify_dictionaries().to_pandas()
    table.attrs["n_traces"] = len(traces)
    return table


class RunTables(Protocol):
    """What the page reads of a run; each table is None where the run has none."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def manifest(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def findings(self) -> dict[str, Any] | None: ...  # noqa: D102
    @property
    def examples(self) -> list[dict[str, Any]] | None: ...  # noqa: D102
    @property
    def traces(self) -> Table | None: ...  # noqa: D102
    @property
    def attention_by_layer(self) -> Table | None: ...  # noqa: D102
    @property
    def attention_by_head(self) -> Table | None: ...  # noqa: D102
    @property
    def separability(self) -> Table | None: ...  # noqa: D102
    @property
    def transfer(self) -> Table | None: ...  # noqa: D102
    @property
    def coordinates(self) -> Table | None: ...  # noqa: D102
