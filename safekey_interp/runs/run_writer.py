"""Writer of run folders.

Until a run is complete, each chunk of traces is one folder in ``parts/``; a killed run resumes after its last whole
chunk, and the tables are put together from the chunks at the end, so they do not depend on where it stopped. A folder
of other settings or other data is refused, and so is one that another process is writing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safekey_interp.errors import RunError, SafekeyError
from safekey_interp.runs.manifest import describe_changes, differences
from safekey_interp.runs.run_folder import MANIFEST, Run, manifest_in
from safekey_interp.runs.storage import (
    is_leftover,
    lock_folder,
    read_json,
    remove_leftovers,
    try_writing,
    unlock_folder,
    write_folder_aside,
    write_json,
)
from safekey_interp.runs.whole_files import RESULT_FILES, RESULT_FOLDERS, file_hashes, refuse_damaged, result_sizes

_CONTENTS = "contents.json"
_WORK = ("parts", "checkpoints", "looks", "models", "harness", "benchmarks")
"""Folders from which a run resumes."""
GENERATED = "generated.jsonl"
"""Responses that a run is made from, where a model writes them first: they come before the run, and outlive it."""
STREAM_FOLDERS = ("traces", "attention", "stream")
"""Folders of a stream whose sample a run is made from: they come before the run, too, and go with it."""
STREAM_SETTINGS = "stream/settings.json"
"""The file that tells them from folders of such names that are the user's."""
_COMES_BEFORE = (GENERATED, "generated.settings.json")
_PROGRESS = (
    *("parts/chunk-*", "parts/batches-*", "checkpoints/checkpoint-*", f"models/*/{GENERATED}", f"models/*/{MANIFEST}"),
    "harness/*/*/unit.json",
)


class RunWriter:
    """A run folder while it is written; a context manager that releases the folder at its end.

    A run that was begun here and ends, before any chunk is done, in an error that the user can correct leaves nothing.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        lock: int | None,
        *,
        new: bool,
        made: Path | None,
        is_guest: bool = False,
    ) -> None:
        self.path = path
        """The folder."""
        self.manifest = manifest
        """What ``run.json`` says."""
        self._lock, self._new, self._made, self._is_guest = lock, new, made, is_guest

    @classmethod
    def begin(cls, path: Path, manifest: Mapping[str, Any], *, overwrite: bool = False) -> RunWriter:
        """Start a run, or resume one of the same identity.

        Args:
            path: the folder; made when absent.
            manifest: of the run; ``identity`` decides whether a folder may be resumed.
            overwrite: delete a run that is there.

        Raises:
            RunError: the folder holds something else or a damaged run, cannot be written, or another process writes to
                it.
        """
        check_out(path)
        made = next((folder for folder in (*reversed(path.parents), path) if not folder.exists()), None)
        lock = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(path)
            known = manifest_in(path)
            if known is not None and not overwrite:
                refuse_other(path, known, manifest)
                refuse_damaged(path, known)
                writer = cls(path, known, lock, new=False, made=None)
            else:
                # A kill in between leaves the old run or the new one without a chunk, never chunks of both.
                for work in (*_WORK, *(() if "stream" in manifest else stream_folders(path))):
                    shutil.rmtree(path / work, ignore_errors=True)
                began = {"status": "running", "created": datetime.now(UTC).isoformat(timespec="seconds")}
                writer = cls(path, {**manifest, **began}, lock, new=True, made=made)
                writer.save()
                writer.remove_results()
            writer.clear_leftovers()
        except BaseException as error:
            unlock_folder(lock)
            if isinstance(error, OSError):
                raise RunError(f"out {path}: cannot be written: {error.strerror or error}") from error
            raise
        return writer

    @classmethod
    def join(cls, path: Path) -> RunWriter:
        """Write chunks into a run that another process has begun, and under its lock."""
        return cls(path, manifest_in(path) or {}, None, new=False, made=None, is_guest=True)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SafekeyError) and self._new and not any(any(self.path.glob(name)) for name in _PROGRESS):
            self.discard()
        elif error is not None and not self._is_guest:
            self.clear_leftovers()  # they take room where a disk is full
        unlock_folder(self._lock)
        self._lock = None

    @property
    def is_complete(self) -> bool:
        """Whether the run that is there came to its end."""
        return self.manifest.get("status") == "complete"

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / MANIFEST, self.manifest)

    def part(self, index: int) -> Path | None:
        """The folder of a chunk that is done; None when it is not, or when a file in it is not as it was written."""
        folder = self.path_of_part(index)
        contents = read_json(folder / _CONTENTS)
        if isinstance(contents, dict) and contents == _contents(folder):
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        return None

    def write_part(self, index: int, fill: Callable[[Path], None]) -> Path:
        """Write a chunk's folder as a whole or not at all."""

        def whole(aside: Path) -> None:
            fill(aside)
            write_json(aside / _CONTENTS, _contents(aside))

        folder = self.path_of_part(index)
        if not self._is_guest:
            self.make_room()
        write_folder_aside(folder, whole)
        shutil.rmtree(self.path_of_batches(index), ignore_errors=True)
        return folder

    def make_room(self) -> None:
        """Make the folder of the chunks; a guest never does, lest it brings back a run that was deleted."""
        (self.path / "parts").mkdir(exist_ok=True)

    def finish(self) -> Run:
        """Mark the run complete, with the sizes of its files, and clear away its parts."""
        manifest = self.manifest | {"status": "complete", "files": result_sizes(self.path)}
        if manifest != self.manifest:
            self.manifest = manifest
            self.save()
        self.clear_leftovers()
        return Run(self.path, self.manifest)

    def remove_results(self) -> None:
        """Delete everything that is made from the chunks, so that nothing stays of an earlier attempt."""
        for name in RESULT_FILES:
            (self.path / name).unlink(missing_ok=True)
        for folder in RESULT_FOLDERS:
            shutil.rmtree(self.path / folder, ignore_errors=True)

    def discard(self) -> None:
        """Delete the run, and the folders that were made for it when nothing else is in them."""
        self.clear_leftovers()
        self.remove_results()
        for work in _WORK:
            shutil.rmtree(self.path / work, ignore_errors=True)
        (self.path / MANIFEST).unlink(missing_ok=True)
        for folder in (self.path, *self.path.parents):
            if self._made is None or not folder.is_relative_to(self._made) or any(folder.iterdir()):
                break
            folder.rmdir()
        self._new = False

    def clear_leftovers(self) -> None:
        """Delete what kills left, and the parts of a complete run."""
        remove_leftovers(self.path)
        for work in _WORK:
            remove_leftovers(self.path / work)
        if self.is_complete:
            shutil.rmtree(self.path / "parts", ignore_errors=True)
            shutil.rmtree(self.path / "looks", ignore_errors=True)

    def path_of_part(self, index: int) -> Path:
        """Where a chunk's folder lies, or will lie."""
        return self.path / "parts" / f"chunk-{index:06d}"

    def path_of_batches(self, index: int) -> Path:
        """Where measured batches of a chunk lie until the chunk is there."""
        return self.path / "parts" / f"batches-{index:06d}"

    @staticmethod
    def is_part(folder: Path) -> bool:
        """Whether a chunk's folder is there; it comes as a whole."""
        return (folder / _CONTENTS).is_file()


