"""Client of an OpenAI-compatible endpoint, and of no other host: a conversation in, the reply out.

Requests go through the official client (``openai``), whose own retries honour ``Retry-After`` (within bounds) and
else back off exponentially with jitter, after 408, 409, 429, 5xx, time-outs and broken connections. They run on an
event loop in a thread of its own, so that callers stay synchronous (in Jupyter too) and an interrupt cancels what is
under way.

Only the given host is contacted: redirects are not followed, and proxies from the environment are not used unless
asked for (``trust_env``), since either would show the traces to another host. What the client itself reads from the
environment (``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID``, ``OPENAI_CUSTOM_HEADERS``) holds as always.

The key stays out of every repr and message, and out of the reply too, should the server echo it.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from safekey_interp.data.endpoint_replies import Reply, read_reply
from safekey_interp.data.trace import Message
from safekey_interp.display import one_line
from safekey_interp.errors import InputError, ModelError, install_hint

if TYPE_CHECKING:
    import openai

_T = TypeVar("_T")

# 401 wrong key, 402 no credit, 404 no such model or path: every further request would end the same way.
_HOPELESS = {401, 402, 404}
_TRANSIENT = {408, 409, 429}
# The client waits no longer than this between two tries, whatever Retry-After says.
_LONGEST_WAIT_S = 120.0
_LONGEST_CONNECT_S = 10.0
# A shorter key ("EMPTY", "none") is a local server's placeholder, no secret, and may be a word of the reply.
_SHORTEST_SECRET = 8
_PLACEHOLDER = "none"


class NoAnswer(Exception):
    """One request ended without a reply, retries included; the next may fare better."""

    def __init__(self, reason: str, *, transient: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        """Why, in words, without the key."""
        self.transient = transient
        """Whether the endpoint is at fault (overloaded, unreachable) and not this one text."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible endpoint and a model there."""

    base_url: str
    """Up to and with the version, such as ``http://localhost:8000/v1``; no credentials in it."""
    model: str
    """The model's name there."""
    api_key: str = field(default="", repr=False)
    """Sent to the endpoint as bearer token, and nowhere else; empty for a local server that wants none."""
    timeout: float = 120.0
    """Seconds without a byte after which a try has failed."""
    max_retries: int = 4
    """Tries after the first, of one request."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """More fields of the request's body, such as ``temperature`` or ``reasoning_effort``; they come before what a
    caller asks for, and one of None leaves the field out. None by default: models differ in which they refuse."""
    trust_env: bool = False
    """Whether proxies and certificates named in the environment (``HTTPS_PROXY``, ``SSL_CERT_FILE``) count."""

    def __post_init__(self) -> None:
        if find_spec("openai") is None:
            raise InputError(f"no package openai, which asks the endpoint; {install_hint('judge')}")
        object.__setattr__(self, "api_key", self.api_key.strip())
        _check(self)

    @classmethod
    def from_environment(cls, **given: Any) -> Endpoint:
        """An endpoint from what is given and not None, and for the rest from ``SAFEKEY_LLM_BASE_URL``,
        ``SAFEKEY_LLM_MODEL``, ``SAFEKEY_LLM_API_KEY`` (else ``OPENAI_API_KEY``), ``SAFEKEY_LLM_OPTIONS`` (a JSON
        object) and ``SAFEKEY_LLM_TRUST_ENV`` (1 or 0).

        Raises:
            InputError: no base URL or no model, or something that cannot be one.
        """
        environ = os.environ
        settings: dict[str, Any] = {
            "base_url": environ.get("SAFEKEY_LLM_BASE_URL", ""),
            "model": environ.get("SAFEKEY_LLM_MODEL", ""),
            "api_key": environ.get("SAFEKEY_LLM_API_KEY") or environ.get("OPENAI_API_KEY", ""),
            "trust_env": environ.get("SAFEKEY_LLM_TRUST_ENV", "0") not in ("", "0"),
        }
        if options := environ.get("SAFEKEY_LLM_OPTIONS"):
            try:
                settings["options"] = json.loads(options)
            except ValueError:
                settings["options"] = options
        return cls(**settings | {name: value for name, value in given.items() if value is not None})

    @property
    def host(self) -> str:
        """Host and port, to name the endpoint by."""
        return urlsplit(self.base_url).netloc

    @property
    def address(self) -> str:
        """Host, port and path: what tells this endpoint from another."""
        parts = urlsplit(self.base_url)
        return (parts.netloc + parts.path).rstrip("/")

    def redact(self, text: str) -> str:
        """``text`` without the key."""
        return text.replace(self.api_key, "[key]") if len(self.api_key) >= _SHORTEST_SECRET else text


class Chat:
    """Connection to an endpoint: at most ``concurrency`` requests under way at once. Made by :func:`open_chat`."""

    def __init__(self, endpoint: Endpoint, client: openai.AsyncOpenAI, concurrency: int) -> None:
        self.endpoint = endpoint
        self._client = client
        self._slots = asyncio.Semaphore(concurrency)
        self._loop: asyncio.AbstractEventLoop
        self._replied = False
        self._hopeless: ModelError | None = None

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Start ``work``, which may await :meth:`ask`; cancel the future to stop it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def ask(self, messages: str | Sequence[Message], body: Mapping[str, Any] | None = None) -> Reply:
        """The model's reply.

        Args:
            messages: the conversation; a text alone is one turn of the user.
            body: more fields of the request's body; the endpoint's own options come before them.

        Raises:
            NoAnswer: none came, retries included.
            BadReply: what came is not UTF-8, or no chat completion with text in it.
            ModelError: none will come: the key, the model or the address is wrong. Later calls raise it unasked.
        """
        import openai

        endpoint = self.endpoint
        turns = (Message(role="user", content=messages),) if isinstance(messages, str) else messages
        fields = {name: value for name, value in {**(body or {}), **endpoint.options}.items() if value is not None}
        longest = (endpoint.timeout + _LONGEST_WAIT_S) * (endpoint.max_retries + 1)
        async with self._slots:
            if self._hopeless is not None:
                raise self._hopeless
            # `from None`: the client's errors carry the request, whose headers hold the key.
            try:
                # A server that trickles bytes never reaches the client's own time-out.
                async with asyncio.timeout(longest):
                    response = await self._client.chat.completions.with_raw_response.create(
                        model=endpoint.model,
                        messages=[{"role": turn.role, "content": turn.content} for turn in turns],  # type: ignore[misc]
                        extra_body=fields,
                    )
            except openai.APIStatusError as error:
                raise self._refused(error.status_code, error.body) from None
            except (openai.APITimeoutError, TimeoutError):
                raise NoAnswer(f"{endpoint.host} did not answer in time", transient=True) from None
            except openai.APIConnectionError as error:
                raise self._unreachable(type(error.__cause__).__name__) from None
            except openai.OpenAIError as error:
                raise NoAnswer(f"{endpoint.host}: {type(error).__name__}", transient=False) from None
        self._replied = True
        reply = read_reply(response.content)
        return reply._replace(content=endpoint.redact(reply.content), reasoning=endpoint.redact(reply.reasoning))

    def _refused(self, status: int, body: object) -> NoAnswer | ModelError:
        endpoint = self.endpoint
        if status in _HOPELESS or 300 <= status < 400:
            # A refused key may be echoed in part, so the server's own words stay out here.
            remedy = {
                401: "the key was not accepted; set SAFEKEY_LLM_API_KEY",
                402: "the account has no credit left; answers so far are kept, run again to resume",
                404: "no such model or path there; set SAFEKEY_LLM_MODEL or SAFEKEY_LLM_BASE_URL",
            }.get(status, "redirects are not followed; set SAFEKEY_LLM_BASE_URL to the final address")
            self._hopeless = ModelError(f"endpoint: model {endpoint.model!r} at {endpoint.host}: {status}, {remedy}")
            return self._hopeless
        # Redacted whole, then cut: half a key is none that would be found.
        words = one_line(endpoint.redact(_words(body)))[:160]
        return NoAnswer(
            f"{endpoint.host} answered {status}{f' ({words})' if words else ''}",
            transient=status in _TRANSIENT or status >= 500,
        )

    def _unreachable(self, cause: str) -> NoAnswer | ModelError:
        endpoint = self.endpoint
        # By name, because the client's transport is httpx or httpx2, by its version.
        if cause == "ConnectError" and not self._replied:
            self._hopeless = ModelError(
                f"endpoint: {endpoint.host} cannot be reached; start the server or set SAFEKEY_LLM_BASE_URL"
            )
            return self._hopeless
        return NoAnswer(f"the connection to {endpoint.host} broke ({cause})", transient=True)


@contextmanager
def open_chat(endpoint: Endpoint, concurrency: int) -> Iterator[Chat]:
    """Connection to ``endpoint``; on leaving, unfinished requests are cancelled."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

    timeout = Timeout(endpoint.timeout, connect=min(_LONGEST_CONNECT_S, endpoint.timeout))
    client = AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key or _PLACEHOLDER,
        timeout=timeout,
        max_retries=endpoint.max_retries,
        http_client=DefaultAsyncHttpxClient(trust_env=endpoint.trust_env, follow_redirects=False, timeout=timeout),
    )
    chat, closed, opened = Chat(endpoint, client, concurrency), asyncio.Event(), threading.Event()

    async def serve() -> None:
        async with client:
            chat._loop = asyncio.get_running_loop()
            opened.set()
            await closed.wait()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="safekey-llm", daemon=True)
    thread.start()
    opened.wait()
    try:
        yield chat
    finally:
        chat._loop.call_soon_threadsafe(closed.set)
        # A generator that nobody finished may be collected on any thread, this one included.
        if threading.current_thread() is not thread:
            thread.join()


