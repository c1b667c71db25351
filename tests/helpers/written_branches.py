"""Branches of a session that are written to their end, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
