"""Processes of a run: rank, world size, and messages between the processes that a launcher started.

`accelerate launch`, `torchrun` and other launchers set the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT); a process group that the caller has opened is used, too. Messages are JSON in the key-value store of
torch's process groups. Waiting has no time limit: each process increments a counter while it lives, and the others
watch it. A single process needs none of this.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar

from safekey_interp.errors import RunError

ARRIVAL = 300.0
"""Seconds within which every process must have come."""
SILENCE = 60.0
"""Seconds without a sign of life after which a process counts as gone."""
RESUMES = "the same command resumes the run"
"""What a user may do once a run has stopped."""
_BEAT = 1.0
_LOOK = 0.5
_TO_HEAR = 5.0
_TO_SPEAK = 1.0

Item = TypeVar("Item")


class OtherProcessError(RunError):
    """Another process stopped; the message has its reason."""


class Place(NamedTuple):
    """Position of a process among others."""

    rank: int
    """Its number, from 0."""
    world_size: int
    """How many there are."""
    local_rank: int
    """Its number on its machine, from 0; ``rank`` where it is unknown."""


def place() -> Place:
    """The position of this process; alone when no launcher has started it."""
    torch = sys.modules.get("torch")  # an open process group has imported it
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    else:
        rank, world_size = _number("RANK"), _number("WORLD_SIZE")
    if rank is None or world_size is None or world_size < 2:
        return Place(0, 1, 0)
    local_rank = _number("LOCAL_RANK")
    return Place(rank, world_size, rank if local_rank is None else local_rank)


def team() -> Team:
    """The processes that work together, this one included."""
    here = place()
    return _team(here.rank, here.world_size)


def workers(most: int = 8) -> int:
    """Threads for work that runs side by side: torch's number; of several processes, each one's part of the cores."""
    here = place()
    if here.world_size == 1:
        import torch

        return min(most, torch.get_num_threads())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(most, cores // (_number("LOCAL_WORLD_SIZE") or here.world_size)))


class Team:
    """Processes that take the same steps; a context manager inside which each watches that the others are alive.

    An error that ends it here ends it everywhere: the others raise :class:`OtherProcessError` at their next step.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        """This process's number, from 0."""
        self.world_size = world_size
        """How many processes there are."""
        self.speaks = True
        """Whether this process reports an error to the user: the first that had one does."""
        self._depth = self._n_times = self._n_steps = 0
        self._store: Any = None
        self._life: tuple[Thread, Event] | None = None
        self._seen: dict[int, tuple[int, float]] = {}
        self._looked = 0.0

    @property
    def is_first(self) -> bool:
        """Whether this process does what only one process can do."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1

    def __enter__(self) -> Team:
        self._depth += 1
        if self._depth == 1 and not self.is_alone:
            try:
                self._begin()
            except BaseException:
                self._depth = 0
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._depth -= 1
        if self._depth == 0 and not self.is_alone:
            self._end(error)

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every ``world_size``-th of the items, from that with this process's number."""
        return list(items[self.rank :: self.world_size])

    def gather(self, value: Any = None) -> list[Any]:
        """Wait for every process to reach this call; the value of each (JSON), in the order of their numbers.

        Raises:
            OtherProcessError: another process stopped.
            RunError: another process is gone.
        """
        if self.is_alone:
            return [value]
        self._n_steps += 1
        step = f"{self._n_times}/{self._n_steps}"
        self._ask("set", f"{step}/{self.rank}", json.dumps(value))
        n_here, pause = self._ask("add", f"{step}/here", 1), 0.002
        while n_here < self.world_size:
            self.check()
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
            n_here = self._ask("add", f"{step}/here", 0)
        return [json.loads(self._ask("get", f"{step}/{rank}")) for rank in range(self.world_size)]

    def pull(self, items: Sequence[Item]) -> Iterator[Item]:
        """Items one by one, each for the one process that asks for it first."""
        if self.is_alone:
            yield from items
            return
        self._n_steps += 1
        counter = f"{self._n_times}/{self._n_steps}/next"
        while (number := self._ask("add", counter, 1) - 1) < len(items):
            self.check()
            yield items[number]

    @contextmanager
    def after_first(self, wanted: bool = True) -> Iterator[None]:
        """Have the first process run the block before the others do, when ``wanted``."""
        if wanted and not self.is_first:
            self.gather()
        yield
        if wanted and self.is_first:
            self.gather()

    def check(self) -> None:
        """Raise when another process has stopped or is gone; cheap, so that it can be called often."""
        now = time.monotonic()
        if self.is_alone or now - self._looked < _LOOK:
            return
        self._looked = now
        if self._ask("check", [f"{self._n_times}/stopped"]):
            rank, message = json.loads(self._ask("get", f"{self._n_times}/stopped"))
            raise OtherProcessError(f"process {rank} of {self.world_size}: {message}")
        for rank in range(self.world_size):
            beats = self._ask("add", f"{self._n_times}/alive/{rank}", 0)
            known, since = self._seen.get(rank, (-1, now))
            if beats != known:
                since = now
            self._seen[rank] = beats, since
            limit = SILENCE if beats else ARRIVAL
            if now - since > limit:
                gone = f"gave no sign of life for {limit:.0f} s" if beats else f"did not come within {limit:.0f} s"
                raise RunError(f"process {rank} of {self.world_size} {gone}; {RESUMES}")

    def let_speak(self) -> None:
        """Give the process that reports an error time to do so: launchers end all with the first that ends."""
        if not self.speaks:
            time.sleep(_TO_SPEAK)

    def _begin(self) -> None:
        if self.rank >= self.world_size:
            raise RunError(f"RANK: got {self.rank} of {self.world_size} processes, expected one below WORLD_SIZE")
        self._store = self._store or _meeting_place(self.rank, self.world_size)
        self._n_times += 1
        self._n_steps, self._seen, self._looked, self.speaks = 0, {}, 0.0, True
        stop = Event()
        beating = Thread(target=self._beat, args=(stop, f"{self._n_times}/alive/{self.rank}"), daemon=True)
        beating.start()
        self._life = beating, stop

    def _end(self, error: BaseException | None) -> None:
        assert self._life is not None
        beating, stop = self._life
        stop.set()
        beating.join()
        times = self._n_times
        try:
            if error is not None:
                self.speaks = self._store.add(f"{times}/claims", 1) == 1
                if self.speaks:
                    message = str(error) or type(error).__name__
                    self._store.set(f"{times}/stopped", json.dumps([self.rank, message]))
            self._store.add(f"{times}/left", 1)
        except RuntimeError:  # the process that hosts the store is gone
            return
        if self.is_first:
            self._let_hear()

    def _let_hear(self) -> None:
        """Wait until the others have left: this process may host the store, which ends with it."""
        until = time.monotonic() + _TO_HEAR
        try:
            while self._store.add(f"{self._n_times}/left", 0) < self.world_size and time.monotonic() < until:
                time.sleep(0.02)
        except RuntimeError:
            pass

    def _beat(self, stop: Event, key: str) -> None:
        while True:
            try:
                self._store.add(key, 1)
            except RuntimeError:
                return
            if stop.wait(_BEAT):
                return

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            return getattr(self._store, method)(*args)
        except RuntimeError as error:
            raise RunError(f"process 0 of {self.world_size}, or its launcher, is gone; {RESUMES}") from error


_team = lru_cache(Team)


def _meeting_place(rank: int, world_size: int) -> Any:
    import torch

    distributed: Any = torch.distributed
    try:
        if distributed.is_initialized():
            store = distributed.distributed_c10d._get_default_store()
        else:
            meetings = distributed.rendezvous("env://", rank, world_size, timeout=timedelta(seconds=ARRIVAL))
            store, _, _ = next(iter(meetings))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0]
        raise RunError(f"process {rank} of {world_size}: the others cannot be met at {where}: {reason}") from error
    return distributed.PrefixStore("safekey_interp", store)


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
