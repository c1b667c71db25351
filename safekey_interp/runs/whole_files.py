"""Integrity of a run's files: hashes and sizes of those in a folder, and sizes of what a complete run consists of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safekey_interp.errors import RunError
from safekey_interp.runs.run_folder import TABLES
from safekey_interp.runs.storage import read_json, sha256_of, write_json

FINDINGS = "findings.json"
RESULT_FILES = (
    *(f"{table}.parquet" for table in TABLES),
    *("examples.json", "examples.safetensors", FINDINGS, "left_out.json"),
    *("side_by_side.json", "most_moved.json", "config.yaml", "report.html"),
)
"""Files of results."""
RESULT_FOLDERS = ("states", "model", "directions")
"""Folders of results beside them."""
_FOLDERS_CHECKED = (*RESULT_FOLDERS, "stream", "checkpoints")
_CHANGES = (FINDINGS, "report.html", "README.md")
"""Results that are told or drawn anew, and the card of a model, which a person completes."""
_SIZES = "sizes.json"


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its place there; links are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a folder, by its place there; none where there is no such folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def write_sizes(folder: Path) -> None:
    """State in a folder that is filled how large its files are, where hashes of all would take long."""
    write_json(folder / _SIZES, file_sizes(folder))


def has_its_sizes(folder: Path) -> bool:
    """Whether the files of a folder are as large as :func:`write_sizes` stated, and all are there."""
    stated, found = read_json(folder / _SIZES), file_sizes(folder)
    return isinstance(stated, dict) and all(found.get(name) == size for name, size in stated.items())


def result_sizes(run: Path) -> dict[str, int]:
    """Bytes of what a run consists of, by its place in the folder; shards of a stream have theirs in its own record."""
    sizes = {name: (run / name).stat().st_size for name in RESULT_FILES if (run / name).is_file()}
    for folder in _FOLDERS_CHECKED:
        sizes |= {f"{folder}/{name}": size for name, size in file_sizes(run / folder).items()}
    return {name: size for name, size in sizes.items() if Path(name).name not in _CHANGES}


def refuse_damaged(run: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a run, complete or with complete parts, of which a file is not as large as it was when it was completed.

    A file may have been deleted to save room.

    Raises:
        RunError: with the file's name and both sizes; findings that cannot be read.
    """
    is_complete, findings = manifest.get("status") == "complete", run / FINDINGS
    known = manifest.get("files") or {}
    if is_complete and findings.is_file() and read_json(findings) is None:
        raise RunError(f"{findings}: cannot be read, expected JSON; write the run again with --overwrite")
    for name, size in result_sizes(run).items() if is_complete and known else ():
        if size != known.get(name, size):
            raise RunError(
                f"{run / name}: {size:,} bytes, expected {known[name]:,} as when the run was completed; write the run "
                "again with --overwrite"
            )
    for part in sorted(run.glob("models/*/run.json")):
        refuse_damaged(part.parent, read_json(part) or {})
