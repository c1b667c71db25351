"""Where do bought answers wait, so that nothing is asked twice? One JSON file an answer, found again by content.

The key is the SHA-256 of everything that shaped the answer; the file lies at ``FOLDER/ab/abcdef….json``. It is
written under another name and renamed, so that a kill at any moment leaves the whole answer or none. What cannot be
read is as good as absent: it is asked again and written anew. Files, not a database: several processes may share the
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safekey_interp.errors import InputError


def content_key(*parts: Any) -> str:
    """SHA-256 in hexadecimal of ``parts``, JSON values; where one ends and the next begins counts too."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("ascii")).hexdigest()


class AnswerCache:
    """JSON objects on disk by key."""

    def __init__(self, folder: Path) -> None:
        """Open ``folder``, made when absent.

        Raises:
            InputError: the folder cannot be written; found now, before an answer is paid for.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
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
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    json.dump(value, file)
                os.replace(name, path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cache folder {folder}: cannot be written ({error.strerror}); free it, or name another with SAFEKEY_CACHE"
    )
