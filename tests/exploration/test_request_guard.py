"""The guard of a local server: what is refused, with which status, and that it is one line in the log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from safekey_interp.exploration.web.request_guard import MOST_BYTES, RequestGuard

TOKEN, COOKIE = "t0ken", "explore"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body that it was sent."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def asked(
    headers: dict[str, str],
    query: str = "",
    pieces: tuple[bytes, ...] = (b"",),
    names: frozenset[str] | None = None,
) -> tuple[int, dict[str, str], bytes, list[str]]:
    """Status, headers, body and log of one request."""
    sent: list[Any] = []
    log: list[str] = []
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting[-1]["more_body"] = False

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/a\nb",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    guard = RequestGuard(inner, token=TOKEN, cookie=COOKIE, log=log.append, other_names=names)
    asyncio.run(guard(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:]), log


HERE = {"host": "127.0.0.1:8000"}
GOOD = f"token={TOKEN}"


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        (HERE, "", 403),
        (HERE, "token=", 403),
        (HERE, "token=other", 403),
        (HERE | {"cookie": f"{COOKIE}=other"}, "", 403),
        (HERE | {"cookie": "\x00=;;"}, "", 403),
        ({}, GOOD, 421),
        ({"host": "evil.example"}, GOOD, 421),
        ({"host": "127.0.0.1.evil.example:8000"}, GOOD, 421),
        ({"host": "192.168.1.2:8000"}, GOOD, 421),
        (HERE | {"origin": "http://evil.example"}, GOOD, 403),
        (HERE | {"origin": "null"}, GOOD, 403),
        (HERE | {"origin": "http://127.0.0.1:9000"}, GOOD, 403),
        (HERE | {"sec-fetch-site": "cross-site", "cookie": f"{COOKIE}={TOKEN}"}, "", 403),
        (HERE | {"content-length": str(MOST_BYTES + 1)}, GOOD, 413),
        (HERE | {"content-length": "-1"}, GOOD, 413),
    ],
)
def test_what_is_refused_is_4xx_and_one_line_in_the_log(headers, query, status):
    got, _, body, log = asked(headers, query, (b"secret",))
    assert got == status
    assert b"secret" not in body
    assert len(log) == 1
    assert "\n" not in log[0]
    assert TOKEN not in log[0]


def test_a_body_in_pieces_is_refused_once_it_is_too_large():
    status, _, _, log = asked(HERE, GOOD, (b"x" * (MOST_BYTES // 2),) * 3)
    assert status == 413
    assert len(log) == 1


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:1", "[::1]:8000", "localhost"])
def test_the_token_in_the_address_or_the_cookie_lets_in(host):
    origin = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    status, headers, body, log = asked(origin, GOOD, (b"a", b"b"))
    assert (status, body, log) == (200, b"ab", [])
    assert headers["set-cookie"].startswith(f"{COOKIE}={TOKEN}; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(headers["set-cookie"].split("; "))
    status, headers, _, log = asked(origin | {"cookie": f"{COOKIE}={TOKEN}"})
    assert (status, log) == (200, [])
    assert "set-cookie" not in headers


def test_every_answer_forbids_scripts_and_addresses_of_others():
    for query in (GOOD, ""):
        headers = asked(HERE, query)[1]
        rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_server_for_others_knows_its_names_and_addresses_alone():
    names = frozenset({"box.lab"})
    assert asked({"host": "box.lab:80"}, GOOD, names=names)[0] == 200
    assert asked({"host": "10.0.0.3:80"}, GOOD, names=names)[0] == 200
    assert asked({"host": "evil.example"}, GOOD, names=names)[0] == 421
