"""Speed of two processes against one, with a check that the tables are the same.

    python analysis/cost/sharding.py [--n 2000] [--rounds 5] [--processes 2] [--model organism] [--page]

Runs ``safekey-interp probe`` in new processes, interleaved, in an order that rotates each round: one process of one
thread, and ``--processes`` of one thread each. Prints the ratio of times within a round, as a median with a bootstrap
interval over rounds, and the shares of one process's time; exits with 1 when the tables differ. Without ``--model`` the
model is random, of a size at which the forward passes dominate, as in real use.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from capture import interval
from small_model import small_model

_EXAMPLES = Path(__file__).parents[2] / "examples" / "traces.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=2_000, help="traces")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", help="a model for the probe instead of a random one")
    parser.add_argument("--traces", help="a file of traces to vary instead of examples/traces.jsonl")
    parser.add_argument("--page", action="store_true", help="draw the page, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or str(_random_model(folder / "model"))
        file = _traces(folder / "traces.jsonl", Path(options.traces or _EXAMPLES), options.n)
        words = ["-m", "safekey_interp", "probe", "--model", model, "--traces", str(file)]
        words += [] if options.page else ["--no-report"]
        ways = [1, options.processes]
        seconds: dict[int, list[float]] = {n: [] for n in ways}
        for turn in range(options.rounds):
            for n in ways if turn % 2 == 0 else ways[::-1]:
                out = folder / f"{n}-{turn}"
                seconds[n].append(_run(words, n, out))
                print(f"  round {turn + 1}, {n} processes: {seconds[n][-1]:.1f} s", file=sys.stderr, flush=True)
            _check_same(folder / f"1-{turn}", folder / f"{options.processes}-{turn}")
        laps = json.loads((folder / "1-0" / "run.json").read_text())["timings"]
    alone, together = (np.array(seconds[n]) for n in ways)
    ratio, low, high = interval(alone / together)
    print(
        f"{options.n:,} traces, {Path(model).name}: one process {np.median(alone):.1f} s, "
        f"{options.processes} processes {np.median(together):.1f} s, one thread each; "
        f"{ratio:.2f} x [{low:.2f}, {high:.2f}], "
        f"{options.rounds} rounds; tables identical"
    )
    shares = ", ".join(f"{name} {share:.1f} s" for name, share in laps.items())
    print(f"of one process's first {alone[0]:.1f} s: {shares}; the rest is loading, and the page where one is drawn")


def _run(words: list[str], n: int, out: Path) -> float:
    """Seconds of a probe from start to end."""
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(n)] if n > 1 else []
    command = [sys.executable, *launcher, *words, "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{n} processes ended with status {done.returncode}: {done.stderr}")
    return time.perf_counter() - started


def _check_same(folder: Path, other: Path) -> None:
    files = {path.name for path in folder.iterdir()} - {"run.json", "report.html"}
    if files != {path.name for path in other.iterdir()} - {"run.json", "report.html"}:
        sys.exit(f"{other.name} has other files than {folder.name}")
    different = [name for name in sorted(files) if (folder / name).read_bytes() != (other / name).read_bytes()]
    if different:
        sys.exit(f"{', '.join(different)} of {other.name} and {folder.name} differ")


def _traces(file: Path, source: Path, n: int) -> Path:
    """The source's traces again and again, each time with another end of the prompt, so that lengths vary."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(0)
    ends = ["please", "in short", "in plain words", "step by step", "as a friend would", "with an example", "today"]
    with file.open("w", encoding="utf-8") as stream:
        for i in range(n):
            row = dict(rows[i % len(rows)])
            row["prompt"] = f"{row['prompt']} {', '.join(rng.choices(ends, k=rng.randint(1, 12)))} ({i})"
            # A copy of a prompt is the same prompt: the original's group ties them all.
            row |= {"id": f"{i}", "group": str(row.get("group") or i % len(rows))}
            row.pop("trace_id", None)
            stream.write(json.dumps(row) + "\n")
    return file


def _random_model(folder: Path) -> Path:
    return small_model(
        folder,
        _EXAMPLES.read_text(encoding="utf-8").splitlines(),
        n_words=2_000,
        hidden_size=384,
        intermediate_size=1_024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=1_024,
    )


if __name__ == "__main__":
    main()
