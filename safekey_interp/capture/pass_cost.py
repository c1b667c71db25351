"""Cost of forward passes: how many, over how many tokens, in what time and memory, timed on a part of the work.

    cost of the work ≈ cost of a trial · (size of the work / size of the trial)

A trial is the work itself on few items, twice as many each time until it takes long enough to be timed; the model's
first passes, which are slower, are so left behind. A pass is a call of the decoder, whatever it is for: a batch of
sequences, of continuations behind a kept beginning, or one token of each row of a batch that is decoded. Tokens count
the padding and leave out what a cache holds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from safekey_interp.progress import in_time

if TYPE_CHECKING:
    from safekey_interp.models.model import Model

LONG_ENOUGH = 1.0
"""Seconds that a trial should take."""
TOO_LONG = 45.0
"""Seconds after which a trial is given up."""

Item = TypeVar("Item")


@dataclass
class PassCount:
    """Forward passes so far."""

    passes: int = 0
    """Calls of the decoder."""
    tokens: int = 0
    """Rows · positions of their inputs, summed."""


@contextmanager
def counted_passes(model: Model, on_pass: Callable[[], object] = lambda: None) -> Iterator[PassCount]:
    """Count a model's forward passes inside the block; ``on_pass`` is called before each."""
    count = PassCount()

    def before(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        inputs = (*args, options.get("input_ids"), options.get("inputs_embeds"))
        first = next(each for each in inputs if each is not None)
        count.passes += 1
        count.tokens += first.shape[0] * first.shape[1]
        on_pass()

    handle = model.hf.get_decoder().register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield count
    finally:
        handle.remove()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What work costs, or is estimated to."""

    passes: float
    """Forward passes."""
    tokens: float
    """Tokens in them, padding included."""
    seconds: float
    """Wall time."""
    memory: int
    """Bytes that the process, or the GPU, holds at most."""
    cheaper: tuple[tuple[str, float], ...] = ()
    """Options that make it cheaper, each with the seconds that it then takes; said where it takes long."""
    at_least: bool = False
    """Whether the work is known to cost this and more: its trial was given up."""

    def times(self, factor: float, *, at_once: int = 1) -> Cost:
        """The cost of so many times the work, shared by ``at_once`` processes."""
        changed = {"passes": self.passes * factor, "tokens": self.tokens * factor}
        return replace(self, **changed, seconds=self.seconds * factor / at_once)

    def plus(self, other: Cost) -> Cost:
        """The cost of one after the other."""
        return Cost(
            passes=self.passes + other.passes,
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
            memory=max(self.memory, other.memory),
            cheaper=self.cheaper + other.cheaper,
            at_least=self.at_least or other.at_least,
        )

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each number, for a table."""
        more = "more than " if self.at_least else ""
        numbers = {"passes": self._whole_passes, "tokens": self.tokens, "seconds": self.seconds}
        rows = [(name, f"{more}{value:,.0f}") for name, value in numbers.items()]
        return [*rows, ("memory", f"{self.memory / 1e9:.1f} GB"), *(("cheaper", words) for words in self._cheaper())]

    def __str__(self) -> str:
        more = "more than" if self.at_least else "about"
        n = round(self._whole_passes)
        line = (
            f"{more} {n:,} {'pass' if n == 1 else 'passes'}, {self.tokens:,.0f} tokens, {in_time(self.seconds)}, "
            f"{self.memory / 1e9:.1f} GB of memory"
        )
        cheaper = self._cheaper()
        return f"{line}; cheaper: {', '.join(cheaper)}" if cheaper else line

    @property
    def _whole_passes(self) -> float:
        """At least one where there are any: work on few texts is a part of the trial's pass."""
        return max(self.passes, 1) if self.passes else 0

    def _cheaper(self) -> list[str]:
        """Each option with its time, where the work takes over an hour."""
        if self.seconds < 3600:
            return []
        return [f"{option} ({in_time(seconds)})" for option, seconds in self.cheaper if seconds < self.seconds]


class CostElsewhere(NamedTuple):
    """The cost of work that another program does, which says nothing of its passes, time and memory."""

    n: int
    """Pieces of the work."""
    what: str
    """What they are."""

    @property
    def passes(self) -> None:
        """Unknown."""
        return

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each number, for a table."""
        unknown = [(name, "unknown") for name in ("passes", "tokens", "seconds", "memory")]
        return [("work", f"{self.n:,} {self.what}"), *unknown]

    def __str__(self) -> str:
        return f"{self.n:,} {self.what}; their time is not known here"


SERVER = "requests to a server"
"""What an endpoint's work is."""
NOTHING = Cost(passes=0, tokens=0, seconds=0, memory=0)
"""The cost of no work."""


class TrialTooLong(Exception):
    """A trial that is given up in the middle."""


def timed(model: Model, work: Callable[[], object], *, at_most: float = TOO_LONG) -> Cost:
    """The cost of work that is done now; of what was done of it, where it takes longer than ``at_most`` seconds."""
    began = time.perf_counter()

    def check() -> None:
        if time.perf_counter() - began > at_most:
            raise TrialTooLong

    is_given_up = False
    with counted_passes(model, check) as count:
        try:
            work()
        except TrialTooLong:
            is_given_up = True
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
    seconds = time.perf_counter() - began
    return Cost(
        passes=count.passes, tokens=count.tokens, seconds=seconds, memory=_peak_memory(model), at_least=is_given_up
    )


def trial(
    model: Model,
    items: Sequence[Item],
    work: Callable[[list[Item]], object],
    *,
    at_most: float = TOO_LONG,
    least: int = 1,
) -> tuple[list[Item], Cost]:
    """The cost of work on the first of some items, and these: ``least``, or as many as take long enough; or all."""
    n = least
    while True:
        some = list(items[:n])
        cost = timed(model, lambda some=some: work(some), at_most=at_most)
        if cost.at_least or cost.seconds >= LONG_ENOUGH or n >= len(items):
            return some, cost
        n = min(len(items), n * min(8, max(2, round(1.5 * LONG_ENOUGH / max(cost.seconds, 1e-3)))))


def _peak_memory(model: Model) -> int:
    """The most bytes that a GPU, or the process, has held so far; 0 where the platform does not say."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
