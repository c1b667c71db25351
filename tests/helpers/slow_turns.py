"""Slow tests: values that are marked so, and turns: who waits longest comes first, as many as start in time.

A record of what passed lies in the user's cache folder, which outlives clones of the repository. Tests that wait
equally long, as all do where there is no record, have an order that changes with every commit: none is always the last.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from safekey_interp.runs.storage import cache_folder, write_json

OUT_OF_TIME = "out of time"
RECORD = cache_folder() / "slow_tests.json"


def mostly_slow(values: Iterable[Any], *, quick: Container[Any]) -> list[Any]:
    """The values of a parametrisation, all but the quick ones marked slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


class SlowTurns:
    """Plugin of a suite that must end in time; in the processes of xdist, too.

    Args:
        config: of the suite.
        within: seconds from now in which a test may start.
    """

    def __init__(self, config: pytest.Config, within: float) -> None:
        self.until = time.monotonic() + within
        self.is_worker = hasattr(config, "workerinput")
        # The workers of a suite must have one order, whatever another suite records meanwhile.
        self.passed: dict[str, float] = config.workerinput["passed"] if self.is_worker else recorded()  # type: ignore[attr-defined]
        self.commit = _commit(config.rootpath)
        self.new: dict[str, float] = {}
        self.without_turn: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what this process has read."""
        node.workerinput["passed"] = self.passed

    @pytest.hookimpl(trylast=True)  # when those of other marks are left out
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """File by file, since tests of one share what they make: first the file of the test that waits longest."""
        longest: dict[Path, float] = {}
        for item in items:
            longest[item.path] = min(self._last(item), longest.get(item.path, float("inf")))
        place = {path: (last, crc32(f"{self.commit} {path.name}".encode())) for path, last in longest.items()}
        items.sort(key=lambda item: (place[item.path], self._last(item)))

    def pytest_runtest_setup(self) -> None:
        """Skip a test that would start too late."""
        if time.monotonic() > self.until:
            pytest.skip(OUT_OF_TIME)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what passes, or cannot be run here, and what had no turn."""
        if report.skipped and OUT_OF_TIME in str(report.longrepr):
            self.without_turn.append(report.nodeid)
        elif report.skipped or (report.when == "call" and report.passed):
            self.new[report.nodeid] = time.time()

    def pytest_sessionfinish(self) -> None:
        """Record it."""
        if not self.is_worker and self.new:
            RECORD.parent.mkdir(parents=True, exist_ok=True)
            write_json(RECORD, dict(sorted((recorded() | self.new).items())))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say how many wait, and how long."""
        yesterday = time.time() - 86_400
        n_waiting = sum(self.passed.get(name, 0.0) < yesterday for name in self.without_turn)
        n = len(self.without_turn)
        terminalreporter.write_line(f"{n} tests had no turn, {n_waiting} of them none within a day on this machine")

    def _last(self, item: pytest.Item) -> float:
        return self.passed.get(item.nodeid, 0.0)


def recorded() -> dict[str, float]:
    """When each test passed last on this machine, seconds since 1970; empty where nothing readable is recorded."""
    try:
        return json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _commit(root: Path) -> str:
    """The commit's hash; empty where there is no history."""
    asked = ["git", "rev-parse", "HEAD"]
    return subprocess.run(asked, cwd=root, check=False, capture_output=True, text=True).stdout