def _check(endpoint: Endpoint) -> None:
    """Raises :class:`InputError`, which never repeats a value that may hold a key."""
    if not endpoint.base_url:
        raise InputError(
            "endpoint: none; set SAFEKEY_LLM_BASE_URL, such as http://localhost:8000/v1 or https://api.openai.com/v1"
        )
    try:
        parts = urlsplit(endpoint.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise InputError("endpoint: SAFEKEY_LLM_BASE_URL is none; expected http://HOST/v1 or https://HOST/v1") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "endpoint: the base URL holds credentials or a query; put the key into SAFEKEY_LLM_API_KEY instead"
        )
    if not endpoint.model:
        raise InputError(f"endpoint: no model; set SAFEKEY_LLM_MODEL to a model that {parts.netloc} serves")
    if not (endpoint.api_key.isascii() and endpoint.api_key.isprintable()):
        raise InputError("endpoint: the key holds characters that no HTTP header may; set SAFEKEY_LLM_API_KEY anew")
    if not isinstance(endpoint.options, Mapping) or {"model", "messages", "stream"} & set(endpoint.options):
        raise InputError("endpoint: SAFEKEY_LLM_OPTIONS: expected a JSON object without model, messages or stream")
    if not (endpoint.timeout > 0 and endpoint.max_retries >= 0):
        raise InputError("endpoint: expected timeout > 0 and max_retries >= 0")


def _words(body: object) -> str:
    """What the server said about an error; not to be shown before it is redacted."""
    message = body.get("message") or body.get("detail") if isinstance(body, Mapping) else ""
    return message if isinstance(message, str) else ""
