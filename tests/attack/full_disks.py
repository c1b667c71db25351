"""Disks that are full, at several sizes of what is left: one line, and the run goes on once there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import run
from .victims import COMMANDS, copy, differences

LEFT = (0, 8, 40, 150, 400, 1000)
"""Kilobytes of which a command finds a disk free, one after the other."""


@contextmanager
def disk(place: Path, template: Path) -> Iterator[Path]:
    """A file system of its own that holds a copy of the template.

    Raises:
        PermissionError: none may be mounted here.
    """
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=False).returncode:
        raise PermissionError("no file system may be mounted here")
    try:
        shutil.copytree(template, place, dirs_exist_ok=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def filled(name: str, template: Path, at: Path) -> Iterator[tuple[str, list[str]]]:
    """What was left each time, and what was wrong; nothing where all was well."""
    whole = copy(template, at / "whole")
    run(COMMANDS[name], whole)
    with disk(at / "disk", template) as folder:
        (folder / "tmp").mkdir()
        for kilobytes in LEFT:
            with _ballast(folder, kilobytes):
                ended = run(COMMANDS[name], folder)
            told = []
            if ended.status != 0 and (ended.status != 2 or ended.err.count("\n") != 1 or "space" not in ended.err):
                told = [f"status {ended.status}: {ended.err[-700:]}"]
            told += [f"left over: {path.name}" for path in folder.rglob("*.aside")]
            yield f"{name}, {kilobytes} kB left", told
        after = run(COMMANDS[name], folder)
        told = [f"goes on with {after.status}: {after.err[-700:]}"] if after.status else []
        yield f"{name}, with room", told + differences(whole, folder)


@contextmanager
def _ballast(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file that leaves so much of the disk."""
    file = folder / "ballast"
    with file.open("wb", buffering=0) as stream:
        left = shutil.disk_usage(folder).free - kilobytes * 1024
        stream.write(bytes(max(0, left)))
    try:
        yield
    finally:
        file.unlink()
