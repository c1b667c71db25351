"""``safekey-interp report``: draw a run's page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A run folder, whatever command wrote it.")]) -> None:
    """Draw the page of a run folder again."""
    from safekey_interp.cli.shared import plain
    from safekey_interp.errors import RunError
    from safekey_interp.report import write_report
    from safekey_interp.runs import open_run

    opened = open_run(run)
    if not opened.is_complete:
        raise RunError(f"run {run}: not complete; the command that began it goes on with it")
    print(plain(str(write_report(opened.path))))
