"""Probe runs in several processes, connected as a launcher connects them, some of which are killed."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import killed_processes
from killed_processes import start_fork_server

SILENCE = 8.0
"""Seconds without a sign of life after which the tests' processes count one another as gone."""


def environment(n: int) -> list[dict[str, str]]:
    """What a launcher would set for each of ``n`` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    return [meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)]


def run_in_team(
    n: int,
    traces: list[Any],
    out: Path,
    *,
    kill_at: dict[int, int] | None = None,
    group: Path | None = None,
    settings_of: dict[int, dict[str, Any]] | None = None,
    **settings: Any,
) -> list[int]:
    """Exit statuses of a probe in ``n`` processes; -9 for one that was killed. What each said lies beside ``out``.

    Args:
        n: how many processes.
        traces: the data.
        out: the run folder.
        kill_at: by process, the change of the folder before which it is killed, from 1.
        group: a file over which they open a gloo process group of their own, instead of a launcher's environment.
        settings_of: by process, settings of its own.
        **settings: of ``run_probe``.
    """
    start_fork_server()
    told_by = [group] * n if group else environment(n)
    processes = [
        killed_processes.context.Process(
            target=_child,
            args=(
                (rank, n, told_by[rank]),
                traces,
                out,
                (kill_at or {}).get(rank),
                settings | (settings_of or {}).get(rank, {}),
            ),
        )
        for rank in range(n)
    ]
    for process in processes:
        process.start()
    until = time.monotonic() + 240
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    assert not hung, "a process waits for ever"
    return [process.exitcode for process in processes]  # type: ignore[misc]


def said(out: Path, rank: int) -> str:
    """The error that a process ended with; nothing when it ended well, or was killed."""
    file = out.with_name(f"{out.name}.said-{rank}")
    return file.read_text() if file.is_file() else ""


def _child(
    place: tuple[int, int, dict[str, str] | Path],
    traces: list[Any],
    out: Path,
    kill_at: int | None,
    settings: dict[str, Any],
) -> None:
    import torch

    from safekey_interp.runs import processes

    processes.SILENCE = SILENCE
    rank, n, told_by = place
    if isinstance(told_by, Path):
        torch.distributed.init_process_group("gloo", init_method=f"file://{told_by}", rank=rank, world_size=n)
    else:
        os.environ.update(told_by)
    with out.with_name(f"{out.name}.said-{rank}").open("w") as sys.stderr:
        killed_processes.child(traces, out, kill_at, False, settings)
