"""Atomic writing of files and folders, and locks of folders.

Everything is made under another name beside its place and renamed. :func:`remove_leftovers` deletes what a kill leaves
of that, which it knows by its name, and by nobody holding its lock.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_interp.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.aside")


def cache_folder() -> Path:
    """Where the package keeps what it can make again: ``$SAFEKEY_CACHE``, else its folder in the XDG cache folder."""
    if own := os.environ.get("SAFEKEY_CACHE"):
        return Path(own).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    return base / "safekey-interp"


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` make a file of the same name in a folder beside ``path``, then move it there."""
    with _aside(path) as folder:
        made = folder / path.name
        write(made)
        made.chmod(folder.stat().st_mode & 0o666)  # some libraries write files that nobody else may read
        made.replace(path)


def write_folder_aside(path: Path, fill: Callable[[Path], object]) -> None:
    """Have ``fill`` fill a folder beside ``path``, then rename it."""
    with _aside(path) as folder:
        fill(folder)
        folder.rename(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as a whole or not at all; NaN becomes null."""
    text = json.dumps(without_nan(value), ensure_ascii=False, indent=2, allow_nan=False, default=str)
    write_aside(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write Parquet as a whole or not at all."""
    write_aside(path, lambda file: table.to_parquet(file, index=False, compression="zstd"))


def save_tensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors; ``metadata`` goes into their header.

    Raises:
        OSError: it cannot be written; the library's own error is of no such kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(tensors), file, None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error


def try_writing(folder: Path) -> None:
    """Make something in a folder and take it away again, with what kills left; permissions do not always say it.

    What another process holds by :func:`lock_folder` keeps all that is in it: some of it has a leftover's name.

    Raises:
        OSError: it cannot be done.
    """
    if not _is_held(folder):
        remove_leftovers(folder)
    with _aside(folder / "try"):
        pass


def read_json(file: Path) -> Any:
    """What a JSON file holds; None when it is absent or broken."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sha256_of(file: Path) -> str:
    """Hash of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_leftover(path: Path) -> bool:
    """Whether a killed write left it."""
    return _LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writes left in a folder, and nothing that another process is writing."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path) and not _is_held(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def lock_folder(folder: Path) -> int | None:
    """Keep other processes from writing to a folder until :func:`unlock_folder` or this process's end, however it ends.

    Returns:
        What :func:`unlock_folder` takes; None where the file system or the platform knows no such lock.

    Raises:
        RunError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    is_locked = False
    try:
        is_locked = try_lock(handle)
    except BlockingIOError:
        why = "another process is writing this run; wait for it or choose another folder"
        raise RunError(f"out {folder}: {why}") from None
    finally:
        if not is_locked:
            os.close(handle)
    return handle if is_locked else None


def try_lock(handle: int) -> bool:
    """Lock what is open until it is closed; False where the file system or the platform knows no such lock.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise BlockingIOError(error.errno, error.strerror) from None
        return False
    return True


def without_nan(value: Any) -> Any:
    """A value as JSON has it: no NaN or infinity, texts as keys, lists, and Python's own numbers."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return without_nan(value.item()) if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def unlock_folder(handle: int | None) -> None:
    """Let other processes write again."""
    if handle is not None:
        os.close(handle)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.aside")
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        try_lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _is_held(path: Path) -> bool:
    """Whether a process that lives is writing it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        try_lock(handle)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
