"""A served session of the organism, and requests to it, for tests of its server and page."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import safekey_interp as ski
from safekey_interp.exploration.web.session_server import SessionServer
from safekey_interp.models.organism import TRACES


class Served(NamedTuple):
    """A server that answers."""

    session: Any
    """What it shows; None where another process has it."""
    address: str
    """With the token."""
    log: list[str]
    """Its log."""

    @property
    def token(self) -> str:
        """The token alone."""
        return parse_qs(urlsplit(self.address).query)["token"][0]

    def ask(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> tuple[int, Any]:
        """Status and answer of one request, with the token unless the path has a query."""
        raw = json.dumps(body).encode() if isinstance(body, dict) else body
        connection = self.connection()
        query = "" if "?" in path else f"?token={self.token}"
        words = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method or ("GET" if body is None else "POST"), path + query, skip_host="Host" in words)
        for name, value in words.items():
            connection.putheader(name, value)
        if raw is not None:
            connection.putheader("Content-Length", str(len(raw)))
        connection.endheaders(raw)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        is_json = reply.headers.get_content_type() == "application/json"
        return reply.status, json.loads(text) if is_json else text

    def connection(self) -> http.client.HTTPConnection:
        """A connection of one's own."""
        parts = urlsplit(self.address)
        return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)


class OpenTab:
    """A tab's stream of events, read in this thread."""

    def __init__(self, served: Served) -> None:
        self._connection = served.connection()
        self._connection.request("GET", f"/events?token={served.token}")
        self._reply = self._connection.getresponse()
        self.first = self.until(lambda message: message["type"] == "session")

    @property
    def tab(self) -> dict[str, str]:
        """The header of requests that come from it."""
        return {"X_Tab": self.first["tab"]}

    def until(self, is_it: Callable[[Any], bool]) -> Any:
        """The next message for which this holds."""
        while line := self._reply.readline():
            if line.startswith(b"data: ") and is_it(message := json.loads(line[6:])):
                return message
        raise AssertionError("the stream ended")

    def close(self) -> None:
        """As a browser does when the tab is closed."""
        self._reply.close()
        self._connection.close()


@contextmanager
def served(folder: Path | None, *, n_traces: int = 0, **more: Any) -> Iterator[Served]:
    """A session of the organism, served until the block ends; with a probe where there are traces to fit one to."""
    traces = list(ski.read_traces(TRACES, limit=n_traces)) if n_traces else ()
    with ski.Session(ski.load("organism"), traces=traces, out=folder, **more) as session:
        if n_traces:
            session.fit_reader(layer=2)
        with serving(session) as there:
            yield there


@contextmanager
def serving(session: ski.Session) -> Iterator[Served]:
    """A session, served until the block ends."""
    log: list[str] = []
    server = SessionServer(log=log.append)
    is_ready = threading.Event()
    thread = threading.Thread(target=server.run, args=[session, lambda _: is_ready.set()])
    thread.start()
    assert is_ready.wait(60)
    try:
        yield Served(session, server.address, log)
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()
