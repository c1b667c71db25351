"""Fixtures of every test, threads of tests that run side by side, and slow tests that take turns.

Tests side by side take one thread each: more would wait for one another.
"""

from __future__ import annotations

import gc
import os
import sys

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported; processes that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from browser import browser  # noqa: F401 (the same)
from command_line import command, here  # noqa: F401 (fixtures of every test, and after the setting above)
from slow_turns import SlowTurns

gc.disable()  # while libraries are loaded and tests are collected, nothing becomes garbage


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that ends a suite in time."""
    words = "run the tests first that wait longest for their turn, and skip those that would start later"
    parser.addoption("--start-within", type=float, metavar="SECONDS", help=words)


def pytest_configure(config: pytest.Config) -> None:
    """Tests take turns where not all have the time."""
    within = config.getoption("--start-within")
    if within is not None:
        config.pluginmanager.register(SlowTurns(config, within))


def pytest_collection_finish() -> None:
    """From now on there is garbage to collect."""
    gc.enable()


_modules_frozen = [0]


@pytest.fixture(scope="module", autouse=True)
def _what_is_loaded_stays() -> None:
    """Whatever collects garbage does not walk through all libraries for it, half a second each time."""
    if len(sys.modules) > _modules_frozen[0] + 20:
        gc.collect()
        gc.freeze()
        _modules_frozen[0] = len(sys.modules)
