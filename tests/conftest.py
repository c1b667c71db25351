"""Tests that run side by side take one thread each: more would wait for one another."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported; processes that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from browser import browser  # noqa: F401 (the same)
from command_line import command, here  # noqa: F401 (fixtures of every test, and after the setting above)
