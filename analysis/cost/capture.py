"""Time and memory of reading attention and hidden states in the forward pass.

    python analysis/cost/capture.py [--length 2048] [--repeats 9] [--memory-runs 5] [--model smollm2]
    python analysis/cost/capture.py --traces star1.jsonl [--n 300] [--block 30]

One sequence: time and memory of a plain SDPA forward, of the same with rows of K captured, with K, decision and U
captured, with states too, and of eager with ``output_attentions``; each computes only the logits of the last position.
Times are interleaved, ratios are within a round, and their median has a bootstrap interval. Memory is the peak above
the memory before the forward pass, each way in its own process.

With ``--traces``: `measure_attention` end to end against the reference's way (one trace at a time, eager, all
attentions, full length), interleaved in blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from safekey_interp.capture.batches import Batch
from safekey_interp.capture.capture_request import CaptureRequest
from safekey_interp.capture.recording import capture
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import TokenSpan, Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.measures.attention import measure_attention
from safekey_interp.models.encoding import Encoding, TokenSet
from safekey_interp.models.model import Model, load
from safekey_interp.segmentation.segmenter import segment

K_TOKENS, U_TOKENS, HEAD_TOKENS = 30, 100, 25
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Has freed memory go back to the system at once, so that a peak is what was needed and not what was kept."""
WAYS = {
    "plain": "plain forward, SDPA",
    "k": "rows of K",
    "k_decision_u": "rows of K, decision and U",
    "all": "the same, and states",
    "output_attentions": "eager, output_attentions",
}


def encoding(model: Model, length: int, *, with_u: bool) -> Encoding:
    """A sequence of that length that ends with K."""
    ids = torch.randint(100, model.config.vocab_size - 100, (length,), generator=torch.Generator().manual_seed(0))
    k = TokenSpan(length - K_TOKENS, length)
    u = TokenSpan(k.start - U_TOKENS, k.start)
    spans = {
        "prompt": TokenSpan(HEAD_TOKENS, u.start - 10),
        "template": TokenSet((TokenSpan(1, HEAD_TOKENS), TokenSpan(u.start - 10, u.start))),
        "first_token": TokenSpan(0, 1),
        "understanding": u if with_u else None,
        "key_sentence": k,
        "decision": TokenSpan(k.start - 1, k.start) if with_u else None,
    }
    return Encoding(
        trace_id="benchmark",
        text="",
        input_ids=ids,
        offsets=(),
        response_start=u.start,
        spans=MappingProxyType(spans),
        straddling=(),
    )


def forwards(model: Model, length: int) -> dict[str, Callable[[], object]]:
    """Each way as a function without arguments."""
    k_only = Batch.of([encoding(model, length, with_u=False)])
    with_u = Batch.of([encoding(model, length, with_u=True)])
    attention, both = CaptureRequest(states=False), CaptureRequest()

    def plain() -> None:
        model.hf(**k_only.inputs(model.device), logits_to_keep=1)

    def captured(batch: Batch, request: CaptureRequest) -> Callable[[], object]:
        def run() -> None:
            with capture(model, batch, request):
                model.hf(**batch.inputs(model.device), logits_to_keep=1)

        return run

    def eager() -> None:
        before = model.hf.config._attn_implementation
        model.hf.set_attn_implementation("eager")
        try:
            model.hf(**k_only.inputs(model.device), logits_to_keep=1, output_attentions=True)
        finally:
            model.hf.set_attn_implementation(before)

    return {
        "plain": plain,
        "k": captured(k_only, attention),
        "k_decision_u": captured(with_u, attention),
        "all": captured(with_u, both),
        "output_attentions": eager,
    }


