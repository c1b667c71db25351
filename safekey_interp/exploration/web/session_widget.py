"""Widget of a session in Jupyter and VS Code: its page in a cell, over the notebook's own connection.

Each message of the page is a request that the session's application answers as one over HTTP; Jupyter has let in who
sends it. Another cell that runs does not hold up tokens, but requests wait for it, as all that a notebook asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Annotated, Any, Literal

import anywidget
from pydantic import Field, ValidationError

from safekey_interp.exploration.web.page_files import widget_module
from safekey_interp.exploration.web.request_bodies import Body, Name
from safekey_interp.exploration.web.request_guard import MOST_BYTES, App, Message
from safekey_interp.exploration.web.session_json import json_text
from safekey_interp.exploration.web.session_server import SessionServer

Short = Annotated[str, Field(max_length=2000)]


class WidgetRequest(Body):
    """A message of the page."""

    id: Name
    """Of the answer's messages, too."""
    method: Literal["GET", "POST", "CLOSE"]
    """``CLOSE`` ends the answer to the request of this id."""
    path: Short = ""
    """With its query."""
    headers: Annotated[dict[Name, Short], Field(default_factory=dict)]
    """Of HTTP."""
    body: Annotated[str, Field(max_length=MOST_BYTES)] = ""
    """Of a request that changes something, JSON."""


class SessionWidget(anywidget.AnyWidget):
    """A session's page; each view of it is one of the session's tabs."""

    _esm = widget_module()

    def __init__(self, server: SessionServer) -> None:
        """Of a server that runs."""
        super().__init__()
        self._server = server
        self._open: dict[str, Future[None]] = {}
        self.on_msg(self._hear)

    def _hear(self, _: object, message: object, __: object) -> None:
        try:
            request = WidgetRequest.model_validate(message)
        except ValidationError as error:
            self.log.warning("explore: a message of the page is none of its requests (%d faults)", error.error_count())
            return
        if request.method == "CLOSE":
            if (running := self._open.pop(request.id, None)) is not None:
                running.cancel()
            return
        try:
            answered = self._server.submit(lambda app: answer(app, request, self.send))
        except RuntimeError:  # it has ended
            words = json_text({"error": "this session was closed; explore it again"})
            self.send({"id": request.id, "status": 503, "text": words, "more": False})
            return
        self._open[request.id] = answered
        answered.add_done_callback(lambda _: self._open.pop(request.id, None))


async def answer(app: App, request: WidgetRequest, tell: Callable[[dict[str, Any]], None]) -> None:
    """Have an application answer a request.

    Args:
        app: the application.
        request: the request.
        tell: called with each part of the answer: id, status, text, and whether more is to come.
    """
    path, _, query = request.path.partition("?")
    headers = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "http",
        "method": request.method, "path": f"/{path}", "query_string": query.encode(), "headers": headers,
    }  # fmt: skip
    bodies = [request.body.encode()]
    status = 0

    async def receive() -> Message:
        if not bodies:
            await asyncio.Event().wait()  # the page says that it goes by CLOSE
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            more = message.get("more_body", False)
            tell({"id": request.id, "status": status, "text": message["body"].decode(), "more": more})

    await app(scope, receive, send)
