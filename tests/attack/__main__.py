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

from .interruptions import interrupted
from .processes import load_libraries, run
from .victims import COMMANDS, copy, prepare


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--command", action="append", choices=list(COMMANDS), help="default: all")
    parser.add_argument("--points", type=int, default=20, help="moments for each signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", action="store_true", help="start each process as a user does, do not fork it")
    asked = parser.parse_args()
    load_libraries()
    n_wrong = 0
    with tempfile.TemporaryDirectory(prefix="attack-") as made:
        template = Path(made) / "template"
        template.mkdir()
        prepare(template)
        for name in asked.command or COMMANDS:
            began, n, wrong = time.monotonic(), 0, []
            if name == "report":
                run((*COMMANDS["probe"], "--no-report"), copy(template, Path(made) / "made"))
                (Path(made) / "made" / "run").rename(template / "made")
            for told in interrupted(
                name, template, Path(made), points=asked.points, seed=asked.seed, starts=asked.start
            ):
                n += 1
                wrong += [told] if told else []
                print(*told, sep="\n", end="\n" if told else "", flush=True)
            n_wrong += len(wrong)
            print(f"{name}: {n} points, {len(wrong)} wrong, {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(n_wrong > 0)


main()
