"""Branches of a session that are written to their end, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

import safekey_interp as ski
from safekey_interp.capture.decoding_passes import told_of_passes
from safekey_interp.exploration.session_events import BranchEnded, Event, TokenWritten
from safekey_interp.models.model import Model


def written(session: ski.Session, branch: ski.Branch | str) -> list[Event]:
    """The events of a branch that is run to its end; it must not fail."""
    events = list(session.run(branch))
    assert isinstance(events[-1], BranchEnded), events[-1]
    return events


def tokens_of(events: Iterable[Event]) -> list[TokenWritten]:
    """The tokens among events."""
    return [event for event in events if isinstance(event, TokenWritten)]


@contextmanager
def tokens_passed(model: Model) -> Iterator[list[int]]:
    """How many tokens each forward pass of a model in the block holds."""
    sizes: list[int] = []

    def tell(ids: Tensor, _n_past: int) -> None:
        sizes.append(ids.shape[1])

    with told_of_passes(model.hf, tell):
        yield sizes


@contextmanager
def failing(model: Model, after: int, error: Exception) -> Iterator[None]:
    """A model whose second layer raises from the ``after``-th pass on: the first has read the tokens by then."""
    n = 0

    def fail() -> None:
        nonlocal n
        n += 1
        if n > after:
            raise error

    with _before_second_layer(model, fail):
        yield


class Gate:
    """Lets passes of a model through one by one."""

    def __init__(self) -> None:
        self.n_open = threading.Semaphore(0)
        self.n_come = threading.Semaphore(0)

    def pass_on(self, n: int = 1) -> None:
        """Let ``n`` further passes go on."""
        self.n_open.release(n)

    def wait(self) -> None:
        """Until a further pass has come to the gate."""
        assert self.n_come.acquire(timeout=120)


@contextmanager
def gated(model: Model) -> Iterator[Gate]:
    """A model whose passes wait at its second layer until they are let through; all are behind the block."""
    gate, is_open = Gate(), threading.Event()

    def come() -> None:
        if not is_open.is_set():
            gate.n_come.release()
            gate.n_open.acquire()

    with _before_second_layer(model, come):
        try:
            yield gate
        finally:
            is_open.set()
            gate.pass_on(1000)


@contextmanager
def _before_second_layer(model: Model, act: Any) -> Iterator[None]:
    layer: Any = model.hf.get_decoder().layers[1]
    handle = layer.register_forward_pre_hook(lambda *_: act())
    try:
        yield
    finally:
        handle.remove()
