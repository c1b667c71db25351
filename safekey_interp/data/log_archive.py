"""Archives of Inspect logs (``.eval``) and INIF documents (``.inif``): zip files, one JSON member a sample.

Members are packed by deflate or, in recent logs, zstd. Nothing is written to disk. A member larger than 256 MiB, or
members that claim more bytes than the file has, are refused before they are unpacked.

A sample may lie in chunks: ``sample.json`` says by ranges (``message_refs``) which of the messages, that lie in members
named by the number of their first, are the conversation; ``attachment://N`` is the N-th text of the attachments.

Formats: UKGovernmentBEIS/inspect_ai, ``log/_recorders/eval.py``, ``log/_recorders/chunked/format.py``; ndif-team/inif,
``inif/indexed.py``.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safekey_interp.data.cell_values import kind_in_words
from safekey_interp.data.inif_document import InifRows
from safekey_interp.data.inspect_sample import inspect_row, is_inspect_log
from safekey_interp.data.sample_columns import parts
from safekey_interp.errors import InputError

_SIGNATURE = b"PK\x03\x04"
_HEADS = ("header.json", "_journal/start.json", "start.json")
_LARGEST = 1 << 28
_ZSTD = 93
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, _ZSTD)
_INIF = "inif-indexed"
_INIF_HEADS = {"metadata.json": dict, "sequences.json": list}
_INIF_SAMPLE = re.compile(r"samples/\d+\.json")
_CHUNK = re.compile(r"(?P<folder>samples/.+_epoch_\d+)/(metadata|(messages|attachments)/\d+)\.json")
_SAMPLE = re.compile(r"samples/.+_epoch_\d+(/sample)?\.json")


def is_archive(path: Path) -> bool:
    """Whether a file begins as zip files do."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def archive_rows(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The samples of a log or a document as rows of data, in the archive's order.

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
            said = {} if head is None else _object(archive, head, name)
            if said.get("format") == _INIF:
                yield from _inif_rows(archive, members, name)
                return
            if not is_inspect_log(said):
                raise InputError(
                    f"{name}: a zip file without an Inspect log's {_HEADS[0]}; expected a log (.eval) or INIF (.inif)"
                )
            samples = [member for member in members if _SAMPLE.fullmatch(member.filename)]
            chunks = _chunks_of(members)
            for number, member in enumerate(samples, 1):
                sample = _object(archive, member, name)
                if member.filename.endswith("/sample.json"):
                    folder = member.filename.removesuffix("/sample.json")
                    sample = _whole(archive, sample, folder, chunks.get(folder, []), name)
                yield inspect_row(sample, f"{name}, row {number}")
    except zipfile.BadZipFile as error:
        raise InputError(f"{name}: broken zip file: {error}; write the log again") from None


def _inif_rows(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], name: str) -> Iterator[dict[str, Any]]:
    heads = {member.filename: member for member in members if member.filename in _INIF_HEADS}
    if len(heads) < len(_INIF_HEADS):
        raise InputError(f"{name}: an INIF archive without {' and '.join(_INIF_HEADS)}; write it again")
    metadata, sequences = (_object(archive, heads[head], name, kind) for head, kind in _INIF_HEADS.items())
    rows = InifRows({"metadata": metadata, "sequences": sequences})
    samples = [member for member in members if _INIF_SAMPLE.fullmatch(member.filename)]
    for number, member in enumerate(samples, 1):
        yield rows.row(_object(archive, member, name), f"{name}, row {number}")


def _chunks_of(members: list[zipfile.ZipInfo]) -> dict[str, list[zipfile.ZipInfo]]:
    """Members by the folder of the sample in chunks that they belong to."""
    chunks: dict[str, list[zipfile.ZipInfo]] = {}
    for member in members:
        if match := _CHUNK.fullmatch(member.filename):
            chunks.setdefault(match["folder"], []).append(member)
    return chunks


def _whole(
    archive: zipfile.ZipFile, sample: dict[str, Any], folder: str, members: list[zipfile.ZipInfo], name: str
) -> dict[str, Any]:
    """A sample whose messages, attachments and metadata lie in members of their own."""
    where = f"{name}, {folder}/sample.json"
    metadata = next((member for member in members if member.filename == f"{folder}/metadata.json"), None)
    messages = _sequence(archive, folder, "messages", members, name)
    refs = parts(sample, "message_refs", where)
    pairs = [ref for ref in refs if isinstance(ref, list) and [type(end) for end in ref] == [int, int]]
    if len(pairs) < len(refs) or not all(0 <= start <= end <= len(messages) for start, end in pairs):
        raise InputError(
            f"{where}: message_refs: got {kind_in_words(refs)}, expected ranges of {len(messages)} messages"
        )
    attached = _sequence(archive, folder, "attachments", members, name)
    return sample | {
        "messages": [message for start, end in pairs for message in messages[start:end]],
        "attachments": {str(number): text for number, text in enumerate(attached)},
        "metadata": _object(archive, metadata, name) if metadata else sample.get("metadata"),
    }


def _sequence(archive: zipfile.ZipFile, folder: str, kind: str, members: list[zipfile.ZipInfo], name: str) -> list[Any]:
    """The items of a sequence, whose members are named by the number of their first."""
    prefix = f"{folder}/{kind}/"
    numbered = {
        int(start): member
        for member in members
        if member.filename.startswith(prefix)
        and (start := member.filename.removeprefix(prefix).removesuffix(".json")).isdecimal()
    }
    return [item for _, member in sorted(numbered.items()) for item in _object(archive, member, name, list)]


def _object(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, kind: type = dict) -> Any:
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
    if not isinstance(value, kind):
        raise InputError(f"{where}: got no JSON {'object' if kind is dict else 'array'}, expected one")
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
