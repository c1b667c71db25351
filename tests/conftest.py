"""Fixtures of every test, threads of tests that run side by side, and tests that take turns.

Tests side by side take one thread each: more would wait for one another. Of the tests marked ``in_turns`` a whole suite
runs a third, which changes with every commit, so that each runs once in three landings; ``--all-turns``, or naming
files, runs all.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from zlib import crc32

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported; processes that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from browser import browser  # noqa: F401 (the same)
from command_line import command, here  # noqa: F401 (fixtures of every test, and after the setting above)

_TURNS = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that runs what would wait for its turn."""
    parser.addoption("--all-turns", action="store_true", help="run the tests marked in_turns of all turns")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose turn it is not; parametrised ones go one by one, others with their file."""
    named = any(not (config.rootpath / name.split("::")[0]).is_dir() for name in config.args)
    if config.getoption("--all-turns") or named or (turn := _turn(config.rootpath)) is None:
        return
    waiting = [
        item
        for item in items
        if item.get_closest_marker("in_turns") is not None
        and crc32((item.nodeid if "[" in item.nodeid else item.nodeid.split("::")[0]).encode()) % _TURNS != turn
    ]
    config.hook.pytest_deselected(items=waiting)
    left_out = set(waiting)
    items[:] = [item for item in items if item not in left_out]


def _turn(root: Path) -> int | None:
    """The number of the commit, in turns; None where there is no history."""
    asked = subprocess.run(
        ["git", "rev-list", "--count", "HEAD"], cwd=root, check=False, capture_output=True, text=True
    )
    return int(asked.stdout) % _TURNS if asked.returncode == 0 else None
