"""Fixtures of every test, threads of tests that run side by side, and tests that take turns.

Tests side by side take one thread each: more would wait for one another. Of the tests marked ``in_turns`` a whole suite
runs a third, which changes with every commit, so that each runs once in three landings; ``--all-turns``, or naming
files, runs all. ``--start-within N`` runs as many as start within N seconds, and puts the files in an order that
changes with every commit, so that the last are not always the same.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from zlib import crc32

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported; processes that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from browser import browser  # noqa: F401 (the same)
from command_line import command, here  # noqa: F401 (fixtures of every test, and after the setting above)

_TURNS = 3
_BEGAN = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that run what would wait for its turn, and that end a suite in time."""
    parser.addoption("--all-turns", action="store_true", help="run the tests marked in_turns of all turns")
    parser.addoption("--start-within", type=float, metavar="SECONDS", help="skip tests that would start later")


def pytest_configure(config: pytest.Config) -> None:
    """The time at which the suite began."""
    config.stash[_BEGAN] = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that would start too late."""
    most = item.config.getoption("--start-within")
    if most is not None and time.monotonic() - item.config.stash[_BEGAN] > most:
        pytest.skip("out of time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests whose turn it is not; parametrised ones go one by one, others with their file."""
    number = _commit_number(config.rootpath)
    if config.getoption("--start-within") is not None:
        items.sort(key=lambda item: _hash(f"{number} {item.nodeid.split('::')[0]}"))
        return
    named = any(not (config.rootpath / name.split("::")[0]).is_dir() for name in config.args)
    if config.getoption("--all-turns") or named or number is None:
        return
    waiting = [
        item
        for item in items
        if item.get_closest_marker("in_turns") is not None
        and _hash(item.nodeid if "[" in item.nodeid else item.nodeid.split("::")[0]) % _TURNS != number % _TURNS
    ]
    config.hook.pytest_deselected(items=waiting)
    left_out = set(waiting)
    items[:] = [item for item in items if item not in left_out]


def _hash(text: str) -> int:
    return crc32(text.encode())


def _commit_number(root: Path) -> int | None:
    """How many commits there are; None where there is no history."""
    asked = subprocess.run(
        ["git", "rev-list", "--count", "HEAD"], cwd=root, check=False, capture_output=True, text=True
    )
    return int(asked.stdout) if asked.returncode == 0 else None
