"""Packing of text files by gzip, bzip2, xz or zstd, told by the end of the name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO


def _zstd(stream: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")


UNPACKERS: Mapping[str, Callable[[Any], Any]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
}
"""What unpacks a stream, by suffix."""


def unpacked(stream: BinaryIO, packing: str) -> BinaryIO:
    """A stream as it was before it was packed; the stream itself without a suffix of :data:`UNPACKERS`."""
    return io.BufferedReader(UNPACKERS[packing](stream), 1 << 20) if packing else stream
