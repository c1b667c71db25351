"""Endpoint engine: responses of a model behind an OpenAI-compatible API.

Reasoning that the server reports separately is put back where the model wrote it, ``<think>`` thinking ``</think>``
answer, so that the text is what :attr:`safekey_interp.Trace.response` holds, whichever way it came. A prefill is sent
as the last turn, the assistant's own, with vLLM's and SGLang's options for continuing it (``continue_final_message``,
``add_generation_prompt``); a server that ignores them would begin anew, so ask for a prefill only where one obeys. Its
text is tokenised there. Seeds are sent with every draw; whether the same seed gives the same draw depends on the
server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any, NamedTuple

from safekey_interp.data.endpoint_replies import BadReply, Reply
from safekey_interp.data.reasoning_marks import FAMILIES
from safekey_interp.data.trace import Message, replace_surrogates
from safekey_interp.endpoint import Chat, Endpoint, NoAnswer, open_chat
from safekey_interp.errors import InputError, ModelError
from safekey_interp.generation.requests import Generated, Request, check_different, check_unedited
from safekey_interp.generation.sampling import USUAL_TOKENS, Sampling, stream_seed

_THINK = FAMILIES[0]
_TRIES = 2
"""Times that a request is made when what comes back is no usable reply."""


class _Unanswered(NamedTuple):
    reason: str
    transient: bool


class EndpointEngine:
    """Answers by asking a model at an OpenAI-compatible endpoint."""

    name = "endpoint"

    def __init__(self, endpoint: Endpoint, *, concurrency: int = 8, max_failures: int = 10) -> None:
        """Configure; no request is made yet.

        Args:
            endpoint: where, and which model; its options come before what a request asks for, and an option of None
                leaves a field out that the server would refuse (``{"temperature": null}``).
            concurrency: most requests under way at once.
            max_failures: so many requests in a row that the endpoint could not answer, or without one usable reply
                from the start, end the run.

        Raises:
            InputError: a number below 1.
        """
        if concurrency < 1 or max_failures < 1:
            raise InputError("endpoint: expected concurrency and max_failures of 1 or more")
        self.endpoint = endpoint
        self.concurrency = concurrency
        self.max_failures = max_failures

    def record(self) -> Mapping[str, Any]:
        """Address, model and options."""
        endpoint = self.endpoint
        options = json.loads(endpoint.redact(json.dumps(dict(endpoint.options), default=str)))
        return {"engine": self.name, "address": endpoint.address, "spec": endpoint.model, "options": options}

    def usual_limit(self, requests: Sequence[Request]) -> int:
        """512: how far the model reads is not known here."""
        return USUAL_TOKENS

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Generated]:
        """A response for each request, in the order in which they come.

        Raises:
            InputError: two requests are the same, or one has edits.
            ModelError: no response will come (wrong key, model or address), too many in a row did not, or, at the very
                end, some did not.
        """
        check_different(requests)
        check_unedited(requests, self.name)
        watch = _Watch(self, len(requests))
        left = iter(requests)
        under_way: dict[Future[Generated | _Unanswered], Request] = {}
        hopeless: ModelError | None = None
        with open_chat(self.endpoint, self.concurrency) as chat:
            while True:
                # What is under way may have been answered, and paid for, when another request finds that none will be.
                for request in islice(left, 0 if hopeless else 2 * self.concurrency - len(under_way)):
                    under_way[chat.submit(self._answer(chat, request, sampling))] = request
                if not under_way:
                    break
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in [future for future in under_way if future in done]:
                    request = under_way.pop(future)
                    try:
                        outcome = future.result()
                    except ModelError as error:
                        hopeless = error
                        continue
                    if isinstance(outcome, Generated):
                        yield outcome
                    watch.passed(request, outcome)
        if hopeless is not None:
            raise hopeless
        watch.finished()

    async def _answer(self, chat: Chat, request: Request, sampling: Sampling) -> Generated | _Unanswered:
        trace = request.trace
        seed = None if sampling.is_greedy else stream_seed(sampling.seed, trace.trace_id, request.sample)
        body: dict[str, Any] = {
            "max_tokens": sampling.max_new_tokens or USUAL_TOKENS,
            "temperature": sampling.temperature,
            "top_p": None if sampling.top_p == 1 else sampling.top_p,
            "seed": seed,
        }
        messages = list(trace.turns)
        if request.prefill:
            messages.append(Message(role="assistant", content=request.prefill))
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        reason = ""
        for _ in range(_TRIES):
            try:
                reply = await chat.ask(messages, body)
            except BadReply as error:
                reason = str(error)
                continue
            except NoAnswer as error:
                return _Unanswered(error.reason, error.transient)
            if reply.finish == "content_filter":
                return _Unanswered(f"{self.endpoint.host} cut the reply by its filter", transient=False)
            return Generated(
                request=request,
                response=replace_surrogates(joined(request.prefill, reply)),
                cut=reply.finish == "length",
                n_tokens=reply.n_tokens,
                engine=self.name,
                seed=seed,
            )
        return _Unanswered(f"{self.endpoint.host}: {reason}", transient=False)


def joined(prefill: str, reply: Reply) -> str:
    """The response as the model wrote it: prefill, thinking between its marks, answer.

    The marks are put around thinking that the server took them from; a prefill may have opened it already, and where
    the answer was never reached, nothing closes it.
    """
    if not reply.reasoning:
        return prefill + reply.content
    opened = _THINK.opening in prefill and _THINK.closing not in prefill
    opening = "" if opened or reply.reasoning.lstrip().startswith(_THINK.opening) else _THINK.opening
    closing = "" if reply.finish == "length" and not reply.content else _THINK.closing
    return f"{prefill}{opening}{reply.reasoning}{closing}{reply.content}"


class _Watch:
    """Counts what was not answered, and ends a run that has stopped making sense."""

    def __init__(self, engine: EndpointEngine, n: int) -> None:
        self._engine, self._n = engine, n
        self._first = ""
        self._n_unanswered = self._in_a_row = 0
        self._none_so_far = True

    def passed(self, request: Request, outcome: Generated | _Unanswered) -> None:
        """Raises ModelError after an outage; one prompt that a filter refuses is none."""
        if isinstance(outcome, Generated):
            self._in_a_row, self._none_so_far = 0, False
            return
        self._n_unanswered += 1
        self._first = self._first or f"trace {request.trace.trace_id}: {outcome.reason}"
        self._in_a_row = self._in_a_row + 1 if outcome.transient else 0
        limit = self._engine.max_failures
        if self._in_a_row >= limit or (self._none_so_far and self._n_unanswered >= limit):
            raise ModelError(
                f"endpoint: {limit} requests in a row had no usable answer from {self._engine.endpoint.host}, the "
                f"last: {outcome.reason}; what came before is kept, run again to resume"
            )

    def finished(self) -> None:
        """Raises ModelError when some requests had no answer."""
        if self._n_unanswered:
            raise ModelError(
                f"endpoint: {self._n_unanswered} of {self._n} requests had no usable answer, the first: {self._first}; "
                "the others are kept, run again to ask for these"
            )
