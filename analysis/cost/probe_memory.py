"""Peak memory of a probe by number of traces.

Runs ``safekey-interp probe`` in separate processes on synthetic traces, labelled or not, and prints the peak resident
memory of each (``ru_maxrss``) with its ratio to the smallest. The model is random and small, so that weights do not
dominate the memory; ``--model`` takes another.

    python analysis/cost/probe_memory.py --n 1000 10000
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

from small_model import small_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--n", type=int, nargs="+", default=[1_000, 10_000], help="numbers of traces")
    parser.add_argument("--model", help="a model for the probe instead of a random one")
    parser.add_argument("--no-labels", action="store_true", help="attention alone, no separability")
    parser.add_argument("--layers", help="layers to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or str(_random_model(folder / "model"))
        peaks: dict[int, float] = {}
        for n in sorted(options.n):
            file = _traces(folder / f"{n}.jsonl", n, labels=not options.no_labels)
            command = [sys.executable, "-m", "safekey_interp", "probe", "--model", model, "--traces", str(file)]
            command += ["--out", str(folder / f"run-{n}"), *(["--layers", options.layers] if options.layers else [])]
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"the probe of {n:,} traces ended with status {process.returncode}")
            peaks[n] = usage.ru_maxrss / (1 << (20 if sys.platform != "darwin" else 30))
            ratio = peaks[n] / peaks[min(peaks)]
            print(
                f"{n:>7,} traces  {peaks[n]:6.3f} GiB  x {ratio:.3f}  {time.perf_counter() - started:5.0f} s",
                flush=True,
            )


def _traces(file: Path, n: int, *, labels: bool) -> Path:
    """Traces of a few hundred characters, each with a prompt of its own, harm in every second."""
    rng = random.Random(0)
    words = [
        "open",
        "close",
        "door",
        "lock",
        "story",
        "home",
        "city",
        "write",
        "explain",
        "number",
        "steps",
        "safe",
        "harm",
        "tool",
        "water",
    ]
    with file.open("w", encoding="utf-8") as stream:
        for i in range(n):
            wish = " ".join(rng.choices(words, k=rng.randint(6, 20)))
            response = (
                f"<think>\nOkay, so the user is asking about {wish}. "
                + ("Hmm, that could be used to hurt people. " if i % 2 else "First, I need to think about the steps. ")
                + "Then there is more to say about it. " * 20
                + "</think>\nHere is the answer."
            )
            row = {"prompt": f"How do I {wish} ({i})?", "response": response}
            stream.write(json.dumps(row | ({"label": "harmful" if i % 2 else "benign"} if labels else {})) + "\n")
    return file


def _random_model(folder: Path) -> Path:
    sample = "Okay, so the user is asking about the steps. Hmm, that could be used to hurt people. How do I open it?"
    return small_model(
        folder,
        [sample] * 8,
        n_words=600,
        vocab_size=600,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1_024,
    )


if __name__ == "__main__":
    main()
