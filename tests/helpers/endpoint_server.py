"""Local OpenAI-compatible server that answers, fails, limits the rate and sends invalid replies, as a test says."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_NUMBER = re.compile(r'(?:^|")number (\d+)', re.MULTILINE)


class Reply:
    """What the server does with one request."""

    def __init__(self, content: Any = "", *, status: int = 200, body: bytes | None = None, **headers: str) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        completion = {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": text}}]}
        self.body = json.dumps(completion).encode() if body is None else body
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.cut_after: int | None = None
        self.hold: threading.Event | None = None


def error(status: int, message: str = "no", **headers: str) -> Reply:
    return Reply(status=status, body=json.dumps({"error": {"message": message}}).encode(), **headers)


class Server:
    """An OpenAI-compatible server on 127.0.0.1 that records its requests."""

    def __init__(self, behave: Callable[[int, int], Reply]) -> None:
        self.behave = behave
        self.texts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: set[str | None] = set()
        self.times: list[float] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._seen: dict[int, int] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        text = next(turn["content"] for turn in reversed(body["messages"]) if turn["role"] == "user")
        n = int(next(iter(_NUMBER.findall(text)[-1:]), -1))
        with self._lock:
            self.bodies.append(body)
            self.texts.append(text)
            self.times.append(time.monotonic())
            self.authorizations.add(handler.headers["Authorization"])
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            nth = self._seen[n] = self._seen.get(n, 0) + 1
        reply = self.behave(n, nth)
        if reply.hold:
            reply.hold.wait(10)
        with self._lock:
            self._at_once -= 1
        try:
            handler.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(reply.body)))
            handler.end_headers()
            handler.wfile.write(reply.body[: reply.cut_after])
        except OSError:
            pass  # the client has gone
        if reply.cut_after is not None:
            handler.close_connection = True


@contextmanager
def serving(behave: Callable[[int, int], Reply]) -> Iterator[Server]:
    """A server that does what ``behave`` says for prompt ``number n`` (-1: it has none), asked for the nth time."""
    server = Server(behave)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()
