"""Commands that are killed, ended and interrupted at random moments, and then go on.

The moments are uniform over the duration of an undisturbed run of the same command. Whatever the signal, the same
command then ends well, with the same files as the undisturbed run and none besides.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from .processes import Ended, run
from .victims import COMMANDS, copy, differences

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
STATUS = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}
"""Exit status after a signal."""


def interrupted(
    name: str, template: Path, at: Path, *, points: int, seed: int, starts: bool
) -> Iterator[tuple[str, list[str]]]:
    """Each point, for every signal, and what was wrong then; nothing where all was well.

    Args:
        name: of the command.
        template: a folder as :func:`~.victims.prepare` makes it.
        at: a folder in which others are made.
        points: moments for each signal.
        seed: of the moments.
        starts: whether processes are started, not forked.
    """
    whole = copy(template, at / "whole")
    first = run(COMMANDS[name], whole, starts=starts)
    if first.status != 0:
        yield f"{name} undisturbed", [first.err]
        return
    # A second one tells what differs without any signal, and how long it takes once the disk has been read.
    again = run(COMMANDS[name], copy(template, at / "again"), starts=starts)
    if wrong := differences(whole, at / "again"):
        yield f"{name} undisturbed", wrong
        return
    draw = random.Random(f"{seed} {name}")
    for kind in SIGNALS:
        for _ in range(points):
            moment = draw.random() * again.seconds
            yield (
                f"{name} {kind} at {moment:.2f} s",
                _point(name, kind, moment, template=template, at=at, starts=starts),
            )
    shutil.rmtree(at / "tried", ignore_errors=True)


def _point(name: str, kind: str, moment: float, *, template: Path, at: Path, starts: bool) -> list[str]:
    folder = copy(template, at / "tried")
    ended = run(COMMANDS[name], folder, signal_at=(SIGNALS[kind], moment), starts=starts)
    told = _end(kind, ended) if ended.was_hit else []
    after = run(COMMANDS[name], folder, starts=starts)
    if after.status != 0:
        told.append(f"goes on with {after.status}: {after.err[-300:]}")
    return told + differences(at / "whole", folder)


def _end(kind: str, ended: Ended) -> list[str]:
    """What is wrong with how it ended; it may just have come to its own end."""
    if ended.status == 0 or kind == "SIGKILL":
        return []
    one_line = ended.err.count("\n") == 1 and ended.err.startswith("safekey-interp: stopped")
    return [] if ended.status == STATUS[kind] and one_line else [f"ended with {ended.status}: {ended.err[-1500:]!r}"]
