"""Archives of Inspect logs (``.eval``): a zip file with one JSON member a sample, read one at a time.

Members are packed by deflate or, in recent logs, zstd. Nothing is written to disk. A member larger than 256 MiB, or
members that claim more bytes than the file has, are refused before they are unpacked.

Format: UKGovernmentBEIS/inspect_ai, ``log/_recorders/eval.py``; samples in chunks (``chunked/format.py``) are not read.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safekey_interp.data.inspect_sample import inspect_row, is_inspect_log
from safekey_interp.errors import InputError

_SIGNATURE = b"PK\x03\x04"
_HEADS = ("header.json", "_journal/start.json", "start.json")
_LARGEST = 1 << 28
_ZSTD = 93
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, _ZSTD)
_CHUNKED = re.compile(r"samples/.+_epoch_\d+/sample\.json")
_SAMPLE = re.compile(r"samples/.+_epoch_\d+\.json")


def is_archive(path: Path) -> bool:
    """Whether a file begins as zip files do."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def archive_rows(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The samples of a log as rows of data, in the archive's order.

    Args:
        path: where it lies.
        name: the file as the user named it, for messages.

    Raises:
        InputError: no zip file, none of Inspect's, or a member that cannot be used, with its name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.compress_size for member in members) > path.stat().st_size:
                raise InputError(f"{name}: broken zip file: its members overlap; write the log again")
            head = next((member for member in members if member.filename in _HEADS), None)
            if head is None or not is_inspect_log(_object(archive, head, name)):
                raise InputError(f"{name}: a zip file without an Inspect log's {_HEADS[0]}; expected a log (.eval)")
            samples = [member for member in members if _SAMPLE.fullmatch(member.filename)]
            chunked = next((member for member in members if _CHUNKED.fullmatch(member.filename)), None)
            if chunked:
                raise InputError(
                    f"{name}, {chunked.filename}: a sample in chunks, which are not read; expected one member a sample,"
                    " or the log as JSON, as `inspect log convert --to json` writes it"
                )
            for number, member in enumerate(samples, 1):
                yield inspect_row(_object(archive, member, name), f"{name}, row {number}")
    except zipfile.BadZipFile as error:
        raise InputError(f"{name}: broken zip file: {error}; write the log again") from None


def _object(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Any:
    where = f"{name}, {member.filename}"
    if member.file_size > _LARGEST:
        size, limit = (f"{n / 2**20:,.0f} MiB" for n in (member.file_size, _LARGEST))
        raise InputError(f"{where}: {size} unpacked, expected at most {limit}")
    if member.compress_type not in _METHODS:
        raise InputError(f"{where}: packed by method {member.compress_type}, expected one of {_METHODS}")
    try:
        content = _zstd(archive, member) if member.compress_type == _ZSTD else archive.read(member)
        value = json.loads(content.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: broken JSON: {error.msg} at line {error.lineno}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        # A wrong checksum, a member that is cut, encrypted or packed in a way of its own; thousands of brackets.
        raise InputError(f"{where}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: got no JSON object, expected one")
    return value


def _zstd(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member that Python's zipfile cannot unpack before 3.14."""
    import pyarrow

    if member.flag_bits & 1:
        raise ValueError("it is encrypted")
    stream = archive.fp
    assert stream is not None
    stream.seek(member.header_offset)
    header = stream.read(30)
    if header[:4] != _SIGNATURE:
        raise ValueError("no member begins at its place")
    stream.seek(sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28)), 1)
    packed = pyarrow.BufferReader(stream.read(member.compress_size))
    with pyarrow.CompressedInputStream(packed, "zstd") as unpacking:
        content = unpacking.read(member.file_size + 1)
    if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
        raise ValueError("its size or checksum is another than the archive says")
    return content
