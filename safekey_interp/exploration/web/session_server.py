"""Server of a session's page on this machine: its address with the token, and what it says on standard error."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import uvicorn

from safekey_interp.display import one_line
from safekey_interp.errors import InputError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.request_guard import App, Message, Receive, RequestGuard, Scope, Send
from safekey_interp.exploration.web.session_app import SessionApp

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class SessionServer:
    """A server of a session's page, bound to its port before there is a session."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, log: Callable[[str], None] | None = None) -> None:
        """Bind, and answer nothing yet.

        Args:
            host: name or address to listen on; any but loopback lets other machines in that know the token.
            port: of TCP; a free one when 0.
            log: called with one line for each request that is refused; standard error when None.

        Raises:
            InputError: the host is not this machine's, or the port is taken.
        """
        self._log, self._host = log or _to_standard_error, host
        self._listening = _listening(host, port)
        self._token = secrets.token_urlsafe(24)
        self._port = self._listening.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._answers: tuple[App, asyncio.AbstractEventLoop] | None = None

    @property
    def address(self) -> str:
        """The page's address, token included."""
        shown = "127.0.0.1" if self._host in ("0.0.0.0", "localhost") else self._host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self._port}/?token={self._token}"

    def run(self, session: Session, on_ready: Callable[[str], None] = lambda _: None) -> None:
        """Serve until the process is told to stop (Ctrl-C), or :meth:`stop` is called from another thread.

        Args:
            session: shown and changed.
            on_ready: called with the address when it answers.
        """
        names = None
        if not is_loopback(self._host):
            self._log(f"listens on {self._host}: whoever reaches it and knows the token can use this session")
            names = frozenset({self._host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()})
        app = SessionApp(session, self._log)
        cookie = f"safekey_explore_{self._port}"
        answers: App = app.starlette()
        guard = RequestGuard(answers, token=self._token, cookie=cookie, log=self._log, other_names=names)
        served = _UntilEnd(guard, app.end_streams)
        config = uvicorn.Config(
            served,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
        )

        def ready() -> None:
            self._answers = answers, asyncio.get_running_loop()
            on_ready(self.address)

        self._server = _Server(config, ready, served.end)
        try:
            with suppress(KeyboardInterrupt):  # uvicorn hands on the Ctrl-C that ended it, or not
                self._server.run([self._listening])
        finally:
            app.close()
            self._listening.close()

    def submit(self, ask: Callable[[App], Coroutine[Any, Any, None]]) -> Future[None]:
        """Ask in the server's own thread what came another way than over HTTP, and is trusted.

        Args:
            ask: called with the application.

        Raises:
            RuntimeError: it does not run.
        """
        if self._answers is None or self._answers[1].is_closed():
            raise RuntimeError("the server does not run")
        app, loop = self._answers
        return asyncio.run_coroutine_threadsafe(ask(app), loop)

    def stop(self) -> None:
        """End :meth:`run`."""
        if self._server is not None:
            self._server.should_exit = True


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    return host in _LOOPBACK


class _UntilEnd:
    """An application whose requests are answered at once when the server ends, and what computes is left to itself.

    uvicorn would wait, cancel them, and print a traceback of each.
    """

    def __init__(self, app: App, end_streams: Callable[[], None]) -> None:
        self._app, self._end_streams, self._is_over = app, end_streams, asyncio.Event()

    def end(self) -> None:
        """Let requests end; from the event loop's thread."""
        self._end_streams()
        self._is_over.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say that the server has ended."""
        has_begun = False

        async def told(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        work = asyncio.ensure_future(self._app(scope, receive, told))
        over = asyncio.ensure_future(self._is_over.wait())
        await asyncio.wait([work, over], return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if work.done() or has_begun:
            await work
            return
        work.cancel()
        await asyncio.wait([work])
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": "the server has ended"}'})


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready, self._on_end = on_ready, on_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_end()  # a stream that is cut off instead is logged as an error
        await super().shutdown(sockets)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--host {host}, --port {port}: cannot listen there ({one_line(str(error))}); --port 0 takes a free port"
        ) from None
    return made


def _to_standard_error(line: str) -> None:
    print(f"explore: {one_line(line)}", file=sys.stderr, flush=True)
