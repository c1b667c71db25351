"""Progress where there is no terminal: lines of counts and time left, and silence where it is hidden."""

from __future__ import annotations

import time

import pytest

from safekey_interp import progress as progress_module
from safekey_interp.progress import Progress, in_time


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_DELAY", 0.01)
    monkeypatch.setattr(progress_module, "_LOG_LEAST", 0.05)


def first_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The first line that comes, which another thread writes."""
    text, until = "", time.monotonic() + 60
    while "\n" not in text:
        assert time.monotonic() < until
        time.sleep(0.01)
        text += capsys.readouterr().err
    return text.splitlines()[0]


def test_a_stage_writes_counts_and_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.stage("measuring", 4)
        progress.advance(1)
        first = first_line(capsys)
    assert first.startswith("measuring: 1 of 4, ")
    assert first.endswith(" left")


def test_passes_move_a_stage_within_one_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.stage("measuring", 1, passes=10)
        for _ in range(5):
            progress.passed()
        assert first_line(capsys).startswith("measuring: 0 of 1, 5 passes, ")


def test_a_step_that_takes_long_is_heard_of_meanwhile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_LOG_INTERVAL", 0.05)
    with Progress() as progress:
        progress.stage("loading the model", None)
        assert first_line(capsys).startswith("loading the model: ")


def test_short_stages_and_hidden_ones_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.stage("reading", 100)
        progress.advance(100)
    with Progress(is_hidden=True) as progress:
        progress.stage("reading", 100)
        progress.advance(50)
        progress.say("nothing")
        assert progress.starts(lambda: pytest.fail("nobody listens")) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.2 s"), (12.4, "12 s"), (59.8, "1 min 00 s"), (200, "3 min 20 s"), (7320, "2 h 02 min")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_time(seconds) == words
