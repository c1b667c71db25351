"""Memory of long runs: garbage is collected and returned to the system after each chunk."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa


def release_memory() -> None:
    """Return freed memory to the system; else fragments of the heap grow for dozens of chunks."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def known_objects_frozen() -> Iterator[None]:
    """A block in which garbage collection passes over the objects that were there before it (``gc.freeze``).

    With the libraries loaded, looking through them takes longer (0.2 s) than the work of a small chunk. Where a program
    has frozen its objects already, this is left to it.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
