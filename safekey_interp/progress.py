"""Progress of long work: a bar on a terminal and in a notebook, lines of counts and time left in a log."""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Event, Thread
from typing import Any

from safekey_interp.display import is_listening, printable


class Progress:
    """Progress of work by stages; subclass it to hear of the work in another way.

    It stands on standard error: a bar of tqdm on a terminal until the stage ends, and below a notebook's cell for
    stages that take a while. Elsewhere (a log, a cluster's queue) it is a line of counts and time left every 30 s, or
    every 5 % of stages that take longer than that. Within one step, forward passes are counted.
    """

    is_dry = False
    """Whether work ends where it would start."""

    def __init__(self, *, is_hidden: bool = False) -> None:
        self.is_hidden = is_hidden
        self._bar: Any = None

    def stage(self, name: str, total: int | None, passes: float | None = None) -> None:
        """A stage begins; ``total`` steps and about so many forward passes, None when unknown."""
        self.close()
        if not self.is_hidden:
            self._bar = _bar(printable(name), total, passes)

    def advance(self, n: int) -> None:
        """Steps done in the stage."""
        if self._bar is not None:
            self._bar.update(n)

    def passed(self, n: int = 1) -> None:
        """Forward passes made in the stage."""
        if self._bar is not None:
            self._bar.passed(n)

    def starts(self, estimate: Callable[[], Any]) -> Any:
        """Work begins: its cost, which is estimated and, unless it takes no pass, said where somebody listens; None
        elsewhere."""
        self.stage("estimating", None)
        cost = None if self.is_hidden else estimate()
        if cost is not None and cost.passes != 0:  # what cannot be measured is refused, in one line
            self.say(str(cost))
        return cost

    def say(self, line: str) -> None:
        """Something that is worth knowing before it begins, on a line of its own."""
        self.close()
        if not self.is_hidden:
            print(printable(line), file=sys.stderr, flush=True)

    def close(self) -> None:
        """The last stage is over."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_progress(progress: Progress | None) -> AbstractContextManager[Progress]:
    """``progress`` as it is; when None, bars in the notebook that runs the code, and nothing elsewhere."""
    return Progress(is_hidden=not is_listening()) if progress is None else nullcontext(progress)


def _bar(name: str, total: int | None, passes: float | None) -> Any:
    if not is_listening() and not sys.stderr.isatty():
        return _LogLines(name, total, passes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets a notebook gets a bar of text
        from tqdm.auto import tqdm

    class Bar(tqdm):
        """A bar with the number of forward passes behind it."""

        n_passes = 0

        def passed(self, n: int) -> None:
            self.n_passes += n
            of = f" of {passes:,.0f}" if passes and passes >= self.n_passes else ""
            self.set_postfix_str(f"{self.n_passes:,}{of} passes", refresh=False)
            if (now := time.time()) - self.last_print_t >= _DELAY:
                self.refresh()
                self.last_print_t = now

    if is_listening():
        return Bar(total=total, desc=name, delay=_DELAY)
    size = shutil.get_terminal_size()
    return Bar(total=total, desc=name, ncols=size.columns, nrows=size.lines, leave=False)


class _LogLines:
    """Lines about a stage on a standard error that is no terminal, from a thread, so that no long step hides them."""

    def __init__(self, name: str, total: int | None, passes: float | None) -> None:
        self._name, self._total, self._passes = name, total, passes
        self._n = self._n_passes = 0
        self._said_at = self._began = time.monotonic()
        self._said_share = 0.0
        self._has_said = False
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def update(self, n: int) -> None:
        self._n += n

    def passed(self, n: int) -> None:
        self._n_passes += n

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        if self._has_said and self._share != self._said_share:
            self._say()

    @property
    def _share(self) -> float:
        """How much of the stage is done, from 0 to 1; by passes too, as far as they are as many as was estimated."""
        of_steps = self._n / self._total if self._total else 0.0
        return min(1.0, max(of_steps, min(0.99, self._n_passes / self._passes) if self._passes else 0.0))

    def _watch(self) -> None:
        while not self._over.wait(_DELAY):
            since = time.monotonic() - self._said_at
            if since >= _LOG_INTERVAL or (since >= _LOG_LEAST and self._share - self._said_share >= _LOG_SHARE):
                self._say()

    def _say(self) -> None:
        self._said_at, self._said_share, self._has_said = time.monotonic(), self._share, True
        took, share = self._said_at - self._began, self._said_share
        parts = [] if self._total is None else [f"{self._n:,} of {self._total:,}"]
        parts += [f"{self._n_passes:,} passes"] if self._n_passes else []
        parts.append(f"{in_time(took)} so far")
        parts += [f"{in_time(took * (1 - share) / share)} left"] if 0 < share < 1 else []
        print(f"{self._name}: {', '.join(parts)}", file=sys.stderr, flush=True)


def in_time(seconds: float) -> str:
    """A time in words: ``12 s``, ``3 min 20 s``, ``5 h 02 min``; below ten seconds with one decimal."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds) // 60, 60)
    rest = round(seconds) % 60
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_DELAY = 0.5
"""Seconds before a bar appears in a notebook, so that short work leaves nothing on the page; between two looks."""
_LOG_INTERVAL, _LOG_LEAST, _LOG_SHARE = 30.0, 5.0, 0.05
"""Most and least seconds between two lines in a log, and the part of a stage after which one is due."""
