"""Run folders of which a file is cut short at a random byte, once finished and once half done.

A page that is drawn from such a folder, and the command that began it, either end in one line that names the file, or
end as if nothing had happened.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from .processes import Ended, run
from .victims import COMMANDS, copy, differences

KINDS = ("probe", "stream", "knockout", "lens", "direction", "trajectory", "compare", "eval", "train")
"""Commands that leave a run folder."""
_MAY_CHANGE = (Path("run/model/README.md"),)
"""A model's card, which a person completes."""


def damaged(name: str, template: Path, at: Path, *, seed: int, only: str = "") -> Iterator[tuple[str, list[str]]]:
    """Each file that was cut, and what was wrong then; nothing where it was named, or made again.

    Args:
        name: of the command.
        template: folder with what it reads.
        at: where folders are made.
        seed: of the places at which files are cut.
        only: a part of the names of the cases to try.
    """
    draw = random.Random(f"{seed} {name}")
    whole = copy(template, at / "whole")
    first = run(COMMANDS[name], whole)
    run(("report", "run"), whole)
    half, seconds = at / "half", first.seconds
    for _ in range(40):  # until one is killed amid its work
        after = seconds * draw.uniform(0.3, 1.0)
        ended = run(COMMANDS[name], copy(template, half), signal_at=(signal.SIGKILL, after))
        if not ended.was_hit or _is_complete(half / "run"):
            seconds = min(seconds, after)  # the first run filled caches
        elif len([path for path in (half / "run").rglob("*") if path.is_file()]) > 2:
            break
    else:
        yield f"{name} half done", ["no run was killed amid its work"]
        shutil.rmtree(half)
    for kind, folder in (("finished", whole), ("half done", half)):
        for file in sorted(path.relative_to(folder) for path in (folder / "run").rglob("*") if path.is_file()):
            if only not in (case := f"{name} {kind}: {file}") or file in _MAY_CHANGE:
                continue
            tried = copy(folder, at / "damaged")
            size = (tried / file).stat().st_size
            with (tried / file).open("r+b") as stream:
                stream.truncate(draw.randrange(max(1, size)))
            yield case, [*_drawn(tried, file, kind), *_resumed(name, tried, file, whole, kind)]


def _is_complete(folder: Path) -> bool:
    manifest = folder / "run.json"
    return manifest.is_file() and json.loads(manifest.read_text())["status"] == "complete"


def _drawn(folder: Path, file: Path, kind: str) -> list[str]:
    ended = run(("report", "run"), folder)
    return [] if ended.status == 0 or _is_named(ended, file) or kind != "finished" else [_told("report", ended)]


def _resumed(name: str, folder: Path, file: Path, whole: Path, kind: str) -> list[str]:
    ended = run(COMMANDS[name], folder)
    if _is_named(ended, file):
        return []
    if ended.status != 0:
        return [_told("again", ended)]
    left = [line for line in differences(whole, folder) if "report.html" not in line]
    return [f"again, as if nothing were: {line}" for line in left]


def _is_named(ended: Ended, file: Path) -> bool:
    """Whether it was refused in one line that names the file, or the run where the file is what says that it is one."""
    is_refused = ended.status == 2 and ended.err.count("\n") == 1
    return is_refused and (file.name in ended.err or file.name in ("run.json", "settings.json"))


def _told(what: str, ended: Ended) -> str:
    return f"{what}: status {ended.status}: {ended.err[-600:]}"
