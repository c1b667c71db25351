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

from safekey_interp.data.file_packing import UNPACKERS
from safekey_interp.data.hub_rows import PREFIX, RowsOfHub
from safekey_interp.data.row_readers import SUFFIXES, Hash, Layout, RowFile, RowSource, jsonl_rows
from safekey_interp.data.rows_in_memory import RowsInMemory, RowsOfFrame
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.runs.processes import place

_NOT_TEXT = (".parquet", ".arrow", ".eval", ".inif")


def sources_of(
    names: Iterable[str | os.PathLike[str] | RowFile], *, stream: bool = False
) -> Iterator[RowFile | RowsOfHub | StandardInput]:
    """The sources that paths, folders, globs, ``-`` and data sets of the hub stand for, each file once.

    Standard input is copied to a temporary file, so that it can be read again, unless it is to be a ``stream``.

    Raises:
        InputError: as :func:`row_file` does, a glob or a folder without files, or nothing on standard input.
    """
    seen = set()  # globs may overlap
    for name in names:
        for source in [name] if isinstance(name, RowFile) else _sources_named(os.fspath(name), stream):
            key = source.path.resolve() if isinstance(source, RowFile) else source.name
            if key not in seen:
                seen.add(key)
                yield source


def _sources_named(name: str, stream: bool) -> Iterable[RowFile | RowsOfHub | StandardInput]:
    if name == "-":
        return [StandardInput() if stream else _standard_input()]
    if name.startswith(PREFIX) and not os.path.lexists(name):
        return [RowsOfHub(name)]
    return map(row_file, _paths(name))


def _paths(name: str) -> list[str]:
    expanded = os.path.expanduser(name)
    if os.path.isdir(expanded):
        return _inside(expanded, name)
    if os.path.lexists(expanded) or not glob.has_magic(expanded):
        return [name]
    matches = sorted(path for path in glob.glob(expanded, recursive=True) if not os.path.isdir(path))
    if not matches:
        raise InputError(f"{name}: no file matches; expected {' '.join(SUFFIXES)} files")
    return matches


def _inside(folder: str, name: str) -> list[str]:
    """The files of known kinds in a folder and the folders in it; hidden ones are none."""
    found = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and _is_known(path)]
    shown = [str(path) for path in found if not any(part[0] in "._" for part in path.relative_to(folder).parts)]
    if any(path.endswith(".arrow") for path in shown):  # a data set as datasets saves it, with JSON about it
        shown = [path for path in shown if path.endswith(".arrow")]
    if not shown:
        raise InputError(f"{name}: a folder without a file of traces; expected {' '.join(SUFFIXES)} files in it")
    return shown


def _is_known(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return bool(suffixes) and suffixes[-2 if suffixes[-1] in UNPACKERS and len(suffixes) > 1 else -1] in SUFFIXES


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
            raise InputError(f"{name}: a folder, expected a file")
        if not path.exists():
            raise InputError(f"{name}: no such file{_nearest(path)}")
        suffixes = [suffix.lower() for suffix in path.suffixes]
        packing = "".join(name for name in suffixes[-1:] if name in UNPACKERS)
        suffix = "".join(suffixes[:-1][-1:] if packing else suffixes[-1:])
        if suffix not in SUFFIXES or (packing and suffix in _NOT_TEXT):
            raise InputError(
                f"{name}: not a known kind of file; expected {' '.join(SUFFIXES)}, the text ones also as "
                f"{' '.join(UNPACKERS)}"
            )
        if path.stat().st_size == 0:
            raise InputError(f"{name}: an empty file, expected at least one row")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None
    return RowFile(path=path, name=name, suffix=suffix, packing=packing, layout=layout)


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


class StandardInput:
    """JSON Lines of standard input as they arrive, read once and never kept."""

    name = "standard input"
    is_held = False
    is_read_once = True

    def __init__(self) -> None:
        self._spent = False

    def where(self, number: int) -> str:
        """Rows go by their line."""
        return f"{self.name}, line {number}"

    def rows(self, digest: Hash) -> Iterator[tuple[int, Any]]:
        """Each row with its line.

        Raises:
            InputError: a line that is no JSON object, or a second pass.
        """
        if self._spent:
            raise InputError(f"{self.name}: can be read only once, and was; write it to a file, and name that")
        self._spent = True
        return jsonl_rows(sys.stdin.buffer, self.name)


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


def row_sources(source: Any, *, stream: bool = False) -> list[RowSource]:
    """The sources of rows in what a caller gave: files, rows, traces or a data frame; ``stream`` as for
    :func:`sources_of`.

    Raises:
        InputError: it is none of these, or an empty list; and as for :func:`sources_of`.
    """
    if isinstance(source, str | os.PathLike):
        return [*sources_of([source], stream=stream)]
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
            return [*sources_of(source, stream=stream)]
    return [RowsInMemory(source)]
