"""Server of a session's page on this machine: its address with the token, and what it says on standard error."""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Callable

import uvicorn

from safekey_interp.display import one_line
from safekey_interp.errors import InputError
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.request_guard import RequestGuard
from safekey_interp.exploration.web.session_app import SessionApp

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    session: Session,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None],
    log: Callable[[str], None] | None = None,
) -> None:
    """Serve a session's page until the process is told to stop.

    Args:
        session: shown and changed.
        host: name or address to listen on; any but loopback lets other machines in that know the token.
        port: of TCP; a free one when 0.
        on_ready: called with the page's address, token included, when it answers.
        log: called with one line for each request that is refused; standard error when None.

    Raises:
        InputError: the host is not this machine's, or the port is taken.
    """
    log = log or _to_standard_error
    listening = _listening(host, port)
    port = listening.getsockname()[1]
    if not is_loopback(host):
        log(f"listens on {host}: every machine that reaches it and knows the token can use this session")
    token = secrets.token_urlsafe(24)
    app = SessionApp(session, log)
    names = None if is_loopback(host) else frozenset({host.lower(), socket.gethostname().lower(), socket.getfqdn()})
    guard = RequestGuard(app.starlette(), token=token, cookie=f"safekey_explore_{port}", log=log, other_names=names)
    config = uvicorn.Config(
        guard,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=30,
    )
    shown = "127.0.0.1" if host in ("0.0.0.0", "localhost") else f"[{host}]" if ":" in host else host
    server = _Server(config, lambda: on_ready(f"http://{shown}:{port}/?token={token}"))
    try:
        server.run([listening])
    finally:
        app.close()
        listening.close()


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    return host in _LOOPBACK


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


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
