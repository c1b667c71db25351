"""Interleaved rounds of two ways of one thing: ratios within a round, their median and its bootstrap interval.

Both ways run by turns, in an order that changes with each round, so that a busy machine makes both slow alike.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

Way = Callable[[], object]
LEAST, MOST = 3, 15
"""Rounds."""


class TooLong(Exception):
    """Two ways that the time asked for has no place for."""


class Reading(NamedTuple):
    """One run of one way."""

    value: float
    """Seconds, or bytes."""
    processor: float
    """Seconds of all threads and processes; NaN of memory."""


class Rounds(NamedTuple):
    """Two ways, side by side."""

    ratio: float
    """Median over rounds of ours divided by the baseline's."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    ours: float
    """Median, seconds or bytes."""
    baseline: float
    """Median of the baseline."""
    processor_ratio: float
    """As ``ratio``, of processor time: what other work on the machine changes little; NaN of memory."""
    n: int
    """Rounds."""


def interval(ratios: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Median with a 95 % bootstrap interval."""
    draws = np.random.default_rng(seed).choice(ratios, size=(2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def clock(run: Way) -> Reading:
    """Seconds of one run, until the device has done it."""
    _wait()
    start, worked = time.perf_counter(), _worked()
    run()
    _wait()
    return Reading(time.perf_counter() - start, _worked() - worked)


def peak_memory(run: Way) -> Reading:
    """Bytes that one run needs at its peak, above what was held before it.

    Raises:
        ImportError: this system does not say.
    """
    if torch.cuda.is_available():
        _wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        _wait()
        return Reading(torch.cuda.max_memory_allocated() - before, float("nan"))
    if sys.platform != "linux":
        raise ImportError("a system with /proc, or CUDA")
    # Freed memory goes back to the system at once, so that a peak is what was needed and not what was kept.
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 262_144), (-1, 0)):
        libc.mallopt(option, value)
    libc.malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
        control.write("5")
    before = _status("VmRSS")
    run()
    return Reading(max(1, _status("VmHWM") - before) * 1024, float("nan"))


def interleaved(
    ours: Way, baseline: Way, *, seconds: float, most: float, meter: Callable[[Way], Reading] = clock
) -> Rounds:
    """Both ways by turns, for about so many seconds.

    Raises:
        TooLong: even the least number of rounds takes longer than ``most`` seconds.
    """
    start = time.perf_counter()
    for way in (ours, baseline):  # the first run of each is slower
        way()
    one = time.perf_counter() - start
    if LEAST * one > most:
        raise TooLong(f"a round takes {one:.0f} s, and {most:.0f} s are left for it; raise --minutes")
    rows = []
    while len(rows) < LEAST or (len(rows) < MOST and time.perf_counter() - start + one < seconds):
        order = (ours, baseline) if len(rows) % 2 == 0 else (baseline, ours)
        readings = {way: meter(way) for way in order}
        rows.append((readings[ours], readings[baseline]))
    values = np.array([[reading.value for reading in row] for row in rows])
    processor = np.array([[reading.processor for reading in row] for row in rows])
    ratio, low, high = interval(values[:, 0] / values[:, 1])
    medians = np.median(values, axis=0)
    of_processor = float(np.median(processor[:, 0] / np.maximum(processor[:, 1], 1e-9)))
    return Rounds(ratio, low, high, float(medians[0]), float(medians[1]), of_processor, len(rows))


def _worked() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    return time.process_time() + sum(os.times()[2:4])


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _wait() -> None:
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            torch.cuda.synchronize(number)
