"""Work of one run shared by several processes; one process alone does the same without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from safekey_interp.errors import RunError
from safekey_interp.runs.processes import Team
from safekey_interp.runs.run_writer import RunWriter


def my_share(writer: RunWriter, n: int, team: Team, first: int = 0) -> list[int]:
    """This process's share of ``n`` of a run's chunks from the ``first`` on, of those that are not done yet."""
    if team.is_first:
        writer.make_room()
    done = {number for number in team.share(range(first, first + n)) if writer.part(number) is not None}
    done = {number for theirs in team.gather(sorted(done)) for number in theirs}
    return team.share([number for number in range(first, first + n) if number not in done])


def all_parts(writer: RunWriter, n: int, team: Team, first: int = 0) -> list[Path]:
    """The folders of ``n`` of a run's chunks from the ``first`` on, in order, once every process has written its share.

    Raises:
        RunError: a chunk that another process wrote does not appear, or another process stopped.
    """
    team.gather()
    parts = [writer.path_of_part(number) for number in range(first, first + n)]
    wait_until(
        lambda: all(map(writer.is_part, parts)),
        f"out {writer.path}: what other processes measured does not appear there; expected a folder that all share",
    )
    return parts


def wait_until(there: Callable[[], bool], otherwise: str, *, at_most: float = 60.0) -> None:
    """Wait for what another machine has written to a shared folder: it may appear seconds later here.

    Raises:
        RunError: with the message ``otherwise``, when it does not.
    """
    until = time.monotonic() + at_most
    while not there():
        if time.monotonic() > until:
            raise RunError(otherwise)
        time.sleep(0.1)
