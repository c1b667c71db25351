"""Reader of run folders.

``run.json`` is the manifest, tables are Parquet, and what could not be measured is absent. Written by
:mod:`safekey_interp.runs.run_writer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.display import escaped, facts_html, framed
from safekey_interp.errors import RunError
from safekey_interp.runs.storage import read_json

if TYPE_CHECKING:
    import pandas as pd

    import safekey_interp

MANIFEST = "run.json"
_OVER_LAYERS = ("auroc_low_over_layers", "auroc_high_over_layers", "p_value_over_all")


class RunTable(cached_property["pd.DataFrame | None"]):
    """A Parquet table of a run with the attribute's name, read when first used.

    Args:
        inside: the run in the run's folder that may have it instead.
        needs: columns that earlier versions did not write.
    """

    def __init__(self, inside: str = "", needs: Sequence[str] = ()) -> None:
        def read(run: Run) -> pd.DataFrame | None:
            name = str(self.attrname)
            table = run.table(name)
            if table is None:
                return run.table(f"{inside}/{name}") if inside else None
            if absent := [column for column in needs if column not in table.columns]:
                raise RunError(
                    f"run {run.path}: {name}.parquet is of an earlier version, expected columns {', '.join(absent)}; "
                    "run the command again with --overwrite"
                )
            return table

        super().__init__(read)


class Run:
    """A run folder, read on demand. A table that could not be measured is None, as are those of other kinds of run."""

    traces = RunTable()
    """One row a trace: spans, aha, reasons, what was left out."""
    attention = RunTable()
    """One row per trace, layer, head and pair of spans."""
    attention_by_layer = RunTable()
    """Means over traces and heads with intervals over groups."""
    attention_by_head = RunTable()
    """Means over traces."""
    separability = RunTable(needs=_OVER_LAYERS)
    """One row per position, layer and method."""
    coordinates = RunTable()
    """LDA and PCA coordinates of each trace."""
    sae_separability = RunTable()
    """As ``separability``, of the latents of a sparse autoencoder."""
    sae_latents = RunTable()
    """One row per position and latent, those that differ most between the classes."""
    transfer = RunTable(needs=_OVER_LAYERS)
    """One row per position, layer, method and pair of conditions: fitted on one, tested on the other."""
    steps = RunTable()
    """Of a training run: one row per logged step, the terms of its loss."""
    held_out = RunTable()
    """Of a training run: the terms of the loss on prompts that no step saw, each time they were measured."""
    gradient_norms = RunTable()
    """Of a training run: the norm of each term's gradient, each time they were measured."""
    aha = RunTable()
    """Of a training run: how likely safe and compliant key sentences are after U, by snapshot and label."""
    effects = RunTable()
    """Of an intervention: the tidy table of its function, its control in it."""
    summary = RunTable()
    """Of an intervention: means over traces with intervals, beside the control's."""
    outcomes = RunTable()
    """Of a comparison: what each model did with each prompt."""
    comparison = RunTable()
    """Of a comparison: one row per measure and model or pair of models."""
    series = RunTable()
    """Of a comparison of checkpoints: one row per step, measure and control."""
    benchmarks = RunTable(inside="benchmarks")
    """Of ``eval``: one row per number of a harness; of a comparison, those of :attr:`evaluation`."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        """The folder."""
        self.manifest: dict[str, Any] = dict(manifest)
        """The content of ``run.json``: model, data, settings, versions, seed, plan, timings."""

    def table(
        self, name: str, *, columns: Sequence[str] | None = None, filters: Any = None, max_traces: int | None = None
    ) -> pd.DataFrame | None:
        """One of the run's tables, read anew.

        ``attention`` may hold tens of millions of rows; ``attention_by_layer`` and ``attention_by_head`` sum it up.

        Args:
            name: one of :data:`TABLES`.
            columns: those to read, as far as the table has them; all when None.
            filters: rows to read, as in ``pandas.read_parquet``; all when None.
            max_traces: read the rows of so many traces at most, in proportion to their labels; ``attrs["n_traces"]``
                then counts them all.

        Returns:
            The table; None when the run does not have it.

        Raises:
            RunError: the file cannot be read.
        """
        import pandas as pd
        import pyarrow.parquet as pq

        def read(file: Path) -> pd.DataFrame:
            names = () if columns is None else pq.read_schema(file).names
            wanted = None if columns is None else [column for column in columns if column in names]
            if max_traces is not None:
                return _read_sample(file, wanted, max_traces)
            return pd.read_parquet(file, columns=wanted, filters=filters)

        return self._read(f"{name}.parquet", read)

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """Traces whose attention on every token was kept, with the name of their map."""
        return self._json("examples.json") or []

    @cached_property
    def example_weights(self) -> Mapping[str, Any]:
        """Per map, (layer, head, token) float16."""
        from safetensors.numpy import load_file

        return self._read("examples.safetensors", load_file) or {}

    @cached_property
    def findings(self) -> dict[str, Any]:
        """The findings in words, with n, interval and control."""
        return self._json("findings.json") or {}

    @cached_property
    def side_by_side(self) -> list[dict[str, Any]]:
        """Of a comparison: prompts with each model's sentences, answer and judgement."""
        return self._json("side_by_side.json") or []

    @cached_property
    def most_moved(self) -> dict[str, Any]:
        """Of an intervention: prompt, understanding and key sentence of the trace that moved most."""
        return self._json("most_moved.json") or {}

    @cached_property
    def evaluation(self) -> Run | None:
        """Of a comparison: the run of benchmarks in its folder."""
        inside = self.path / "benchmarks"
        return open_run(inside) if (inside / "benchmarks.parquet").is_file() else None

    def report(self, *, redraw: bool = False) -> safekey_interp.Report:
        """The run's page, drawn unless it is there; a path, which a notebook shows as the page itself.

        Args:
            redraw: draw it anew in any case.

        Raises:
            RunError: a table that cannot be read, or a folder that cannot be written.
        """
        return _package().Report(self, redraw=redraw)

    @cached_property
    def figures(self) -> safekey_interp.RunFigures:
        """The figures of the run's page by name, as plotly figures, drawn when the first is asked for."""
        return _package().RunFigures(self)

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return self.manifest.get("status") == "complete"

    def _repr_html_(self) -> str:
        made = self.manifest.get("intervention") or self.manifest.get("kind") or "probe"
        models = self.manifest.get("models") or [self.manifest.get("model") or {}]
        data = self.manifest.get("data") or {}
        sources = ", ".join(Path(str(source)).name for source in data.get("sources") or ())
        page = self.path / "report.html"
        rows = [
            ("run", f"{made}, {self.manifest.get('status')}"),
            ("model", ", ".join(str(model.get("name") or model.get("spec")) for model in models)),
            ("data", (f"{data.get('n_read', 0):,} traces" + f" from {sources}" * bool(sources)) * bool(data)),
            ("found", self.findings.get("headline") or ""),
            ("tables", ", ".join(name for name in TABLES if (self.path / f"{name}.parquet").is_file())),
            ("folder", str(self.path)),
            ("page", f"open {page} in a browser" if page.is_file() else f"safekey-interp report {self.path} draws it"),
        ]
        return framed(facts_html((name, escaped(text)) for name, text in rows if text))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.manifest.get('status')})"

    def _json(self, name: str) -> Any:
        return self._read(name, lambda file: json.loads(file.read_text(encoding="utf-8")))

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        file = self.path / name
        try:
            return read(file) if file.is_file() else None
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise RunError(f"{file}: cannot be read ({error}); write the run again with --overwrite") from error


