"""Endpoints that fail: every reply that a server should not give, to a command that asks it.

A fault of one reply is asked again; one that stays ends in one line with exit status 2, or leaves the prompts out and
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .processes import run
from .victims import copy


def _replies() -> dict[str, Callable[[], object]]:
    """What the server sends, by what is wrong with it."""
    from endpoint_server import Reply, error

    def cut() -> Reply:
        reply = Reply("Okay, the user asks. No.")
        reply.cut_after = 40
        return reply

    def closed() -> Reply:
        reply = Reply("x")
        reply.cut_after = 0
        return reply

    return {
        "too many requests": lambda: error(429, Retry_After="0.01"),
        "a broken server": lambda: error(500, Retry_After="0.01"),
        "a busy server": lambda: error(503, Retry_After="0.01"),
        "a wrong request": lambda: error(400),
        "a wrong key": lambda: error(401),
        "no credit": lambda: error(402),
        "no such path": lambda: error(404),
        "a redirect": lambda: Reply(status=302, body=b"", Location="http://127.0.0.1:9/"),
        "an empty body": lambda: Reply(body=b""),
        "a page": lambda: Reply(body=b"<html>hello</html>", Content_Type="text/html"),
        "broken JSON": lambda: Reply(body=b'{"choices": ['),
        "half a body": cut,
        "a closed connection": closed,
        "a list": lambda: Reply(body=b"[]"),
        "no choices": lambda: Reply(body=b'{"choices": []}'),
        "choices of numbers": lambda: Reply(body=b'{"choices": [1]}'),
        "content null": lambda: Reply(body=b'{"choices": [{"message": {"content": null}}]}'),
        "content a number": lambda: Reply(body=b'{"choices": [{"message": {"content": 3}}]}'),
        "not UTF-8": lambda: Reply(body=b'{"choices": [{"message": {"content": "\xff"}}]}'),
        "endless nesting": lambda: Reply(body=b"[" * 100_000),
    }


def attacked(template: Path, at: Path, only: str = "") -> Iterator[tuple[str, list[str]]]:
    """Each fault, once at the first request alone and once at every one, and what was wrong."""
    from endpoint_server import Reply, serving

    good = "<think>\nOkay, so the user asks. Hmm, that could hurt people.\n</think>\n\nI can't help with that."
    for case, bad in _replies().items():
        for when, n_bad in (("once", 1), ("always", 10**9)):
            name = f"endpoint: {case}, {when}"
            if only not in name:
                continue
            n_asked = 0

            def behave(n: int, nth: int, bad: Callable[[], object] = bad, n_bad: int = n_bad) -> object:
                nonlocal n_asked
                n_asked += 1
                return bad() if n_asked <= n_bad else Reply(good)

            folder = copy(template, at / "endpoint")
            with serving(behave) as server:  # type: ignore[arg-type]
                variables = {"SAFEKEY_LLM_MODEL": "m", "SAFEKEY_LLM_API_KEY": "secret-secret"}
                words = ("generate", "--prompts", "prompts.jsonl", "--endpoint", server.base_url, "--limit", "3")
                ended = run((*words, "--out", "out.jsonl", "--quiet"), folder, variables=variables, limit=120.0)
            told = []
            lines = ended.err.splitlines()
            if ended.status not in (0, 2) or "Traceback" in ended.err or (ended.status == 2 and len(lines) != 1):
                told.append(f"status {ended.status}, {ended.seconds:.0f} s: {ended.err[-700:]}")
            if when == "always" and ended.status == 0:
                told.append(f"ended well: {ended.out[-300:]}")
            if "secret-secret" in ended.err + ended.out:
                told.append("the key is shown")
            yield name, told
