"""Writer of a stream's shards in a run folder: tables of one chunk each, and what is summed over all chunks.

    traces/000000.parquet, attention/000000.parquet …    tables of chunk 0 …, each whole or absent
    stream/settings.json                                 what makes it the same stream
    stream/chunks.txt                                    a line a chunk: hash of its traces, bytes of its shards
    stream/sums.safetensors                              sums over the chunks that are done, and their number

The sums are written last: they alone say which chunks are done, so that a killed run goes on behind the last of them.
A shard that is not as large as it was is measured anew when the stream passes; one may have been deleted to save room.
The folder comes before the run that is made of the stream's sample, and outlives it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from safekey_interp.errors import RunError, SafekeyError
from safekey_interp.runs.processes import RESUMES
from safekey_interp.runs.run_folder import manifest_in
from safekey_interp.runs.run_writer import STREAM_FOLDERS, STREAM_SETTINGS, refuse_other, stream_folders
from safekey_interp.runs.storage import (
    lock_folder,
    read_json,
    remove_leftovers,
    save_tensors,
    unlock_folder,
    write_aside,
    write_folder_aside,
    write_json,
)

SHARDS = ("traces", "attention")
"""Folders of shards, each of the table of that name."""
_OWN = "stream"
_SETTINGS = STREAM_SETTINGS.removeprefix(f"{_OWN}/")
_CHUNKS, _SUMS, _CHUNK = "chunks.txt", "sums.safetensors", "chunk"
_LINE = 64 + 2 * 17 + 1
"""Bytes of a line of chunks: a hash and two sizes."""


class StreamWriter:
    """A stream's part of a run folder; a context manager that holds the folder until its end.

    One that was begun here and ends, before any chunk is done, in an error that the user can correct leaves nothing.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Nothing is written yet.

        Args:
            path: the run folder.
            manifest: of the stream: its ``identity`` decides whether the folder may be resumed.
            overwrite: delete a stream that is there.

        Raises:
            RunError: the folder holds a stream of other data or settings, or a run that is made of none.
        """
        self.path = path
        """The run folder."""
        self.n_done = 0
        """Chunks that are done."""
        self.sums: dict[str, np.ndarray] = {}
        """Sums over these, by name."""
        self.counts: dict[str, int] = {}
        """Counts over these, by name."""
        self._identity, self._lock, self._made = manifest["identity"], None, False
        self._known = None if overwrite else read_json(self._own(_SETTINGS))
        if self._known is None and not overwrite and stream_folders(path):
            raise RunError(f"{self._own(_SETTINGS)}: cannot be read, expected JSON; start anew with --overwrite")
        run = None if overwrite else manifest_in(path)
        if run is not None and "stream" not in run:
            raise RunError(f"out {path}: a run that is no stream's; choose another folder or pass --overwrite")
        foreign = [name for name in STREAM_FOLDERS if (path / name).exists() and not stream_folders(path)]
        if foreign:
            raise RunError(f"out {path}: holds {foreign[0]}, which is no stream's; choose another folder")
        if self._known is not None:
            refuse_other(path, {"identity": self._known}, {"identity": self._identity})

    def __enter__(self) -> StreamWriter:
        self._made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(self.path)
            if self._known is None:
                self._remove()
                # First and as a whole: what tells the folders from the user's own is there as long as they are.
                write_folder_aside(self.path / _OWN, lambda own: write_json(own / _SETTINGS, self._identity))
            for folder in STREAM_FOLDERS:
                (self.path / folder).mkdir(exist_ok=True)
                remove_leftovers(self.path / folder)
            self._resume()
        except OSError as error:
            unlock_folder(self._lock)
            raise self._unwritable(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SafekeyError) and not self.n_done:
            self._remove()
            if self._made and not any(self.path.iterdir()):
                self.path.rmdir()
        unlock_folder(self._lock)
        if isinstance(error, OSError):
            raise self._unwritable(error) from error

    def check(self, number: int, sha256: str) -> None:
        """Compare a chunk that is done with the one that the stream has there now.

        Raises:
            RunError: it is another.
        """
        if self._line(number)[0] != sha256:
            raise self._other(f"chunk {number:,} of the stream (from 0) is not the one that was measured before")

    def is_whole(self, number: int) -> bool:
        """Whether the shards of a chunk that is done are as large as they were, as far as they are there."""
        sizes = zip((self._shard(name, number) for name in SHARDS), self._line(number)[1:], strict=True)
        return all(not shard.is_file() or shard.stat().st_size == int(size) for shard, size in sizes)

    def check_end(self, n_chunks: int) -> None:
        """Refuse a stream that ended before what was measured of it; errors as for :meth:`check`."""
        if n_chunks < self.n_done:
            raise self._other(f"the stream ended after {n_chunks:,} chunks, and {self.n_done:,} were measured before")

    def write(
        self, number: int, sha256: str, fill: Callable[[Path], tuple[dict[str, np.ndarray], dict[str, int]]]
    ) -> None:
        """Write a chunk's shards, then the sums.

        Args:
            number: of the chunk, :attr:`n_done`.
            sha256: hash of its traces.
            fill: fills a folder with tables named as in :data:`SHARDS`, and returns sums and counts with this chunk.
        """
        new: list[Any] = []
        sizes = self.write_shards(number, lambda aside: new.extend(fill(aside)))
        with open(self._own(_CHUNKS), "a", encoding="ascii") as file:
            file.write(" ".join((sha256, *(f"{size:016d}" for size in sizes))) + "\n")
        about = {"done": json.dumps({"chunks": number + 1, "counts": new[1]})}
        write_aside(self._own(_SUMS), lambda file: save_tensors(file, new[0], about))
        shutil.rmtree(self.path_of_batches(sha256), ignore_errors=True)
        self.sums, self.counts, self.n_done = new[0], new[1], number + 1

    def write_shards(self, number: int, fill: Callable[[Path], object]) -> list[int]:
        """Write a chunk's shards, those of one that is done anew; their bytes, 0 for one that is not there.

        Args:
            number: of the chunk.
            fill: fills a folder with tables named as in :data:`SHARDS`.
        """
        folder, shards = self._own(_CHUNK), [self._shard(name, number) for name in SHARDS]
        write_folder_aside(folder, fill)
        for name, shard in zip(SHARDS, shards, strict=True):
            if (table := folder / f"{name}.parquet").is_file():
                table.replace(shard)
        shutil.rmtree(folder)
        return [shard.stat().st_size if shard.is_file() else 0 for shard in shards]

    def path_of_batches(self, sha256: str) -> Path:
        """Where measured batches of a chunk lie until it is done."""
        return self._own(f"batches-{sha256[:16]}")

    def _resume(self) -> None:
        """Take up what is done, and delete what is not whole."""
        try:
            with safe_open(self._own(_SUMS), framework="numpy") as file:
                done = json.loads(file.metadata()["done"])
                # Sorted, so that a run that was killed adds up in the order of one that was not.
                self.sums = {name: file.get_tensor(name) for name in sorted(file.keys())}
            self.n_done, self.counts = done["chunks"], done["counts"]
        except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError):
            self.n_done, self.sums, self.counts = 0, {}, {}
        chunks = self._own(_CHUNKS)
        chunks.touch()
        if chunks.stat().st_size < self.n_done * _LINE:
            raise self._other(f"{_OWN}/{_CHUNKS} is shorter than what was measured")
        os.truncate(chunks, self.n_done * _LINE)
        shutil.rmtree(self._own(_CHUNK), ignore_errors=True)
        for name in SHARDS:
            for file in (self.path / name).glob("*.parquet"):
                if file.stem.isdigit() and int(file.stem) >= self.n_done:
                    file.unlink()

    def _line(self, number: int) -> list[str]:
        """Hash and sizes of a chunk that is done."""
        with open(self._own(_CHUNKS), encoding="ascii") as file:
            file.seek(number * _LINE)
            return file.readline().split()

    def _other(self, what: str) -> RunError:
        return RunError(f"out {self.path}: {what}; feed the same stream, or start anew with --overwrite")

    def _unwritable(self, error: OSError) -> RunError:
        why = f"{error.strerror or error}; once that is mended, {RESUMES}"
        return RunError(f"out {self.path}: cannot be written: {why}")

    def _remove(self) -> None:
        for folder in stream_folders(self.path):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    def _own(self, name: str) -> Path:
        return self.path / _OWN / name

    def _shard(self, name: str, number: int) -> Path:
        return self.path / name / f"{number:06d}.parquet"
