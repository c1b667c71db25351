"""Processes in which commands are attacked: forked from one that has loaded the libraries, or started as a user does.

A fork runs a command in a second or two, so that many moments of it can be tried; a start has the loading, too.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    """Exit status; minus the signal that killed it."""
    out: str
    err: str
    seconds: float
    """How long it ran."""
    was_hit: bool
    """Whether it was still running when the signal was sent."""


def load_libraries() -> None:
    """Import what commands import, once for all forks; nothing is computed, so that there are no threads to lose."""
    from importlib import import_module

    for name in (
        *("torch._dynamo", "transformers.models.llama.modeling_llama", "sklearn.linear_model", "pandas", "plotly"),
        *("sklearn.feature_extraction.text", "pyarrow.parquet", "plotly.graph_objects", "plotly.io", "rich.console"),
        *("safekey_interp.experiments.probe_run", "safekey_interp.experiments.intervene_run"),
        *("safekey_interp.experiments.compare_run", "safekey_interp.experiments.benchmark_run"),
        *("safekey_interp.reporting.report_file", "safekey_interp.reporting.pages.probe_page"),
        *("safekey_interp.training.training_run", "safekey_interp.generation.local_engine"),
        *(f"safekey_interp.cli.{kind}_command" for kind in ("probe", "segment", "generate", "intervene", "train")),
        *(f"safekey_interp.cli.{kind}_command" for kind in ("compare", "evaluate", "explore")),
        *("uvicorn", "starlette.applications", "safekey_interp.exploration.web.session_server"),
    ):
        import_module(name)


def run(
    words: Sequence[str],
    folder: Path,
    *,
    signal_at: tuple[int, float] | None = None,
    starts: bool = False,
    variables: Mapping[str, str] | None = None,
    limit: float = 300.0,
    streams: str = "",
) -> Ended:
    """A command, from its beginning to its end.

    Args:
        words: what is typed, without the program's name.
        folder: where.
        signal_at: a signal, and the seconds after which it is sent.
        starts: whether the process is started as a user does, not forked.
        variables: of the environment, besides its own.
        limit: seconds after which it is killed; a command that hangs ends as -9.
        streams: what the files of its output are called, where several run in one folder.
    """
    launch = _started if starts else forked
    files = folder.with_name(f"{folder.name}{streams}.out"), folder.with_name(f"{folder.name}{streams}.err")
    pid = launch(list(words), folder, environment(folder) | dict(variables or {}), files)
    began = time.monotonic()
    was_hit = False
    if signal_at is not None:
        while not was_hit and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            left = signal_at[1] - (time.monotonic() - began)
            if left <= 0:
                os.kill(pid, signal_at[0])
                was_hit = True
            else:
                time.sleep(min(left, 0.01))
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() - began > limit:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Ended(status, *(file.read_text(errors="replace") for file in files), time.monotonic() - began, was_hit)


def environment(folder: Path) -> dict[str, str]:
    """All that a command may keep elsewhere is kept beside its folder, where it is seen."""
    own = {"SAFEKEY_CACHE": str(folder.with_name("cache")), "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "HF_HUB_OFFLINE": "1"}


def _started(words: list[str], folder: Path, environment: dict[str, str], files: tuple[Path, Path]) -> int:
    import subprocess

    (folder / "tmp").mkdir(exist_ok=True)
    with files[0].open("w") as out, files[1].open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "safekey_interp", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        ).pid


def forked(words: list[str], folder: Path, environment: dict[str, str], files: tuple[Path, Path]) -> int:
    """Process of a command, whose output and errors are two files."""
    from safekey_interp.cli.app import main

    (folder / "tmp").mkdir(exist_ok=True)
    sys.stdout.flush()
    streams = [os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for file in files]
    ready, begins = os.pipe()
    pid = os.fork()
    if pid:
        # What a fork is before it is the command is not attacked.
        os.close(begins)
        os.read(ready, 1)
        for stream in (*streams, ready):
            os.close(stream)
        return pid
    status = 1
    try:
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        os.chdir(folder)
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(begins)
        main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
