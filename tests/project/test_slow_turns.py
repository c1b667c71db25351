"""Turns of slow tests: whoever waits longest comes first, in every process, and what passed is remembered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[1] / "helpers"
CONFTEST = """
import sys
sys.path.insert(0, {helpers!r})
from slow_turns import SlowTurns

def pytest_configure(config):
    config.pluginmanager.register(SlowTurns(config, {within}))
"""
SLOW = "import pytest\n\n@pytest.mark.slow\n"
FILES = {
    "test_a.py": SLOW + "def test_one(): pass\n\n@pytest.mark.slow\ndef test_two(): pass\n\ndef test_quick(): pass\n",
    "test_b.py": SLOW + "def test_one(): assert False\n",
    "test_c.py": SLOW + "def test_one(): pytest.skip('not on this machine')\n",
}


def suite(folder: Path, *words: str, within: float) -> str:
    """What a suite of these files says in a process of its own."""
    (folder / "conftest.py").write_text(CONFTEST.format(helpers=str(HELPERS), within=within))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    environment = os.environ | {"SAFEKEY_CACHE": str(folder / "cache"), "PYTEST_ADDOPTS": ""}
    environment.pop("PYTEST_XDIST_WORKER", None)
    options = ["-v", "-m", "slow", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    typed = [sys.executable, "-m", "pytest", *options, *words, str(folder)]
    return subprocess.run(typed, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_whoever_waits_longest_comes_first_and_what_fails_waits_on(tmp_path: Path) -> None:
    record = tmp_path / "cache" / "slow_tests.json"
    record.parent.mkdir()
    record.write_text(
        json.dumps({"test_a.py::test_one": 30.0, "test_a.py::test_two": 10.0, "test_c.py::test_one": 20.0})
    )
    said = suite(tmp_path, within=100)
    order = re.findall(r"^(test_\w\.py::test_\w+) ", said, re.MULTILINE)
    assert order == ["test_b.py::test_one", "test_a.py::test_two", "test_a.py::test_one", "test_c.py::test_one"], said
    passed = json.loads(record.read_text())
    assert passed.keys() == {"test_a.py::test_one", "test_a.py::test_two", "test_c.py::test_one"}
    assert min(passed.values()) > 30.0


@pytest.mark.slow
def test_processes_share_the_turns_and_nothing_starts_too_late(tmp_path: Path) -> None:
    shared = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
    assert "2 passed, 1 skipped" in suite(tmp_path, *shared, within=100)
    before = (tmp_path / "cache" / "slow_tests.json").read_text()
    assert len(json.loads(before)) == 3
    said = suite(tmp_path, *shared, within=-1)
    assert "4 skipped" in said
    assert "4 tests had no turn, 1 of them none within a day" in said
    assert (tmp_path / "cache" / "slow_tests.json").read_text() == before