TABLES = tuple(name for name, member in vars(Run).items() if isinstance(member, RunTable))
"""The Parquet tables of a run."""
TABLES_OF_PROBES = TABLES[: TABLES.index("transfer") + 1]
"""Those that `probe` writes."""


def _package() -> Any:
    """The public package, whose names above this module load when they are asked for."""
    import safekey_interp

    return safekey_interp


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Args:
        path: the folder.

    Returns:
        The run; its tables are read when they are asked for.

    Raises:
        RunError: no such folder, or not a run folder that a command of safekey-interp wrote.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunError(f"run {folder}: no such folder")
    manifest = manifest_in(folder)
    if manifest is None:
        raise RunError(
            f"run {folder}: holds no {MANIFEST} of this package, expected a run folder that a command of "
            "safekey-interp wrote"
        )
    return Run(folder, manifest)


def manifest_in(folder: Path) -> dict[str, Any] | None:
    """What ``run.json`` of a folder says; None when there is none of this package."""
    manifest = read_json(folder / MANIFEST)
    return manifest if isinstance(manifest, dict) and "safekey_interp" in manifest else None


def sample_traces(ids: Sequence[str], labels: Sequence[str], size: int) -> set[str]:
    """At most ``size`` of the traces, evenly from each class, so that classes keep their share."""
    ordered = [trace_id for _, trace_id in sorted(zip(labels, ids, strict=True))]
    if len(ordered) <= size:
        return set(ordered)
    return {ordered[int(place * len(ordered) / size)] for place in range(size)}


def _read_sample(file: Path, columns: Sequence[str] | None, size: int) -> pd.DataFrame:
    """The rows of a sample of traces, read in pieces: the table may hold a row for each of many traces and layers."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, read_dictionary=["trace_id", "position", "site", "label"])
    wanted = list(columns or parquet.schema_arrow.names)
    labels: dict[str, str] = {}
    for batch in parquet.iter_batches(columns=["trace_id", "label"]):
        pairs = pa.Table.from_batches([batch]).unify_dictionaries().group_by(["trace_id", "label"]).aggregate([])
        labels |= zip(pairs["trace_id"].to_pylist(), map(str, pairs["label"].to_pylist()), strict=True)
    chosen = sample_traces(list(labels), list(labels.values()), size)
    lookup = pc.SetLookupOptions(value_set=pa.array(sorted(chosen), pa.string()))
    kept = [
        batch.filter(pc.call_function("is_in", [batch["trace_id"].cast(pa.string())], lookup))
        for batch in parquet.iter_batches(columns=wanted)
    ]
    schema = kept[0].schema if kept else pa.schema([parquet.schema_arrow.field(name) for name in wanted])
    table = pa.Table.from_batches(kept, schema=schema).unify_dictionaries().to_pandas()
    table.attrs["n_traces"] = len(labels)
    return table