def peak_above(run: Callable[[], object]) -> float:
    """MB of resident memory that a call needs at its peak, above what was held before it (Linux)."""

    def status(name: str) -> int:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(name))

    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
        control.write("5")
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def interval(ratios: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Median with a 95 % bootstrap interval."""
    draws = np.random.default_rng(seed).choice(ratios, size=(2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def interleaved(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; the order turns by one place a round, so that none always follows another."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for run in ways.values():
        run()
    for number in range(repeats):
        for way in order:
            start = time.perf_counter()
            ways[way]()
            times[way].append(time.perf_counter() - start)
        order = order[1:] + order[:1]
        print(f"  round {number + 1} of {repeats}", file=sys.stderr, flush=True)
    return times


def one_sequence(spec: str, length: int, repeats: int, *, memory_runs: int) -> None:
    model = load(spec)
    ways = forwards(model, length)
    with torch.inference_mode():
        times = interleaved({way: run for way, run in ways.items() if way != "output_attentions"}, repeats)
        # Gigabytes taken and given back would slow whatever comes next: eager meets one rival alone, in rounds of its
        # own.
        rivals = {way: ways[way] for way in ("k_decision_u", "output_attentions")}
        against_eager = interleaved(rivals, max(3, repeats // 2))
    times["output_attentions"] = against_eager["output_attentions"]
    memory = {
        way: float(
            np.median(
                [
                    json.loads(
                        subprocess.run(
                            [sys.executable, __file__, "--model", spec, "--length", str(length), "--peak-of", way],
                            capture_output=True,
                            text=True,
                            check=True,
                            env=os.environ | RETURNED,
                        ).stdout.splitlines()[-1]
                    )
                    for _ in range(memory_runs)
                ]
            )
        )
        for way in ways
    }
    plain = np.asarray(times["plain"])
    print(f"{model.name}, {length} tokens, {repeats} interleaved rounds, {torch.get_num_threads()} threads")
    print(f"{'way':<28}{'median s':>9}{'x plain':>9}{'95 % interval':>18}{'MB':>8}{'x plain':>9}")
    for way, name in WAYS.items():
        rival = plain if way != "output_attentions" else np.median(plain)
        ratio, low, high = interval(np.asarray(times[way]) / rival)
        print(
            f"{name:<28}{np.median(times[way]):>9.2f}{ratio:>9.3f}{f'{low:.3f} to {high:.3f}':>18}"
            f"{memory[way]:>8.0f}{memory[way] / memory['plain']:>9.3f}"
        )
    slower = np.asarray(against_eager["output_attentions"]) / np.asarray(against_eager["k_decision_u"])
    ratio, low, high = interval(slower)
    leaner = memory["output_attentions"] / memory["k_decision_u"]
    print(
        f"output_attentions against K, decision and U: {ratio:.2f} x the time [{low:.2f}, {high:.2f}], "
        f"{leaner:.1f} x the memory"
    )


def reference_way(model: Model, traces: list[Trace]) -> None:
    """One trace at a time, whole, eager, all attentions; then the sums over U and X from K's rows."""
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        for trace in traces:
            encoding = model.encode(trace, segment(trace))
            attentions: Any = model.hf(encoding.input_ids[None], output_attentions=True, use_cache=False).attentions
            rows = list(encoding.positions("key_sentence"))
            for pattern in attentions:
                for span in ("prompt", "understanding"):
                    pattern[0][:, rows][:, :, list(encoding.positions(span))].sum(-1).mean(-1)
    finally:
        model.hf.set_attn_implementation(before)


def end_to_end(spec: str, file: str, n: int, block: int) -> None:
    model = load(spec)
    limit = model.max_positions or 8192
    usable = (t for t in read_traces(file) if segment(t).key_sentence and len(model.encode(t).input_ids) <= limit)
    traces = list(islice(usable, n))
    ratios = []
    totals = np.zeros(2)
    with torch.inference_mode():
        measure_attention(model, traces[:4])
        for start in range(0, len(traces), block):
            part = traces[start : start + block]
            begin = time.perf_counter()
            measure_attention(model, part)
            middle = time.perf_counter()
            reference_way(model, part)
            seconds = np.array([middle - begin, time.perf_counter() - middle])
            totals += seconds
            ratios.append(seconds[1] / seconds[0])
            print(f"  {start + len(part)} traces: {ratios[-1]:.2f} x", file=sys.stderr, flush=True)
    ratio, low, high = interval(np.asarray(ratios))
    print(
        f"{len(traces)} traces end to end: {totals[0]:.0f} s against {totals[1]:.0f} s the reference's way; "
        f"median of {len(ratios)} blocks {ratio:.2f} x [{low:.2f}, {high:.2f}]"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory-runs", type=int, default=5, help="processes a way; the median counts")
    parser.add_argument("--traces")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--block", type=int, default=30)
    parser.add_argument("--peak-of", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    quiet_libraries()
    if options.peak_of:
        model = load(options.model)
        run = forwards(model, options.length)[options.peak_of]
        with torch.inference_mode():
            forwards(model, 256)[options.peak_of]()
            print(json.dumps(peak_above(run)))
        return
    if options.traces:
        end_to_end(options.model, options.traces, options.n, options.block)
    else:
        one_sequence(options.model, options.length, options.repeats, memory_runs=options.memory_runs)


if __name__ == "__main__":
    main()
