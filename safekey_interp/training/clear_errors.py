"""Errors of torch's libraries as what they mean: another process that is gone, or a disk that takes no more."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from safekey_interp.errors import RunError, first_line
from safekey_interp.runs.processes import RESUMES, Team

_EXCHANGES = ("gloo", "nccl", "connection", "process group")
"""Words in errors of exchanges with other processes."""
_WRITING = ("PytorchStreamWriter", "inline_container", "file write failed", "unexpected pos")
"""Words in errors of ``torch.save``, which come in place of the system's."""
_LITTLE = 1 << 26
"""Bytes that are left on a disk where a write failed for want of them."""


@contextmanager
def clear_errors(team: Team, folder: Path) -> Iterator[None]:
    """Name the cause of what torch and safetensors raise inside the block.

    Args:
        team: the processes of the run.
        folder: where they write.

    Raises:
        RunError: another process was lost in the middle of an exchange; torch reports a closed connection.
        OSError: a file could not be written.
    """
    try:
        yield
    except SafetensorError as error:
        raise _of_disk(error, folder) from error
    except RuntimeError as error:
        if any(word in str(error) for word in _WRITING):
            raise _of_disk(error, folder) from error
        if team.is_alone or not any(word in str(error).lower() for word in _EXCHANGES):
            raise
        raise RunError(f"another process is gone ({first_line(error)[:80]}); {RESUMES}") from error


def _of_disk(error: Exception, folder: Path) -> OSError:
    if shutil.disk_usage(folder).free < _LITTLE:
        return OSError(errno.ENOSPC, "No space left on device")
    return OSError(errno.EIO, first_line(error))
