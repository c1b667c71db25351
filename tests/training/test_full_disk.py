"""Training on a disk that is full: one line at whatever point, and the run goes on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_training import assert_same_run, trained

from safekey_interp.errors import RunError
from safekey_interp.runs.processes import Team
from safekey_interp.training.clear_errors import clear_errors


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, whose size a test sets; skips where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def resize(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_wherever_it_is_full_and_the_run_goes_on(disk: Path, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    for kilobytes in (16, 200, 400):
        resize(disk, kilobytes)
        with pytest.raises(RunError, match="cannot be written: No space left on device"):
            trained(disk / "run")
        assert not [path for path in disk.rglob("*.aside")], "half of a checkpoint takes no room"
    resize(disk, 50_000)
    assert_same_run(whole.path, trained(disk / "run").path)


def test_errors_of_other_kinds_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), clear_errors(Team(0, 1), tmp_path):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(OSError, match="enforce fail"), clear_errors(Team(0, 1), tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
