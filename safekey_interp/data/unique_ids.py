"""Uniqueness of ids: refuses a trace id that stands a second time, in little memory."""

from __future__ import annotations

import numpy as np

from safekey_interp.errors import InputError

_IDS_AT_ONCE = 2048


class UniqueIds:
    """Have two traces the same id? Keeps eight bytes an id, and the texts of the latest only."""

    def __init__(self) -> None:
        self._known = np.empty(0, np.int64)  # sorted hashes
        self._latest: dict[int, tuple[str, str]] = {}

    def add(self, trace_id: str, where: str) -> None:
        """Note an id; an InputError that names ``where`` when it stood before."""
        number = hash(trace_id)
        if number in self._latest:
            raise self._repeated(trace_id, where)
        self._latest[number] = trace_id, where
        if len(self._latest) == _IDS_AT_ONCE:
            self.check()

    def check(self) -> None:
        """Compare the latest ids with all before them; called at the end and every so often."""
        latest = np.fromiter(self._latest, np.int64, len(self._latest))
        places = np.searchsorted(self._known, latest)
        if len(self._known):
            repeated = latest[self._known.take(places, mode="clip") == latest]
            if len(repeated):
                raise self._repeated(*self._latest[int(repeated[0])])
        order = np.argsort(latest)
        self._known = np.insert(self._known, places[order], latest[order])
        self._latest.clear()

    @staticmethod
    def _repeated(trace_id: str, where: str) -> InputError:
        return InputError(
            f"{where}: the id {trace_id!r} stands a second time, expected one of its own for each trace;"
            " read the files one by one, or name another column with --id-field"
        )
