"""Attack on every command: signals at random moments, and then the same command again.

    python -m tests.attack signals --command probe --points 20
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from . import bad_input
from .interruptions import interrupted
from .processes import load_libraries, run
from .victims import COMMANDS, copy, prepare


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("kind", choices=["signals", "input"])
    parser.add_argument("--command", action="append", choices=list(COMMANDS), help="default: all")
    parser.add_argument("--points", type=int, default=20, help="moments for each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", action="store_true", help="start each process as a user does, do not fork it")
    parser.add_argument("--only", default="", help="cases of whose names this is a part")
    asked = parser.parse_args()
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="attack-") as made:
        template = Path(made) / "template"
        template.mkdir()
        prepare(template)
        sys.exit((_signals if asked.kind == "signals" else _input)(asked, template, Path(made)) > 0)


def _input(asked: argparse.Namespace, template: Path, made: Path) -> int:
    n = n_wrong = 0
    for case, told in bad_input.attacked(template, made, asked.only):
        n += 1
        n_wrong += bool(told)
        print(*(f"{case}: {line}" for line in told), sep="\n", end="\n" if told else "", flush=True)
    print(f"{n} kinds of input, {n_wrong} wrong")
    return n_wrong


def _signals(asked: argparse.Namespace, template: Path, made: Path) -> int:
    n_wrong = 0
    for name in asked.command or COMMANDS:
        began, n, wrong = time.monotonic(), 0, 0
        if name == "report":
            run((*COMMANDS["probe"], "--no-report"), copy(template, made / "made"))
            (made / "made" / "run").rename(template / "made")
        points = {"points": asked.points, "seed": asked.seed, "starts": asked.start}
        for told in interrupted(name, template, made, **points):
            n += 1
            wrong += bool(told)
            print(*told, sep="\n", end="\n" if told else "", flush=True)
        n_wrong += wrong
        print(f"{name}: {n} points, {wrong} wrong, {time.monotonic() - began:.0f} s", flush=True)
    return n_wrong


main()
