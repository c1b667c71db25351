"""Estimates of cost beside what the runs then took: probe, knockout, direction, patch and responses.

    python analysis/cost/estimates.py [--model organism] [--traces F] [--n 40] [--layers 8] [--n-random 20]
                                      [--max-new-tokens 64] [--only probe,generate]

Each run is estimated and measured back to back, so that a busy machine makes both slow alike. The seconds are those
of the model's work and what is made of it; loading, reading and the page are in neither. The bar: within a factor of
1.5.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import SafekeyError
from safekey_interp.experiments.intervene_run import run_intervention
from safekey_interp.experiments.probe_run import run_probe
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.requests import Request
from safekey_interp.generation.response_run import write_responses
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import TRACES
from safekey_interp.progress import Progress
from safekey_interp.runs.run_folder import Run

BAR = 1.5
"""Most that an estimate may be off, as a factor."""


class Estimating(Progress):
    """Progress that keeps the estimate, counts the passes that follow, and times them."""

    def __init__(self) -> None:
        super().__init__()
        self.cost: Any = None
        self.n_passes, self.began = 0, 0.0

    def stage(self, name: str, total: int | None, passes: float | None = None) -> None:
        pass

    def starts(self, estimate: Callable[[], Any]) -> Any:
        self.cost = estimate()
        self.n_passes, self.began = 0, time.perf_counter()
        return self.cost

    def passed(self, n: int = 1) -> None:
        self.n_passes += n


def runs(model: Model, traces: list[Trace], options: argparse.Namespace) -> dict[str, Callable[[Path, Progress], Any]]:
    """The runs by name; each takes a folder that is not there and a progress."""
    layers, n_random = list(range(min(options.layers, model.n_layers))), options.n_random

    def intervene(kind: str, **chosen: Any) -> Callable[[Path, Progress], Run]:
        return lambda out, tell: run_intervention(kind, model, traces, out=out, progress=tell, **chosen)

    def generate(out: Path, tell: Progress) -> Any:
        requests = [Request(trace=trace.with_(response="", given={}, spans={})) for trace in traces]
        sampling = Sampling(max_new_tokens=options.max_new_tokens)
        return write_responses(
            LocalEngine(model), requests, out=out.with_suffix(".jsonl"), sampling=sampling, progress=tell
        )

    return {
        "probe": lambda out, tell: run_probe(model, traces, out=out, progress=tell),
        "knockout": intervene("knockout", n_random=n_random),
        "direction": intervene("direction", fit_layers=layers, n_random=n_random),
        "patch": intervene("patch", layers=layers),
        "generate": generate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism")
    parser.add_argument("--traces", default=str(TRACES))
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--n-random", type=int, default=20)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    quiet_libraries()
    model = load(options.model)
    # By request, so that there are pairs.
    traces = sorted(read_traces([options.traces]), key=lambda trace: trace.group)[: options.n]
    print(f"{model.name}, {len(traces)} traces\n")
    print("| run | passes, estimated | passes | seconds, estimated | seconds | factor | within the bar |")
    print("|---|---|---|---|---|---|---|")
    for name, run in runs(model, traces, options).items():
        if options.only and name not in options.only.split(","):
            continue
        told = Estimating()
        with tempfile.TemporaryDirectory(prefix="safekey-estimates-") as folder:
            try:
                run(Path(folder) / "run", told)
            except SafekeyError as error:
                print(f"| {name} | {error} |")
                continue
        took = time.perf_counter() - told.began
        factor = max(told.cost.seconds / took, took / told.cost.seconds)
        print(
            f"| {name} | {told.cost.passes:,.0f} | {told.n_passes:,} | {told.cost.seconds:.1f} | {took:.1f} "
            f"| {factor:.2f} | {'yes' if factor <= BAR else 'no'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
