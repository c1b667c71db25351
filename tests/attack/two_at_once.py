"""Two processes of one command on one folder: one does the work, the other is refused in one line or finds it done."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .processes import run
from .victims import COMMANDS, copy, differences


def two_at_once(name: str, template: Path, at: Path, *, apart: float) -> list[str]:
    """What was wrong; nothing where all was well.

    Args:
        name: of the command.
        template: a folder as :func:`~.victims.prepare` makes it.
        at: a folder in which others are made.
        apart: seconds between the two.
    """
    import time

    whole = copy(template, at / "whole")
    run(COMMANDS[name], whole)
    folder = copy(template, at / "both")
    with ThreadPoolExecutor(2) as both:
        first = both.submit(run, COMMANDS[name], folder, starts=True, streams="first")
        time.sleep(apart)
        second = both.submit(run, COMMANDS[name], folder, starts=True, streams="second")
    ended = [first.result(), second.result()]
    told = [
        f"status {each.status}: {each.err[-700:]}"
        for each in ended
        if each.status != 0 and (each.status != 2 or each.err.count("\n") != 1 or "another process" not in each.err)
    ]
    if all(each.status for each in ended):
        told.append("neither did the work")
    return told + differences(whole, folder)
