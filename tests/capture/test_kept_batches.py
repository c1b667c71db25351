"""Batches of a chunk that a killed run had measured: kept as they were, and not measured again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from counted_work import counted
from killed_processes import results
from tiny_models import tiny_model, traces

from safekey_interp.capture import kept_batches
from safekey_interp.capture.batch_runner import AttentionArrays, LeftOut, Measured, measure_batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.kept_batches import KeptBatches
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.progress import Progress

MODEL = tiny_model("llama")
N = 12


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_batches, "EVERY", 0.0)


def test_what_is_kept_is_what_was_measured_to_the_bit(tmp_path: Path) -> None:
    encodings = [MODEL.encode(trace) for trace in traces(3)]
    request = CaptureRequest(token_weights=True, n_random=2)
    answers = [*measure_batch(MODEL, encodings[:2], request), LeftOut(encoding=encodings[2], reason="not finite")]
    KeptBatches(tmp_path / "b", request).add(4, answers)
    kept = KeptBatches(tmp_path / "b", request)
    read = kept.read(4, encodings)
    assert read is not None
    for one, other in zip(answers[:2], read[:2], strict=True):
        assert isinstance(one, Measured)
        assert isinstance(other, Measured)
        assert one.attention is not None
        assert other.attention is not None
        assert one.layers_without_pattern == other.layers_without_pattern
        pairs = [(one.states, other.states), (one.token_weights, other.token_weights)]
        names = [field.name for field in fields(AttentionArrays) if field.name != "spans"]
        pairs += [(getattr(one.attention, name), getattr(other.attention, name)) for name in names]
        for before, after in pairs:
            np.testing.assert_array_equal(before, after)
            assert before.dtype == after.dtype
    assert read[2] == answers[2]
    assert kept.read(5, encodings) is None
    assert kept.read(4, encodings[::-1]) is None, "a batch of other traces"
    next((tmp_path / "b").iterdir()).write_bytes(b"broken")
    assert kept.read(4, encodings) is None


def test_fast_batches_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_batches, "EVERY", 60.0)
    encodings = [MODEL.encode(trace) for trace in traces(1)]
    request = CaptureRequest(n_random=1)
    KeptBatches(tmp_path / "b", request).add(0, measure_batch(MODEL, encodings, request))
    assert not (tmp_path / "b").exists()


class KilledAfter(Progress):
    """Ends its process once so many traces of a chunk are measured."""

    def __init__(self, n: int) -> None:
        super().__init__(is_hidden=True)
        self._n, self._stage = n, ""

    def stage(self, name: str, total: int | None, passes: float | None = None) -> None:
        self._stage = name

    def advance(self, n: int) -> None:
        self._n -= n if self._stage == "measuring" else 0
        if self._n < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def probe(out: Path, progress: Progress | None = None) -> None:
    kept_batches.EVERY = 0.0
    run_probe(MODEL, traces(N), out=out, chunk=6, batch_size=2, n_examples=3, progress=progress)


def killed(work: Callable[..., None], *arguments: object) -> None:
    process = get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 9))])
def test_a_killed_probe_measures_no_batch_again_and_ends_the_same(tmp_path: Path, n: int) -> None:
    probe(tmp_path / "whole")
    out = tmp_path / "run"
    killed(probe, out, KilledAfter(n))
    with counted(MODEL) as work:
        probe(out)
    n_measured = 2 * (n // 2 + 1)
    assert sum(n_rows for n_rows, _ in work.passes) == N - n_measured
    assert results(out) == results(tmp_path / "whole")
    assert not (out / "parts").exists()
