"""Readings of one row of a forward pass: log-probability of tokens, difference of two logits, score of a state.

Each is one number, from the row's logits or from its states at one place. Where these are in a graph, the number is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safekey_interp.capture.batch_runner import Backend
from safekey_interp.capture.residual_edits import Edit, Place, edited
from safekey_interp.errors import InputError

if TYPE_CHECKING:
    from safekey_interp.models.encoding import Encoding
    from safekey_interp.models.model import Model


@dataclass(frozen=True, kw_only=True)
class RowReader(ABC):
    """What is read of a row."""

    positions: tuple[int, ...]
    """Token positions whose logits or states it needs, ascending, at least one."""
    place: Place | None = None
    """Where it reads states; None for the logits."""

    @property
    def first_logit(self) -> int:
        """Position from which on it needs logits: the last alone where it reads states."""
        return self.positions[0 if self.place is None else -1]

    @abstractmethod
    def read(self, values: Float[Tensor, "pos d"]) -> Tensor:
        """The number, of no dimension.

        Args:
            values: the row's logits from :attr:`first_logit` on; or its states at :attr:`positions`.
        """


@dataclass(frozen=True, kw_only=True)
class TokenLogprob(RowReader):
    """Mean log-probability of given next tokens, in nats."""

    next_ids: Int64[Tensor, " position"]
    """The token behind each position."""

    def read(self, values: Float[Tensor, "pos d_vocab"]) -> Tensor:
        """The mean over the positions."""
        logprobs = _at(self, values).float().log_softmax(-1)
        return logprobs.gather(-1, self.next_ids[:, None].to(values.device)).double().mean()


@dataclass(frozen=True, kw_only=True)
class LogitDifference(RowReader):
    """Logit of one token minus that of another, mean over the positions."""

    token: int
    """The one."""
    other: int
    """The other."""

    def read(self, values: Float[Tensor, "pos d_vocab"]) -> Tensor:
        """The mean over the positions."""
        logits = _at(self, values)
        return (logits[:, self.token].double() - logits[:, self.other].double()).mean()


@dataclass(frozen=True, kw_only=True)
class StateScore(RowReader):
    """Affine score of states, mean over the positions."""

    vector: Float[np.ndarray, " d_model"]
    """Its product with a state, plus ``bias``, is the score."""
    bias: float
    """Added to every score."""

    def read(self, values: Float[Tensor, "position d_model"]) -> Tensor:
        """The mean over the positions."""
        vector = torch.as_tensor(self.vector, dtype=torch.float64, device=values.device)
        return (values.double() @ vector).mean() + self.bias


@dataclass(frozen=True, kw_only=True)
class FunctionOfLogits(RowReader):
    """A user's function of all logits of a row."""

    function: Callable[[Tensor, Encoding], Any]
    """Logits (pos, d_vocab) in float32, and the encoding, to a number."""
    encoding: Encoding
    """Of the row."""

    def read(self, values: Float[Tensor, "pos d_vocab"]) -> Tensor:
        """What it returns. Raises InputError for anything but one number, or for one that lost the graph."""
        returned = self.function(values.float(), self.encoding)
        try:
            number = torch.as_tensor(returned, dtype=torch.float64).reshape(())
        except (RuntimeError, TypeError, ValueError):
            raise InputError(f"metric: its function returned {type(returned).__name__}, expected one number") from None
        if values.requires_grad and not number.requires_grad:
            raise InputError(
                "metric: its function returned a number without a gradient; return a tensor, or take exact"
            )
        return number


def _at(reader: RowReader, values: Tensor) -> Tensor:
    return values[[position - reader.first_logit for position in reader.positions]]


Watch = Callable[[Sequence[Place]], Any]
"""Places to a block whose forward passes fill a mapping of them to their states, (batch, pos, d_model)."""


@contextmanager
def watched_states(
    model: Model, places: Sequence[Place], *, backend: Backend = "hf"
) -> Iterator[Mapping[Place, Float[Tensor, "batch pos d_model"]]]:
    """A block whose forward passes leave their states at some places in the mapping; edits that were there before are
    in them."""
    seen: dict[Place, Tensor] = {}

    def watching(place: Place) -> Edit:
        def watch(states: Tensor) -> Tensor:
            seen[place] = states
            return states

        return watch

    if not places:
        yield seen
        return
    with edited(model, {place: watching(place) for place in places}, backend=backend):
        yield seen
