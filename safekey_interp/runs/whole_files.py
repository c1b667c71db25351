"""Integrity of a run's files: hashes of those in a folder, and sizes of what a complete run consists of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safekey_interp.errors import RunError
from safekey_interp.runs.storage import read_json, sha256_of

RESULT_FOLDERS = ("states", "model", "directions")
"""Folders of results beside the tables."""
_CHECKED = (*RESULT_FOLDERS, "stream")
_SHARDED = ("traces", "attention")
_DRAWN_ANEW = ("run.json", "findings.json")


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its place there; links are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def result_sizes(run: Path) -> dict[str, int]:
    """Bytes of what a run consists of, by its place in the folder: each table, tensor and JSON file but those that are
    drawn anew from them, and all shards of a folder of a stream's together."""
    files = [file for at in (run, *(run / name for name in _CHECKED)) for file in sorted(at.glob("*.*"))]
    kept = [file for file in files if file.suffix in (".json", ".parquet", ".safetensors")]
    sizes = {file.relative_to(run).as_posix(): file.stat().st_size for file in kept if file.name not in _DRAWN_ANEW}
    for name in _SHARDED:
        shards = [file.stat().st_size for file in (run / name).glob("*.parquet")]
        if shards:
            sizes[f"{name}/ ({len(shards)} files)"] = sum(shards)
    return sizes


def refuse_damaged(run: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a complete run of which a file is not as large as it was; a file may have been deleted to save room.

    Raises:
        RunError: with the file's name and both sizes.
    """
    known = manifest.get("files") or {}
    for name, size in result_sizes(run).items() if known else ():
        if size != known.get(name, size):
            raise RunError(
                f"{run / name}: {size:,} bytes, expected {known[name]:,} as when the run was completed; write the run "
                "again with --overwrite"
            )
    for part in sorted(run.glob("models/*/run.json")):
        refuse_damaged(part.parent, read_json(part) or {})
