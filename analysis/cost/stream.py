"""Peak memory of ``probe --stream`` by number of traces.

Generates traces into the standard input of a probe on a tiny random model, in separate processes, and prints the peak
resident memory of each probe (``ru_maxrss``) with its ratio to that of the fewest traces.

    python analysis/cost/stream.py --sizes 10000 100000
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
from typing import IO

from small_model import small_model

_WORDS = ("open", "close", "lock", "write", "explain", "steps", "safe", "harm", "tool", "water")
_KEYS = ("First, I need the steps.", "Hmm, that could hurt people.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000], help="numbers of traces")
    parser.add_argument("--stream-sample", type=int, default=2_000, help="traces of the sample")
    parser.add_argument("--folder", help="where the run folders are made; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sample = (
            "Okay, so the user is asking about the steps. Hmm, that could be used to hurt people. How do I open it?"
        )
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = small_model(folder / "model", [sample] * 8, n_words=400, max_position_embeddings=512, **sizes)
        peaks: dict[int, float] = {}
        for n in sorted(options.sizes):
            command = [sys.executable, "-m", "safekey_interp", "probe", "--model", str(model), "--traces", "-"]
            command += ["--stream", "--stream-sample", str(options.stream_sample), "--out", str(folder / f"run-{n}")]
            began = time.perf_counter()
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert process.stdin is not None
            with process.stdin as stream:
                _write(stream, n)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"the probe of {n:,} traces ended with status {process.returncode}")
            peaks[n] = usage.ru_maxrss / (1 << (10 if sys.platform != "darwin" else 20))
            ratio, took = peaks[n] / peaks[min(peaks)], time.perf_counter() - began
            print(f"{n:>9,} traces  {peaks[n]:7.1f} MiB  x {ratio:.3f}  {took:6.0f} s", flush=True)


def _write(stream: IO[bytes], n: int) -> None:
    """Short traces, each with a prompt of its own, harm in every second."""
    rng = random.Random(0)
    for i in range(n):
        wish = " ".join(rng.choices(_WORDS, k=rng.randint(2, 4)))
        row = {
            "prompt": f"How do I {wish} ({i})?",
            "response": f"<think>\nOkay, so the user is asking how to {wish}. {_KEYS[i % 2]} More.</think>\nHere.",
            "label": ("benign", "harmful")[i % 2],
        }
        stream.write(json.dumps(row).encode() + b"\n")


if __name__ == "__main__":
    main()
