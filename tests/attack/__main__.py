"""Attack on every command, as ``python -m tests.attack KIND``; exit status 1 when anything went wrong.

python -m tests.attack signals --command probe --points 20
python -m tests.attack input --only "model: weights"
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from . import bad_endpoints, bad_input, damaged_runs
from .full_disks import filled
from .interruptions import interrupted
from .processes import load_libraries, run
from .served_sessions import served
from .two_at_once import two_at_once
from .victims import COMMANDS, copy, prepare


def main() -> None:
    kinds = {
        "signals": _signals,
        "input": lambda asked, template, made: bad_input.attacked(template, made, asked.only),
        "endpoint": lambda asked, template, made: bad_endpoints.attacked(template, made, asked.only),
        "damage": _damage,
        "disk": _disk,
        "together": _together,
        "served": lambda asked, template, made: served(made, points=asked.points, seed=asked.seed),
    }
    parser = argparse.ArgumentParser(
        prog="python -m tests.attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--command", action="append", choices=list(COMMANDS), help="default: all")
    parser.add_argument("--points", type=int, default=20, help="moments for each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", action="store_true", help="start each process as a user does, do not fork it")
    parser.add_argument("--only", default="", help="input, endpoint, damage: a part of the names of the cases to try")
    asked = parser.parse_args()
    load_libraries()
    n = n_wrong = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="attack-") as made:
        template = Path(made) / "template"
        template.mkdir()
        prepare(template)
        for case, told in kinds[asked.kind](asked, template, Path(made)):
            n += 1
            n_wrong += bool(told)
            print(*(f"{case}: {line}" for line in told), sep="\n", end="\n" if told else "", flush=True)
    print(f"{asked.kind}: {n} tried, {n_wrong} wrong, {time.monotonic() - began:.0f} s")
    sys.exit(n_wrong > 0)


def _signals(asked: argparse.Namespace, template: Path, made: Path) -> Iterator[tuple[str, list[str]]]:
    for name in asked.command or COMMANDS:
        if name == "report":
            run((*COMMANDS["probe"], "--no-report"), copy(template, made / "made"))
            (made / "made" / "run").rename(template / "made")
        began = time.monotonic()
        yield from interrupted(name, template, made, points=asked.points, seed=asked.seed, starts=asked.start)
        print(f"{name}: done, {time.monotonic() - began:.0f} s", flush=True)


def _damage(asked: argparse.Namespace, template: Path, made: Path) -> Iterator[tuple[str, list[str]]]:
    for name in asked.command or damaged_runs.KINDS:
        yield from damaged_runs.damaged(name, template, made, seed=asked.seed, only=asked.only)


def _disk(asked: argparse.Namespace, template: Path, made: Path) -> Iterator[tuple[str, list[str]]]:
    for name in asked.command or (name for name in COMMANDS if name != "report"):
        yield from filled(name, template, made)


def _together(asked: argparse.Namespace, template: Path, made: Path) -> Iterator[tuple[str, list[str]]]:
    for name in asked.command or (name for name in COMMANDS if name != "report"):
        for apart in (0.0, 2.0):
            yield f"{name}, two, {apart} s apart", two_at_once(name, template, made, apart=apart)


main()
