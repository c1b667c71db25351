"""Questions about run folders, answered as plain data: runs, what they found, rows of tables, one trace.

Nothing is computed and nothing is written. Runs are named by their path below one folder and tables by their name, so
that nothing else can be read; links that lead out of the folder are no runs. Answers are bounded: rows, characters of a
cell, and characters of a whole answer, and say what they left away. Texts of models and data sets are returned as data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

from safekey_interp.display import printable
from safekey_interp.errors import InputError
from safekey_interp.runs.run_folder import MANIFEST, TABLES, Run, manifest_in, open_run
from safekey_interp.runs.storage import without_nan

MOST_RUNS, MOST_ROWS = 200, 200
"""Runs of a list, and rows of an answer."""
MOST_CELL, MOST_CHARACTERS = 2_000, 60_000
"""Characters of a text, and of a whole answer as JSON."""
_DEPTH = 6
"""Folders inside one another that are searched for runs."""
_TOLD = ("headline", "summary", "findings", "left_out", "notes")
_MANIFEST_PARTS = ("status", "kind", "intervention", "created", "model", "models", "data", "settings", "seed")


class RunQueries:
    """Questions about the runs below one folder."""

    def __init__(self, folder: str | Path) -> None:
        """Name the folder.

        Raises:
            InputError: there is no such folder.
        """
        self._root = Path(folder).resolve()
        if not self._root.is_dir():
            raise InputError(f"{folder}: no such folder, expected one that holds run folders")

    def runs(self) -> dict[str, Any]:
        """Runs in the folder: name, kind, status, model, when it was made, and what it found in a sentence."""
        rows: list[dict[str, Any]] = []
        n = 0
        for path in self._found(self._root, _DEPTH):
            n += 1
            if n <= MOST_RUNS:
                rows.append(self._about(path))
        return _bounded({"folder": self._root.name, "n_runs": n, "runs": rows}, "runs")

    def findings(self, run: str) -> dict[str, Any]:
        """What a run found: sentences with n, interval and control, what was left out, and notes."""
        told = self._run(run).findings
        return _bounded({"run": run} | {name: told.get(name) for name in _TOLD if told.get(name)}, "findings")

    def about(self, run: str) -> dict[str, Any]:
        """How a run was made, and its tables with their columns and numbers of rows."""
        import pyarrow.parquet as pq

        opened = self._run(run)
        tables = []
        for name in TABLES:
            file = opened.path / f"{name}.parquet"
            if file.is_file() and self._inside(file):
                held = pq.ParquetFile(file)
                columns = {field.name: str(field.type) for field in held.schema_arrow}
                tables.append({"table": name, "n_rows": held.metadata.num_rows, "columns": columns})
        made = {name: opened.manifest[name] for name in _MANIFEST_PARTS if name in opened.manifest}
        return _bounded({"run": run, "made": made, "tables": tables}, "tables")

    def rows(
        self,
        run: str,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        where: Mapping[str, str | float | bool] | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> dict[str, Any]:
        """Rows of a table.

        Args:
            run: its name.
            table: the table's name.
            columns: those to return; all when None.
            where: values that columns must have.
            offset: rows to pass over.
            limit: most rows; at most :data:`MOST_ROWS`.

        Returns:
            ``n_rows`` that fit, and from ``offset`` on those that an answer holds.

        Raises:
            InputError: no such run, table or column, or a number out of bounds.
        """
        import pyarrow.compute as pc
        import pyarrow.dataset as ds

        if table not in TABLES:
            raise InputError(f"table: got {table!r}, expected one of {', '.join(TABLES)}")
        if not 0 < limit <= MOST_ROWS or offset < 0:
            raise InputError(f"limit, offset: got {limit}, {offset}, expected 1 to {MOST_ROWS}, and 0 or more")
        file = self._run(run).path / f"{table}.parquet"
        if not (file.is_file() and self._inside(file)):
            raise InputError(f"run {run}: has no table {table}; expected one that `about` lists")
        held = ds.dataset(file, format="parquet")
        for column in (*(columns or ()), *(where or ())):
            if column not in held.schema.names:
                raise InputError(
                    f"table {table}: has no column {column!r}, expected some of {', '.join(held.schema.names)}"
                )
        tests = [pc.field(column) == value for column, value in (where or {}).items()]
        try:
            fit: Any = reduce(and_, tests) if tests else None
            n_rows = held.count_rows(filter=fit)
            found = held.scanner(columns=list(columns) if columns else None, filter=fit).head(offset + limit)
        except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's errors are of these kinds
            raise InputError(f"where: {error}; expected values of the columns' types") from None
        rows = found.slice(offset).to_pylist()
        return _bounded({"run": run, "table": table, "n_rows": n_rows, "offset": offset, "rows": rows}, "rows")

    def trace(self, run: str, trace_id: str) -> dict[str, Any]:
        """One trace of a run: its texts, where the understanding and the key sentence lie, and its labels."""
        found = self.rows(run, "traces", where={"trace_id": trace_id}, limit=1)
        if not found["rows"]:
            raise InputError(f"run {run}: has no trace {trace_id!r}; expected a trace_id of its table traces")
        return {"run": run, "trace": found["rows"][0]}

    def _run(self, name: str) -> Run:
        path = self._root / name.replace("\0", "")
        if not path.is_dir() or not self._holds_run(path):
            raise InputError(f"run: got {name!r}, expected the name of a run that `list_runs` lists")
        return open_run(path)

    def _holds_run(self, path: Path) -> bool:
        files = [path / name for name in (MANIFEST, "findings.json")]
        return all(map(self._inside, files)) and manifest_in(path) is not None

    def _inside(self, path: Path) -> bool:
        """Whether a path leads nowhere out of the folder, links followed."""
        return path.resolve().is_relative_to(self._root)

    def _found(self, folder: Path, depth: int) -> Iterator[Path]:
        if self._holds_run(folder):
            yield folder
        if depth and os.access(folder, os.R_OK | os.X_OK):
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield from self._found(Path(entry.path), depth - 1)

    def _about(self, path: Path) -> dict[str, Any]:
        run = open_run(path)
        manifest = run.manifest
        models = manifest.get("models") or [manifest.get("model") or {}]
        return {
            "run": path.relative_to(self._root).as_posix(),
            "kind": manifest.get("intervention") or manifest.get("kind") or "probe",
            "status": manifest.get("status"),
            "model": ", ".join(str(model.get("name") or model.get("spec")) for model in models),
            "created": manifest.get("created"),
            "found": run.findings.get("headline"),
        }


def _bounded(answer: dict[str, Any], listed: str) -> dict[str, Any]:
    """An answer of at most so many characters: long texts cut, then entries of one list left away, both said."""
    cut = _plain(answer)
    entries = cut.get(listed) or []
    kept = list(entries)
    while kept and len(json.dumps(cut | {listed: kept}, default=str)) > MOST_CHARACTERS:
        kept = kept[: len(kept) // 2]
    if len(kept) < len(entries):
        cut |= {
            listed: kept,
            "left_away": f"{len(entries) - len(kept)} more {listed}: ask for fewer, or for some columns",
        }
    return cut


def _plain(value: Any) -> Any:
    """JSON alone: texts printable and cut, numbers that are not finite as null."""
    if isinstance(value, str):
        text = printable(value)
        return text if len(text) <= MOST_CELL else f"{text[:MOST_CELL]} … ({len(text) - MOST_CELL:,} characters more)"
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return without_nan(value)
    return _plain(str(value))
