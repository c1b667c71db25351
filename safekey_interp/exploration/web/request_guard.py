"""Guard of a local web server: token, Host, Origin and size of every request, and the headers of every response.

A page on the internet can make a browser send requests to this machine. What it cannot do is name the token, which is
random and new each time; the Host header tells a foreign name that was made to resolve to this machine (DNS rebinding),
the Origin header a foreign page. A first request carries the token in its URL, later ones in a cookie that no other
site's requests carry. What is refused is one line in the log.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from safekey_interp.display import one_line

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
MOST_BYTES = 1_000_000
"""Largest body of a request: a prompt of 32,000 characters takes at most 0.4 MB as JSON."""
_MOST_DROPPED = 50 * MOST_BYTES
_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "[::1]"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Refusal(NamedTuple):
    """Why a request is refused."""

    status: int
    """Of HTTP, 400 to 499."""
    reason: str
    """One line."""


class RequestGuard:
    """An ASGI application that passes on what may reach the one inside it."""

    def __init__(
        self, app: App, *, token: str, cookie: str, log: Callable[[str], None], other_names: frozenset[str] | None
    ) -> None:
        self._app, self._token, self._cookie, self._log = app, token, cookie, log
        self._other_names = other_names
        """Names of this machine beside loopback; None for loopback alone. Given any, its addresses are good, too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        refusal, brings_token = self._refusal(headers, query)
        if refusal:
            await _body(receive)
            await self._refuse(scope, send, refusal)
            return
        body = await _body(receive)
        if body is None:
            await self._refuse(scope, send, _too_large())
            return

        async def read() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = {"type": "http.request", "body": body, "more_body": False}, None
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = dict(_HEADERS)
                if brings_token:
                    more["set-cookie"] = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in more.items())]
                if 400 <= message["status"] < 500:
                    self._note(scope, message["status"], HTTPStatus(message["status"]).phrase)
            await send(message)

        await self._app(scope, read, with_headers)

    def _refusal(self, headers: dict[str, str], query: dict[str, list[str]]) -> tuple[Refusal | None, bool]:
        """Why not, and whether the token came in the URL."""
        host = headers.get("host", "")
        if not self._is_here(host):
            return Refusal(421, f"Host {host!r} is none of this server's names"), False
        given = (query.get("token") or [""])[0]
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        # A link in another page that brings the token is one that the user was given.
        is_ours = site in ("none", "same-origin") or self._is_token(given)
        if (origin is not None and origin != f"http://{host}") or not is_ours:
            return Refusal(403, f"came from another page (Origin {origin!r}, {site})"), False
        if not any(self._is_token(each) for each in (given, _cookie_of(headers.get("cookie", ""), self._cookie))):
            return Refusal(403, "no token, or another one; open the address that the command printed"), False
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return _too_large(), False
        return None, self._is_token(given)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    def _is_here(self, host: str) -> bool:
        """Whether a Host header names this machine; its port does not matter, since a tunnel may change it."""
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() in _LOOPBACK_NAMES:
            return True
        if self._other_names is None:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower() in self._other_names
        return True

    async def _refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        self._note(scope, refusal.status, refusal.reason)
        body = json.dumps({"error": one_line(refusal.reason)}).encode()
        headers = _HEADERS | {"content-type": "application/json", "content-length": str(len(body))}
        # What is left of a body that was not read would be taken for the next request.
        headers |= {"connection": "close"}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    def _note(self, scope: Scope, status: int, reason: str) -> None:
        self._log(one_line(f"{status} {scope['method']} {scope['path'][:200]}: {reason}"))


async def _body(receive: Receive) -> bytes | None:
    """The whole body, which may come in pieces that do not say how many; None where it is too large.

    What is too large is read on for a while, and dropped: a sender that is cut off would not read the answer.
    """
    pieces, size = [], 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if size <= MOST_BYTES:
            pieces.append(message.get("body", b""))
        if not message.get("more_body", False) or size > _MOST_DROPPED:
            return b"".join(pieces) if size <= MOST_BYTES else None


def _too_large() -> Refusal:
    return Refusal(413, f"the body is larger than {MOST_BYTES:,} bytes, or its length is not said")


def _cookie_of(header: str, name: str) -> str:
    try:
        cookies = SimpleCookie(header)
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""
