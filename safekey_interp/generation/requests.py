"""Requests to a model, and the responses that answer them.

A request is a trace's prompt with its earlier turns, and what the response is to begin with: nothing, a text, or exact
tokens. What answers is an :class:`Engine`; requests and answers are the same for all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pandas as pd

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.generation.generation_edits import GenerationEdit, record_of
from safekey_interp.generation.new_text import new_text
from safekey_interp.generation.sampling import Sampling

Key = tuple[str, str, int, int]
"""Trace id, condition, depth (-1 for none) and sample."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One response that is wanted."""

    trace: Trace
    """The prompt and its earlier turns; its own response is not read."""
    prefill: str = ""
    """What the response begins with."""
    input_ids: tuple[int, ...] | None = None
    """Tokens of prompt and prefill where they are to be exact, for engines that take tokens; else the text is
    tokenised, once and whole."""
    condition: str = ""
    """What this request is in an experiment, such as ``understanding`` or ``safe``; empty outside of one."""
    depth: int | None = None
    """Tokens of the prefill, where they are what an experiment varies."""
    share: float | None = None
    """The same depth as a share of the response's tokens before K, in [0, 1]."""
    sample: int = 0
    """Number of the sample, from 0."""
    edits: tuple[GenerationEdit, ...] = ()
    """What is changed in the model while it answers, for engines that reach into it."""

    @property
    def key(self) -> Key:
        """Unique among the requests of a file."""
        depth = -1 if self.depth is None else self.depth
        return self.trace.trace_id, self.condition, depth, self.sample

    @property
    def content(self) -> str:
        """Hash of the content of the request, edits included, without its names."""
        turns = [[turn.role, turn.content] for turn in self.trace.messages]
        steps = [[[step.role, step.content] for step in self.trace.steps]] if self.trace.steps else []
        parts = [self.trace.prompt, turns, self.prefill, self.input_ids, *map(record_of, self.edits), *steps]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One response."""

    request: Request
    """What was asked."""
    response: str
    """As :attr:`safekey_interp.Trace.response` holds it: reasoning with its marks, then the answer; it begins with
    the prefill."""
    cut: bool
    """Whether the largest number of tokens ended it, and not the model."""
    n_tokens: int | None
    """New tokens, prefill and mark of the end not counted; None when a server does not say."""
    engine: str
    """Name of the engine."""
    seed: int | None = None
    """Seed of its stream; None at temperature 0."""
    input_ids: tuple[int, ...] | None = None
    """Tokens of prompt and prefill, as the model read them; None from an endpoint."""
    response_start: int | None = None
    """First of them that holds text of the prefill; their number without one."""
    new_ids: tuple[int, ...] | None = None
    """Tokens that the model wrote, without the mark of the end; None from an endpoint."""
    edited: tuple[tuple[int, ...], ...] = ()
    """Tokens of ``input_ids`` and ``new_ids`` that each edit of the request changed, or hid something from."""

    @property
    def trace_id(self) -> str:
        """The trace that was asked."""
        return self.request.trace.trace_id

    @property
    def sample(self) -> int:
        """Number of the sample."""
        return self.request.sample

    @property
    def new_text(self) -> str:
        """What the model wrote behind its prefill: all that a judge may read."""
        return new_text(self.response, self.request.prefill)

    def trace(self) -> Trace:
        """The trace with this response in place of its own; spans are to be found anew."""
        return self.request.trace.with_(response=self.response, given={})


class Engine(Protocol):
    """A model that answers requests."""

    name: str
    """In rows and records."""

    def record(self) -> Mapping[str, Any]:
        """Everything of it that responses depend on; no key."""
        ...

    def usual_limit(self, requests: Sequence[Request]) -> int:
        """Largest number of new tokens by default."""
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Generated]:
        """A response for each request, as they come."""
        ...


def samples(requests: Iterable[Request], n: int) -> Iterator[Request]:
    """Each request ``n`` times, with a number of its own."""
    for request in requests:
        for sample in range(n):
            yield replace(request, sample=sample)


def check_unedited(requests: Iterable[Request], engine: str) -> None:
    """Refuse requests with edits, for an engine that does not reach into its model.

    Raises:
        InputError: with the trace.
    """
    for request in requests:
        if request.edits:
            raise InputError(
                f"trace {request.trace.trace_id}: got {len(request.edits)} edits, expected none: {engine} cannot reach "
                "into its model; load it with ski.load"
            )


def check_different(requests: Iterable[Request]) -> None:
    """Refuse two requests with the same key.

    Raises:
        InputError: with the trace.
    """
    seen: set[Key] = set()
    for request in requests:
        if request.key in seen:
            raise InputError(f"trace {request.trace.trace_id}: asked twice, expected ids of their own")
        seen.add(request.key)


def responses_table(generated: Iterable[Generated]) -> pd.DataFrame:
    """Responses as a tidy table, for judging.

    Returns:
        One row per response, in their order: trace_id, group, label, condition, depth (tokens of the prefill; <NA>
        outside of an experiment by depth), share (that depth as a share of the tokens before K, in [0, 1]; NaN outside
        of one), sample, prefill, response, new_text (what a judge may read), cut (at the largest number of tokens),
        n_tokens.
    """
    rows = [
        {
            "trace_id": response.trace_id,
            "group": response.request.trace.group,
            "label": response.request.trace.label,
            **{name: getattr(response.request, name) for name in ("condition", "depth", "share", "sample", "prefill")},
            **{name: getattr(response, name) for name in ("response", "new_text", "cut", "n_tokens")},
        }
        for response in generated
    ]
    columns = ("trace_id", "group", "label", "condition", "depth", "share", "sample", "prefill", "response", "new_text")
    types = {"depth": "Int64", "n_tokens": "Int64", "label": object, "share": float}
    return pd.DataFrame(rows, columns=[*columns, "cut", "n_tokens"]).astype(types)
