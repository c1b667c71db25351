"""Queue of branches to be written: one thread writes them one after the other, and each event is published."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from safekey_interp.display import one_line
from safekey_interp.errors import SafekeyError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.session_json import event_json, transcript_json

Json = dict[str, Any]


class BranchQueue:
    """What waits to be written, and the thread that writes it."""

    def __init__(self, session: Session, publish: Callable[[Json], None]) -> None:
        self._session, self._publish = session, publish
        self._waiting: dict[str, bool] = {}
        """Branches in the order in which they were asked for, and whether one token is all that is wanted."""
        self._behind: set[str] = set()
        """Those that wait for all others."""
        self._running: str | None = None
        self._stops = threading.Event()
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="branches", daemon=True)
        self._thread.start()

    def add(self, branches: Iterable[str], *, one_token: bool = False, is_behind: bool = False) -> None:
        """Write branches, or one more token of each; one that waits already waits once.

        Args:
            branches: their ids.
            one_token: whether one token is all that is wanted.
            is_behind: whether they wait for all others, those that are asked for later too.
        """
        for branch_id in branches:
            with self._changed:
                self._waiting[branch_id] = one_token and self._waiting.get(branch_id, True)
                (self._behind.add if is_behind else self._behind.discard)(branch_id)
                self._changed.notify()
            self.show(branch_id)

    def cancel(self, branch_id: str | None = None) -> None:
        """Leave a branch, or all, unwritten; one that is being written stops after the token that it is at."""
        with self._changed:
            left = [each for each in self._waiting if branch_id in (None, each)]
            for each in left:
                del self._waiting[each]
            if branch_id in (None, self._running):
                self._stops.set()
        for each in left:
            self.show(each)

    def transcript(self, branch_id: str) -> Json:
        """A branch as the page is sent it."""
        return transcript_json(self._session, branch_id, is_waiting=branch_id in self._waiting)

    def show(self, branch_id: str) -> None:
        """Send all tabs a branch as it is; nothing where it was deleted."""
        try:
            self._publish(self.transcript(branch_id))
        except SafekeyError:
            return

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self.cancel()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _next(self) -> tuple[str, bool] | None:
        """The branch that has waited longest, once there is one; None when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            waiting = list(self._waiting)
            self._running = next((each for each in waiting if each not in self._behind), waiting[0])
            self._behind.discard(self._running)
            self._stops.clear()
            return self._running, self._waiting.pop(self._running)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            branch_id, one_token = job
            try:
                self._write(branch_id, one_token=one_token)
            except Exception as error:  # a bug ends its branch, and not the session
                kind = "" if isinstance(error, SafekeyError) else f"{type(error).__name__}: "
                self._publish({"type": "failed", "branch": branch_id, "message": one_line(f"{kind}{error}")})
            with self._changed:
                self._running = None
            self.show(branch_id)

    def _write(self, branch_id: str, *, one_token: bool) -> None:
        self._publish({"type": "running", "branch": branch_id})
        for event in self._session.step(branch_id) if one_token else self._session.run(branch_id):
            self._publish(event_json(event))
            if self._stops.is_set():
                break
