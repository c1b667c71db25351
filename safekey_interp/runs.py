"""What lies in a run folder, and how is it written so that nothing is lost?

Every file is written under a temporary name and renamed. While a run goes on, each chunk of traces is one folder in
``parts/``; a killed run goes on after its last whole chunk, and the tables are put together from the chunks at the end, so
they do not depend on where it stopped. ``run.json`` says what the run was; a folder of other settings is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "run.json"
TABLES = (
    "traces",
    "attention",
    "attention_by_layer",
    "attention_by_head",
    "separability",
    "coordinates",
)
"""The Parquet tables of a run; one that could not be measured is absent."""


class Run:
    """A run folder, read on demand."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        """The folder."""
        self.manifest = manifest
        """What the run was: model, data, settings, versions, seed, plan, timings."""

    def table(self, name: str) -> pd.DataFrame | None:
        """One of :data:`TABLES`; None when the run does not have it.

        ``attention`` may hold tens of millions of rows; ``attention_by_layer`` and ``attention_by_head`` sum it up.
        """
        import pandas as pd

        file = self.path / f"{name}.parquet"
        return pd.read_parquet(file) if file.is_file() else None

    @cached_property
    def traces(self) -> pd.DataFrame | None:
        """One row a trace: spans, aha, reasons, what was left out."""
        return self.table("traces")

    @cached_property
    def attention(self) -> pd.DataFrame | None:
        """One row per trace, layer, head and pair of spans."""
        return self.table("attention")

    @cached_property
    def attention_by_layer(self) -> pd.DataFrame | None:
        """Means over traces and heads with bootstrap intervals."""
        return self.table("attention_by_layer")

    @cached_property
    def attention_by_head(self) -> pd.DataFrame | None:
        """Means over traces."""
        return self.table("attention_by_head")

    @cached_property
    def separability(self) -> pd.DataFrame | None:
        """One row per position, layer and method."""
        return self.table("separability")

    @cached_property
    def coordinates(self) -> pd.DataFrame | None:
        """LDA and PCA coordinates of each trace."""
        return self.table("coordinates")

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """Traces whose attention on every token was kept, with the name of their map."""
        return _read_json(self.path / "examples.json") or []

    @cached_property
    def example_weights(self) -> Mapping[str, Any]:
        """Per map, (layer, head, token) float16."""
        from safetensors.numpy import load_file

        file = self.path / "examples.safetensors"
        return load_file(file) if file.is_file() else {}

    @cached_property
    def findings(self) -> dict[str, Any]:
        """What was found, in words, with n, interval and control."""
        return _read_json(self.path / "findings.json") or {}

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return self.manifest.get("status") == "complete"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.manifest.get('status')})"


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        RunError: no such folder, or not one that ``probe`` wrote.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RunError(f"run {folder}: no such folder")
    manifest = _read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or "safekey_interp" not in manifest:
        raise RunError(f"run {folder}: holds no {MANIFEST} of this package, expected a folder that `probe` wrote")
    return Run(folder, manifest)


class RunWriter:
    """A run folder while it is written."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def begin(cls, path: Path, manifest: dict[str, Any], *, overwrite: bool) -> RunWriter:
        """Start a run, or go on with one of the same identity.

        Args:
            path: the folder; made when absent.
            manifest: what the run is; ``identity`` decides whether a folder may be continued.
            overwrite: delete a run that is there.

        Raises:
            RunError: the folder holds something else, or cannot be written.
        """
        check_out(path)
        known = _read_json(path / MANIFEST) if path.is_dir() else None
        if known is not None and overwrite:
            _remove_run(path)
            known = None
        if known is not None:
            changed = differences(known.get("identity", {}), manifest["identity"])
            if changed:
                raise RunError(
                    f"out {path}: a run of other settings ({'; '.join(changed[:3])}); choose another folder or pass --overwrite"
                )
            return cls(path, known)
        try:
            path.mkdir(parents=True, exist_ok=True)
            writer = cls(path, manifest | {"status": "running", "created": datetime.now(UTC).isoformat(timespec="seconds")})
            writer.save()
            (path / "parts").mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"out {path}: cannot be written: {error.strerror or error}") from error
        return writer

    @property
    def is_complete(self) -> bool:
        """Whether the run that is there came to its end."""
        return self.manifest.get("status") == "complete"

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / MANIFEST, self.manifest)

    def part(self, index: int) -> Path | None:
        """The folder of a chunk that is done; None when it is not."""
        folder = self._part(index)
        return folder if folder.is_dir() else None

    def write_part(self, index: int, fill: Callable[[Path], None]) -> Path:
        """Write a chunk's folder as a whole or not at all."""
        folder = self._part(index)
        aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        try:
            fill(aside)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return folder

    def finish(self, *, keep_parts: bool = False) -> Run:
        """Mark the run complete and clear away its parts."""
        self.manifest["status"] = "complete"
        self.save()
        if not keep_parts:
            shutil.rmtree(self.path / "parts", ignore_errors=True)
        return Run(self.path, self.manifest)

    def _part(self, index: int) -> Path:
        return self.path / "parts" / f"chunk-{index:06d}"


def check_out(path: Path) -> None:
    """Refuse a folder that no run can be written to, before anything is.

    Raises:
        RunError: a file, a folder that holds something else, or one without permission.
    """
    if path.exists() and not path.is_dir():
        raise RunError(f"out {path}: a file, expected a folder")
    try:
        taken = path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise RunError(f"out {path}: cannot be read: {error.strerror or error}") from error
    if taken and not isinstance(_read_json(path / MANIFEST), dict):
        raise RunError(f"out {path}: a folder that is no run and is not empty; choose another")
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise RunError(f"out {path}: {parent} cannot be written")


def differences(known: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two identities disagree on, in words."""
    found = []
    for name in sorted({*known, *asked}):
        old, new = known.get(name), asked.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {_short(old)}, now {_short(new)}")
    return found


def write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Have ``write`` make a file under a temporary name beside ``path``, then rename it."""
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as a whole or not at all; NaN becomes null."""
    text = json.dumps(_without_nan(value), ensure_ascii=False, indent=2, allow_nan=False, default=str)
    write_aside(path, lambda aside: aside.write_text(text + "\n", encoding="utf-8") and None)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write Parquet as a whole or not at all."""
    write_aside(path, lambda aside: table.to_parquet(aside, index=False, compression="zstd"))


def _remove_run(path: Path) -> None:
    """Delete what a run writes, and nothing else that may lie beside it."""
    for name in (*(f"{table}.parquet" for table in TABLES), "examples.json", "examples.safetensors", "findings.json"):
        (path / name).unlink(missing_ok=True)
    for name in ("states.safetensors", "report.html", MANIFEST):
        (path / name).unlink(missing_ok=True)
    for name in ("parts", "states"):
        shutil.rmtree(path / name, ignore_errors=True)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
