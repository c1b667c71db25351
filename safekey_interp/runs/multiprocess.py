"""How do several processes work on one run folder? The first begins, holds and finishes it; the others see it appear.

One process alone does the same without waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safekey_interp.errors import RunError
from safekey_interp.runs.manifest import differences
from safekey_interp.runs.processes import Team
from safekey_interp.runs.run_folder import Run, manifest_in, open_run
from safekey_interp.runs.run_writer import RunWriter, known_run


def check_same_task(team: Team, identity: dict[str, Any]) -> None:
    """Refuse processes that were not given the same data and settings, or not the same kind of device.

    Raises:
        RunError: with what differs.
    """
    asked = team.gather(identity)
    for rank, other in enumerate(asked):
        if changed := differences(asked[0], other):
            given = (
                "; ".join(changed[:3]).replace(" was ", " is ").replace(", now ", f" in process 0, in process {rank} ")
            )
            raise RunError(f"the processes were not given the same task: {given}; give each the same command")


def is_complete(path: Path, manifest: dict[str, Any], together: Team, *, overwrite: bool) -> bool:
    """Whether the folder holds this run from its beginning to its end; it is then tidied up."""
    known = known_run(path, manifest) if together.is_first and not overwrite else None
    if known is not None and known.is_complete:
        with RunWriter.begin(path, manifest):
            pass
    return together.gather(known is not None and known.is_complete)[0]


@contextmanager
def held_run(path: Path, manifest: dict[str, Any], together: Team, *, overwrite: bool) -> Iterator[RunWriter]:
    """The first process holds the folder, the others write under its lock."""
    if together.is_first:
        with RunWriter.begin(path, manifest, overwrite=overwrite) as writer:
            together.gather(writer.manifest.get("created"))
            yield writer
    else:
        began = together.gather()[0]
        wait_until(
            lambda: (manifest_in(path) or {}).get("created") == began,
            f"out {path}: the run that process 0 began is not there; expected a folder that all machines share",
        )
        with RunWriter.join(path) as writer:
            yield writer


def completed(path: Path, together: Team) -> Run:
    """The run, once the first process has finished it."""
    together.gather()
    if not together.is_first:
        wait_until(
            lambda: (manifest_in(path) or {}).get("status") == "complete", f"out {path}: its end does not appear there"
        )
    return open_run(path)


def my_share(writer: RunWriter, n: int, together: Team) -> list[int]:
    """This process's share of a run's chunks, of those that are not done yet."""
    if together.is_first:
        writer.make_room()
    done = {number for number in together.share(range(n)) if writer.part(number) is not None}
    done = {number for theirs in together.gather(sorted(done)) for number in theirs}
    return together.share([number for number in range(n) if number not in done])


def all_parts(writer: RunWriter, n: int, together: Team) -> list[Path]:
    """The folders of a run's chunks, in order, once every process has written its share.

    Raises:
        RunError: a chunk that another process wrote does not appear, or another process stopped.
    """
    together.gather()
    parts = [writer.path_of_part(number) for number in range(n)]
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
