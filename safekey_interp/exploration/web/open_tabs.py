"""Open tabs of a page: each hears all messages, and one of them, the first, may change the session.

Another may take over from it; when the one that writes is closed, the oldest of the others does.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
_MOST_WAITING = 20_000
"""Messages that a tab may leave unread."""


@dataclass(eq=False)
class Tab:
    """One open page."""

    tab_id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    """What its requests name; known to it alone."""
    waiting: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    """Messages that it has not been sent."""

    is_over: bool = False
    """Whether no more is to come."""

    async def next(self, seconds: float) -> Message | None:
        """The next message; None where there is none for so long."""
        try:
            return await asyncio.wait_for(self.waiting.get(), seconds)
        except TimeoutError:
            return None

    def send(self, message: Message) -> None:
        """Have it sent a message. One that reads none, as of a machine that sleeps, is let go: its browser connects
        again, and is sent the session as it is then."""
        if self.waiting.qsize() < _MOST_WAITING:
            self.waiting.put_nowait(message)
        else:
            self.is_over = True


class OpenTabs:
    """The tabs of a session's page; of the event loop's thread alone, but for :meth:`publish`."""

    def __init__(self, on_writer_closed: Callable[[], None]) -> None:
        self._tabs: list[Tab] = []
        self._writer: Tab | None = None
        self._on_writer_closed = on_writer_closed
        self._loop: asyncio.AbstractEventLoop | None = None

    def may_write(self, tab_id: str | None) -> bool:
        """Whether a tab may change the session; without any open tab, whoever has the token may."""
        return self._writer is None or self._writer.tab_id == tab_id

    def take_over(self, tab_id: str | None) -> bool:
        """Let a tab change the session from now on; False where it is not open. What is being written goes on."""
        found = next((tab for tab in self._tabs if tab.tab_id == tab_id), None)
        if found is not None:
            self._let_write(found)
        return found is not None

    def publish(self, message: Message) -> None:
        """Send a message to all tabs, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._send, message)

    def open(self) -> Tab:
        """A further tab, which hears what is published from now on."""
        self._loop = asyncio.get_running_loop()
        tab = Tab()
        self._tabs.append(tab)
        self._writer = self._writer or tab
        return tab

    def close(self, tab: Tab) -> None:
        """A tab less; at once, since what closes it may be a task that is being cancelled."""
        self._tabs.remove(tab)
        if tab is self._writer:
            self._on_writer_closed()
            self._writer = None
            if self._tabs:
                self._let_write(self._tabs[0])

    def end(self) -> None:
        """Let every tab's stream end, since the server does."""
        for tab in self._tabs:
            tab.is_over = True
            tab.send({"type": "over"})

    def _let_write(self, tab: Tab) -> None:
        before, self._writer = self._writer, tab
        if before is not None and before is not tab:
            before.send({"type": "role", "is_writer": False})
        tab.send({"type": "role", "is_writer": True})

    def _send(self, message: Message) -> None:
        for tab in self._tabs:
            tab.send(message)
