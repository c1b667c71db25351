"""Stand-in for a Python interpreter with lm_eval; the name of the task says what it does.

It is started as ``PYTHON -c …`` for the versions and as ``PYTHON -m lm_eval run …`` for a benchmark. Each task goes to
a file, so that a test can tell what was run twice.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

PROGRAM = """#!{python} -S
import sys
sys.path.insert(0, {tests!r})
from fake_harness import main
main(sys.argv[1:], {asked!r})
"""
HOSTILE = "<script>alert(1)</script>"


def install(folder: Path) -> Path:
    """The program, in a folder of its own."""
    program = folder / "python"
    text = PROGRAM.format(python=sys.executable, tests=str(Path(__file__).parent), asked=str(folder / "asked"))
    program.write_text(text)
    program.chmod(0o755)
    return program


def asked(program: Path) -> list[str]:
    """The tasks that it was asked, in order."""
    file = program.with_name("asked")
    return file.read_text().splitlines() if file.is_file() else []


def main(words: list[str], file: str) -> None:
    if words[0] == "-c":
        print(json.dumps({name: None if "absent" in file else "0.4.13" for name in words[2:]}))
        return
    task, out = (words[words.index(name) + 1] for name in ("--tasks", "--output_path"))
    with open(file, "a") as log:
        log.write(task + "\n")
    results = Path(out).with_name("results_2026-11-25.json")
    if task == "crash":
        print("Traceback (most recent call last):\nRuntimeError: CUDA out of memory", file=sys.stderr)
        sys.exit(1)
    if task == "killed":
        os.kill(os.getpid(), 9)
    if task == "slow":
        Path(file).with_name("pid").write_text(str(os.getpid()))
        time.sleep(60)
    if task == "garbage":
        results.write_text("{'results': 1}")
    elif task == "empty":
        results.write_text(json.dumps({"results": {"empty": {"alias": HOSTILE, "acc,none": "0.5"}}}))
    elif task != "silent":
        share = 0.6 if "base" in words[words.index("--model_args") + 1] else 0.4
        name = HOSTILE if task == "hostile" else task
        metrics = {"alias": name, "acc,none": share, "acc_stderr,none": 0.02, "f1,none": 0.5, "f1_stderr,none": "N/A"}
        sizes = {name: {"original": 600, "effective": 600}}
        results.write_text(json.dumps({"results": {name: metrics}, "n-samples": sizes}))
    print("done" * 40_000)