def check_out(path: Path) -> None:
    """Refuse a folder that no run can be written to, before anything is.

    Raises:
        RunError: a file, a folder that holds something else, or one that cannot be written.
    """
    try:
        if path.exists() and not path.is_dir():
            raise RunError(f"out {path}: a file, expected a folder")
        inside = path.iterdir() if path.is_dir() else ()
        ours = (*_COMES_BEFORE, *stream_folders(path))
        taken = any(not is_leftover(one) and one.name not in ours for one in inside)
        if taken and manifest_in(path) is None:
            raise RunError(f"out {path}: not empty and no run of this package; choose another folder")
        parent = path
        while not parent.exists():
            parent = parent.parent
        try_writing(parent)
    except OSError as error:
        raise RunError(f"out {path}: cannot be written: {error.strerror or error}; choose another folder") from error


def stream_folders(path: Path) -> tuple[str, ...]:
    """The folders of a stream in a run folder; none where no stream was written."""
    return STREAM_FOLDERS if (path / STREAM_SETTINGS).is_file() else ()


def parts_in(path: Path) -> set[int]:
    """Numbers of the chunks that are in a run's folder."""
    folders = (path / "parts").glob("chunk-*")
    return {int(folder.name.removeprefix("chunk-")) for folder in folders if RunWriter.is_part(folder)}


def check_generated(path: Path, *, overwrite: bool) -> None:
    """Refuse, before a model answers prompts for a run, a folder whose run was not made from such answers.

    Raises:
        RunError: it is a run of other data.
    """
    if manifest_in(path) is not None and not overwrite and not (path / GENERATED).exists():
        raise RunError(f"out {path}: a run of other data; choose another folder or pass --overwrite")


def known_run(path: Path, manifest: Mapping[str, Any]) -> Run | None:
    """The run of the same identity that a folder holds already; None when it holds none.

    Raises:
        RunError: it holds a run of other settings.
    """
    known = manifest_in(path)
    if known is None:
        return None
    refuse_other(path, known, manifest)
    return Run(path, known)


def refuse_other(path: Path, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise a :class:`RunError` where two manifests are not of the same identity, with what differs."""
    changed = differences(known.get("identity", {}), asked["identity"])
    if changed:
        what = "other data" if all(one.path[0] == "data" for one in changed) else "other settings"
        why = describe_changes(changed)
        raise RunError(f"out {path}: a run of {what} ({why}); choose another folder or pass --overwrite")


def _contents(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in file_hashes(folder).items() if name != _CONTENTS}
