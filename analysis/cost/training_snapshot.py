"""Time of one snapshot during training, as a ratio to that of an earlier commit.

    python analysis/cost/training_snapshot.py --before REVISION [--model organism] [--n 64] [--repeats 9]

Two processes, one with the package of this tree and one with that of the revision (in a git worktree of its own, which
is removed at the end), take snapshots of the same model on the same traces in turn. Ratios are taken within a round,
and their median has a bootstrap interval. ``first`` includes the preparation of the traces, which later snapshots of a
run share. Exits with 1 when the tables differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from timing import interval

_ROOT = Path(__file__).parents[2]
_CHILD = """
import json, sys, time
from itertools import islice
from pathlib import Path
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.models.model import load
from safekey_interp.models.organism import TRACES
from safekey_interp.training import probe_snapshots

spec, n, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
model, traces, step = load(spec), [], 0
for label in ("harmful", "benign"):
    traces += islice((trace for trace in read_traces(TRACES) if trace.label == label), n // 2)

def prepared():
    if hasattr(probe_snapshots, "Snapshots"):
        return probe_snapshots.Snapshots(model, traces).take
    return lambda folder, step: probe_snapshots.watch(model, traces, folder, step=step)

take = prepared()
take(folder, step)
for line in sys.stdin:
    step += 1
    began = time.perf_counter()
    if line == "first\\n":
        take = prepared()
    take(folder, step)
    print(json.dumps(time.perf_counter() - began), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--before", required=True, help="revision to compare with")
    parser.add_argument("--model", default="organism")
    parser.add_argument("--n", type=int, default=64, help="traces")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        _git("worktree", "add", "--detach", str(tree), options.before)
        try:
            _compare(options, {"before": tree, "now": _ROOT}, Path(name))
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _compare(options: argparse.Namespace, trees: dict[str, Path], folder: Path) -> None:
    processes = {
        way: subprocess.Popen(
            [sys.executable, "-c", _CHILD, options.model, str(options.n), str(folder / way)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            cwd=tree,
        )
        for way, tree in trees.items()
    }
    try:
        for kind in ("first", "later"):
            seconds: dict[str, list[float]] = {way: [] for way in processes}
            for turn in range(options.repeats):
                for way in list(processes)[:: 1 if turn % 2 else -1]:
                    seconds[way].append(_ask(processes[way], kind))
            before, now = (np.array(seconds[way]) for way in ("before", "now"))
            ratio, low, high = interval(now / before)
            print(
                f"{kind} snapshot, {options.n} traces, {options.model}: {np.median(before):.2f} s before, "
                f"{np.median(now):.2f} s now; {ratio:.2f} x [{low:.2f}, {high:.2f}], {options.repeats} rounds",
                flush=True,
            )
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    files = sorted(path.relative_to(folder / "before") for path in (folder / "before").rglob("*.parquet"))
    differing = [
        str(file) for file in files if (folder / "before" / file).read_bytes() != _bytes(folder / "now" / file)
    ]
    print(f"{len(files)} tables, {len(differing)} of them different")
    sys.exit(1 if differing or not files else 0)


def _ask(process: subprocess.Popen[str], kind: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{kind}\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline()))


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _git(*words: str) -> None:
    subprocess.run(["git", "-C", str(_ROOT), *words], check=True, capture_output=True)


if __name__ == "__main__":
    main()
