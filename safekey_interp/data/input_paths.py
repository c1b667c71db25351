"""Inputs of rows: the files that a path, a glob or ``-`` stands for, and rows that Python holds."""

from __future__ import annotations

import difflib
import glob
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safekey_interp.data.row_readers import SUFFIXES, Layout, RowFile, RowsInMemory, RowsOfFrame, RowSource
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.runs.processes import place


def files_of(names: Iterable[str | os.PathLike[str] | RowFile]) -> Iterator[RowFile]:
    """The files that paths, globs and ``-`` stand for, each once.

    Raises:
        InputError: as :func:`row_file` does, a glob that matches nothing, or nothing on standard input.
    """
    seen = set()  # globs may overlap
    for name in names:
        for file in [name] if isinstance(name, RowFile) else _files_named(os.fspath(name)):
            if file.path.resolve() not in seen:
                seen.add(file.path.resolve())
                yield file


def _files_named(name: str) -> Iterable[RowFile]:
    return [_standard_input()] if name == "-" else map(row_file, _paths(name))


def _paths(name: str) -> list[str]:
    expanded = os.path.expanduser(name)
    if os.path.lexists(expanded) or not glob.has_magic(expanded):
        return [name]
    matches = sorted(path for path in glob.glob(expanded, recursive=True) if not os.path.isdir(path))
    if not matches:
        raise InputError(f"{name}: no file matches; expected {' '.join(SUFFIXES)} files")
    return matches


def row_file(name: str, *, layout: Layout | None = None) -> RowFile:
    """One file of rows.

    Args:
        name: its path.
        layout: how its rows become ours, where it is written in a layout of its own.

    Raises:
        InputError: no such file, a folder, an empty file, or an unknown suffix.
    """
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            raise InputError(f"{name}: a folder, expected a file; name its files, as in {path / '*.jsonl'}")
        if not path.exists():
            raise InputError(f"{name}: no such file{_nearest(path)}")
        suffixes = [suffix.lower() for suffix in path.suffixes]
        zipped = suffixes[-1:] == [".gz"]
        suffix = "".join(suffixes[:-1][-1:] if zipped else suffixes[-1:])
        if suffix not in SUFFIXES or (zipped and suffix == ".parquet"):
            raise InputError(
                f"{name}: not a known kind of file; expected {' '.join(SUFFIXES)}, the text ones also as .gz"
            )
        if path.stat().st_size == 0:
            raise InputError(f"{name}: an empty file, expected at least one row")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None
    return RowFile(path=path, name=name, suffix=suffix, zipped=zipped, layout=layout)


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    names = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    return f"; did you mean {path.with_name(names[0])}?" if names else ""


def _standard_input() -> RowFile:
    if (n := place().world_size) > 1:
        raise InputError(f"standard input: cannot be read by {n} processes; write it to a file, and name that")
    spool = tempfile.NamedTemporaryFile(suffix=".jsonl")  # noqa: SIM115, lives as long as its RowFile
    shutil.copyfileobj(sys.stdin.buffer, spool)
    spool.flush()
    if spool.tell() == 0:
        raise InputError("standard input: empty, expected JSON Lines")
    return RowFile(path=Path(spool.name), name="standard input", suffix=".jsonl", spool=spool)


def prefixes_of(sources: Sequence[RowSource]) -> list[str]:
    """What goes before a row's number to make an id: nothing for one source, else the file's stem, made unique."""
    if len(sources) == 1:
        return [""]
    stems = [Path(source.name).name.split(".")[0] for source in sources]
    total, so_far = Counter(stems), Counter[str]()
    prefixes = []
    for stem in stems:
        so_far[stem] += 1
        prefixes.append(f"{stem}-" if total[stem] == 1 else f"{stem}.{so_far[stem]}-")
    return prefixes


def row_sources(source: Any) -> list[RowSource]:
    """The sources of rows in what a caller gave: files, rows, traces or a data frame.

    Raises:
        InputError: it is none of these, or an empty list; and as for :func:`files_of`.
    """
    if isinstance(source, str | os.PathLike):
        return list(files_of([source]))
    pandas = sys.modules.get("pandas")  # who holds a data frame has imported it
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return [RowsOfFrame(source)]
    if isinstance(source, Trace):
        return [RowsInMemory([source])]
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise InputError(f"traces: got {type(source).__name__}, expected a file, rows, traces or a data frame")
    if isinstance(source, list | tuple):
        if not source:
            raise InputError("traces: got an empty list, expected at least one file, row or trace")
        if all(isinstance(item, str | os.PathLike | RowFile) for item in source):
            return list(files_of(source))
    return [RowsInMemory(source)]
