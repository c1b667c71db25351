"""Cost of a probe, end to end: against one trace at a time, and in two processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from analysis.cost.bench import Bench
from analysis.cost.entry import Entry, Ways
from analysis.cost.timing import Way
from safekey_interp.models.organism import TRACES

if TYPE_CHECKING:
    from safekey_interp.data.trace import Trace
    from safekey_interp.models.model import Model

_TRACES, _OF_PROCESSES = 8, 300


def one_at_a_time(model: Model, traces: Sequence[Trace]) -> None:
    """The reference's way: each trace whole, eager, all attentions; then the sums over X and U from K's rows."""
    from safekey_interp.segmentation.segmenter import segment

    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        for trace in traces:
            encoding = model.encode(trace, segment(trace))
            ids = encoding.input_ids[None].to(model.device)
            with torch.inference_mode():
                patterns: Any = model.hf(ids, output_attentions=True, use_cache=False).attentions
            rows = list(encoding.positions("key_sentence"))
            for pattern in patterns:
                for span in ("prompt", "understanding"):
                    pattern[0][:, rows][:, :, list(encoding.positions(span))].sum(-1).mean(-1)
    finally:
        model.hf.set_attn_implementation(before)


def _end_to_end(bench: Bench) -> Ways:
    from safekey_interp.measures.attention import measure_attention
    from safekey_interp.segmentation.segmenter import segment

    model = bench.model
    traces = [trace for trace in bench.traces(64) if segment(trace).key_sentence][:_TRACES]

    return Ways(lambda: measure_attention(model, traces), lambda: one_at_a_time(model, traces))


def _in_processes(bench: Bench) -> Ways:
    import pandas  # noqa: F401 (the command needs it)
    import typer  # noqa: F401

    folder = tempfile.TemporaryDirectory(prefix="safekey-cost-")
    number = count()

    def run_with(n: int) -> Way:
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(n)] if n > 1 else []

        def run() -> None:
            out = Path(folder.name) / str(next(number))
            words = ["-m", "safekey_interp", "probe", "--model", "organism", "--traces", str(TRACES)]
            words += ["--limit", str(_OF_PROCESSES), "--out", str(out), "--no-report", "--device", "cpu"]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(
                [sys.executable, *launcher, *words], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{n} processes ended with status {done.returncode}: {done.stderr[-300:]}")

        return run

    return Ways(run_with(2), run_with(1))


ENTRIES = (
    Entry(
        name="probe-attention",
        what=f"attention of {_TRACES} traces, from text to the table",
        baseline="the reference's way: one trace at a time, eager, all attentions, full length",
        ways=_end_to_end,
    ),
    Entry(
        name="two-processes",
        what=f"probe of {_OF_PROCESSES} traces of the organism in two new processes, one thread each, on the CPU",
        baseline="in one process",
        ways=_in_processes,
    ),
)
