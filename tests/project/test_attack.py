"""A part of the attack on every command: bad input of each kind, and a few moments and files of a few commands.

The whole attack is ``python -m tests.attack KIND``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PARTS = {
    "files": ("input", "--only", "file:"),
    "words": ("input", "--only", "words: s"),
    "models": ("input", "--only", "model:"),
    "segment": ("signals", "--command", "segment", "--points", "3"),
    "knockout": ("signals", "--command", "knockout", "--points", "1"),
    "train": ("signals", "--command", "train", "--points", "1"),
    "damage": ("damage", "--command", "lens"),
    "disk": ("disk", "--command", "segment", "--command", "generate"),
    "together": ("together", "--command", "segment"),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_attack_finds_nothing(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack", *PARTS[part]],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
