"""Mutation of the science: every fault of the catalogue, in a copy of the tree, and whether its tests find it.

    python -m tests.mutants                   every mutant; exit status 1 when fewer than 95 % are killed
    python -m tests.mutants --only p-zero     those of whose names this is a part
    python -m tests.mutants --list
    python -m tests.mutants --without         their tests on the tree as it is, which must pass

A mutant is killed when a test fails. Tests that do not end in time, or cannot be collected, kill nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from .catalogue import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LEAST_KILLED = 0.95
_KINDS = {0: "survived", 1: "killed"}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", help="a part of the names of the mutants to try; several times")
    parser.add_argument("--list", action="store_true", help="print the mutants and what each would do to a reader")
    parser.add_argument("--without", action="store_true", help="run the tests of the mutants without any of them")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that the tests of one mutant may take")
    asked = parser.parse_args()
    mutants = [one for one in MUTANTS if asked.only is None or any(part in one.name for part in asked.only)]
    if asked.list:
        print(*(f"{one.name}: {one.why}" for one in mutants), sep="\n")
        return
    _load_libraries()
    with tempfile.TemporaryDirectory(prefix="mutants-") as made:
        tree = Path(made) / "tree"
        shutil.copytree(ROOT, tree, ignore=_not_source)
        if asked.without:
            tests = list(dict.fromkeys(test for one in mutants for test in one.tests.split()))
            sys.exit(_tested(tree, tests, asked.limit * len(mutants), Path(made) / "out", stops=False))
        found = {one.name: _tried(one, tree, asked.limit, Path(made) / "out") for one in mutants}
    killed = sum(end == "killed" for end in found.values())
    print(f"{killed} of {len(found)} killed ({killed / max(1, len(found)):.0%})")
    print(*(f"{end}: {name}" for name, end in found.items() if end != "killed"), sep="\n")
    sys.exit(killed < LEAST_KILLED * len(found))


def _not_source(folder: str, names: list[str]) -> set[str]:
    """What a copy of the tree can do without."""
    return {"__pycache__", *({".git", ".venv", "runs"} if Path(folder) == ROOT else ())} & set(names)


def _tried(mutant: Mutant, tree: Path, limit: float, out: Path) -> str:
    """How one mutant ended: killed, survived, out of time, or why its tests did not run."""
    file = tree / "safekey_interp" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        return f"its text is there {text.count(mutant.old)} times, expected once"
    file.write_text(text.replace(mutant.old, mutant.new))
    began = time.monotonic()
    status = _tested(tree, mutant.tests.split(), limit, out, stops=True)
    file.write_text(text)
    end = _KINDS.get(status, "out of time" if status == -signal.SIGKILL else f"pytest ended with {status}")
    first = next((line for line in out.read_text(errors="replace").splitlines() if line.startswith("FAILED")), "")
    print(f"{mutant.name}: {end}, {time.monotonic() - began:.0f} s {first[:110]}", flush=True)
    return end


def _load_libraries() -> None:
    """What every test imports and no mutant changes, once for all."""
    for name in (
        *(
            "torch._dynamo",
            "transformers.models.llama.modeling_llama",
            "sklearn.linear_model",
            "sklearn.model_selection",
        ),
        *("sklearn.feature_extraction.text", "sklearn.decomposition", "scipy.stats", "pandas", "pyarrow.parquet"),
        *("pytest", "hypothesis", "einops", "jaxtyping", "pydantic", "regex"),
    ):
        import_module(name)


def _tested(tree: Path, tests: list[str], limit: float, out: Path, *, stops: bool) -> int:
    """Exit status of pytest on some tests of a tree, in a fork; -9 when it was stopped."""
    pid = os.fork()
    if not pid:
        status = 3
        try:
            if stops:
                stream = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(stream, 1)
                os.dup2(stream, 2)
            os.chdir(tree)
            sys.path[:] = [str(tree), *(place for place in sys.path if Path(place or ".").resolve() != ROOT)]
            os.environ["PYTHONPATH"] = str(tree)
            sys.dont_write_bytecode = True
            import pytest

            options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", *(["-x"] if stops else [])]
            status = int(pytest.main([*options, *(f"tests/{test}" for test in tests)]))
        finally:
            sys.stdout.flush()
            os._exit(status)
    began = time.monotonic()
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() - began > limit:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


main()
