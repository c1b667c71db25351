"""Files of traces that may be damaged in any way."""

from __future__ import annotations

from pathlib import Path

from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError


def read_or_named(path: Path) -> str:
    """The name of a file that can be read, or the error that refuses it, which is the documented one."""
    try:
        list(read_traces(path))
    except InputError as error:
        return str(error)
    return path.name
