"""Disk cache of LLM replies: one JSON file a reply, found again by its content.

The key is the SHA-256 of everything that shaped the reply; the file lies at ``FOLDER/ab/abcdef….json``. What cannot be
read counts as absent: it is asked again and written anew. Several processes may share the folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safekey_interp.errors import InputError
from safekey_interp.runs.storage import try_writing, write_aside


def content_key(*parts: Any) -> str:
    """SHA-256 in hexadecimal of ``parts``, JSON values; where one ends and the next begins counts too."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("ascii")).hexdigest()


class AnswerCache:
    """JSON objects on disk by key."""

    def __init__(self, folder: Path) -> None:
        """Open ``folder``, made when absent.

        Raises:
            InputError: the folder cannot be written; found now, before a reply is paid for.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try_writing(folder)
        except OSError as error:
            raise _unwritable(folder, error) from None

    def get(self, key: str) -> dict[str, Any] | None:
        """The object saved under ``key``; None when there is none, or none that can be read."""
        try:
            value = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Save ``value`` under ``key``, whole or not at all.

        Raises:
            InputError: the disk refuses.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            write_aside(path, lambda file: file.write_text(json.dumps(value), encoding="ascii"))
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cache folder {folder}: cannot be written ({error.strerror}); free it, or name another with SAFEKEY_CACHE"
    )
