"""Probe runs in processes that are killed, at a chosen change of the run folder or after a chosen time.

The processes come from a fork server that has torch loaded already, so that a test can afford many.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"}
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        *(
            "tiny",
            "safekey_interp.experiments.probe_run",
            "safekey_interp.experiments.intervene_run",
            "safekey_interp.reporting.pages.probe_page",
        ),
        "transformers.models.llama.modeling_llama",
        *("torch._dynamo", "sklearn.linear_model", "sklearn.feature_extraction.text"),
    ]
)


def run_in_child(
    traces: list[Any],
    out: Path,
    *,
    kill_at: int | None = None,
    kill_after: float | None = None,
    page: bool = False,
    **settings: Any,
) -> int:
    """Exit status of a probe; -9 when it was killed before it came to its end.

    Args:
        traces: the data.
        out: the run folder.
        kill_at: the change of the folder (rename, new folder, deletion) before which it is killed, from 1.
        kill_after: seconds after which it is killed.
        page: whether its page is drawn, too.
        **settings: of ``run_probe``; with ``kind``, of ``run_intervention``.
    """
    start_fork_server()
    process = context.Process(target=child, args=(traces, out, kill_at, page, settings))
    process.start()
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def start_fork_server() -> None:
    """Started with this folder on its path, so that it can load ``tiny`` once and for all."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def kill_at_change(out: Path, kill_at: int | None, *, files: bool = False) -> Callable[[], int]:
    """Kill this process before a change of a folder, from 1; how many there were is asked of what is returned.

    Args:
        out: the folder.
        kill_at: the change; None for never.
        files: whether a file that Python opens to write counts, too.
    """
    n = 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal n
        writes = files and event == "open" and str(details[1] or "r")[0] in "wax"
        if (event in _CHANGES or writes) and str(details[0]).startswith(str(out)):
            n += 1
            if n == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return lambda: n


def child(traces: list[Any], out: Path, kill_at: int | None, page: bool, settings: dict[str, Any]) -> None:
    import torch
    from tiny_models import tiny_model

    from safekey_interp.errors import SafekeyError
    from safekey_interp.experiments.intervene_run import run_intervention
    from safekey_interp.experiments.probe_run import run_probe
    from safekey_interp.reporting.report_file import write_report

    torch.set_num_threads(1)
    model = tiny_model("llama")
    n_changes = kill_at_change(out, kill_at)
    try:
        kind = settings.pop("kind", None)
        if kind is None:
            run = run_probe(model, traces, out=out, **settings)
        else:
            run = run_intervention(kind, model, traces, out=out, **settings)
        if page and not (run.path / "report.html").is_file():
            write_report(run.path)
    except SafekeyError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if kill_at is None:
        out.with_name(f"{out.name}.changes").write_text(str(n_changes()))


def n_changes(out: Path) -> int:
    """How often a run that came to its end changed its folder."""
    return int(out.with_name(f"{out.name}.changes").read_text())


def results(out: Path) -> dict[str, bytes]:
    """Every file that a run leaves, except for those that tell the time."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in ("run.json", "report.html"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}
