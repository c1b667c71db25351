"""Time, forward passes and tokens of three interventions with their default options.

    python analysis/cost/interventions.py [--model smollm2] [--file ../shared/data/star1.jsonl] [--traces 48]
                                          [--measured 48] [--kinds direction knockout patch]

Each is a run of ``intervene`` without options, in a folder of its own that is deleted. The traces are those of the file
whose length up to the end of K is nearest to the median. The two labels go to them by turns, and for ``patch`` each is
the target of a pair with the one before it as the source, since STAR-1 alone has one label and one outcome: what is
measured is time, not the model. Passes are calls of the decoder, tokens their rows times positions, padding included
and what a cache holds left out; both are exact on a busy machine, too. Processor seconds are those of all threads: on a
machine that does nothing else, time is about these by the number of cores. ``--measured N`` runs the first N traces
alone, with as many places confirmed as all would have, and scales the minutes to all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safekey_interp.capture.stream_settings import StreamSettings
from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.experiments.intervene_run import run_intervention
from safekey_interp.generation.likelihood import with_own_sentence
from safekey_interp.interventions.intervention_options import complete_options
from safekey_interp.interventions.intervention_registry import find_intervention
from safekey_interp.interventions.two_stages import n_confirmed
from safekey_interp.models.model import Model, load
from safekey_interp.segmentation.segmenter import segmented

KINDS = ("direction", "knockout", "patch")


@dataclass
class Count:
    """Work of a model."""

    passes: int = 0
    """Calls of the decoder."""
    tokens: int = 0
    """Rows · positions of their inputs."""


@contextmanager
def counted(model: Model) -> Iterator[Count]:
    """A block whose forward passes are counted."""
    count = Count()

    def add(_module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = args[0] if args else options["input_ids"]
        count.passes += 1
        count.tokens += ids.shape[0] * ids.shape[1]

    handle = model.hf.get_decoder().register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield count
    finally:
        handle.remove()


def usual_traces(model: Model, file: str, n: int) -> tuple[list[Trace], float]:
    """The traces of usual length, with labels and outcomes by turns, and the median length of all in tokens."""
    whole = [pair for pair in segmented(read_traces(file)) if pair[1].understanding and pair[1].key_sentence]
    lengths = np.array([len(with_own_sentence(model, trace, found).ids) for trace, found in whole])
    median = float(np.median(lengths))
    chosen = [whole[number][0] for number in np.argsort(np.abs(lengths - median), kind="stable")[:n]]
    return [trace.with_(label=("harmful", "benign")[number % 2]) for number, trace in enumerate(chosen)], median


def in_pairs(traces: list[Trace]) -> list[Trace]:
    """Each trace as the target of the one before it: as many pairs as traces."""
    pairs = []
    for number, trace in enumerate(traces):
        for role, one in (("refused", traces[number - 1]), ("complied", trace)):
            about = {"trace_id": f"{one.trace_id}-{role}", "group": f"request {number}"}
            pairs.append(one.with_(meta={"outcome": role}, **about))
    return pairs


def stages_of(kind: str, model: Model, traces: list[Trace]) -> dict[str, Any]:
    """The option that has as many places confirmed as a run of all these traces confirms by default."""
    intervention = find_intervention(kind)
    if intervention.stages is None:
        return {}
    full = complete_options(intervention, model, {})
    n = n_confirmed(intervention, model, traces, full, StreamSettings(), asked=None)
    return {"exact": True} if n is None else {"confirm": n}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--file", default="../shared/data/star1.jsonl")
    parser.add_argument("--traces", type=int, default=48)
    parser.add_argument("--measured", type=int, help="of these; default: all")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    quiet_libraries()
    model = load(options.model)
    traces, median = usual_traces(model, options.file, options.traces)
    print(
        f"{model.name}, {len(traces)} traces of about {median:.0f} tokens to the end of K, "
        f"{torch.get_num_threads()} threads",
        flush=True,
    )
    heads = f"{'':<12}{'items':>6}{'minutes':>9}{'s an item':>11}{'processor s an item':>21}"
    print(f"{heads}{'passes':>9}{'tokens':>12}{'tokens an item':>16}")
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder, counted(model) as count:
            begun, worked = time.perf_counter(), time.process_time()
            every = in_pairs(traces) if kind == "patch" else traces
            part = every[: options.measured * (len(every) // len(traces))] if options.measured else every
            run = run_intervention(kind, model, part, out=Path(folder) / kind, **stages_of(kind, model, every))
            seconds, effects = time.perf_counter() - begun, run.effects
            processor = time.process_time() - worked
            assert effects is not None
            n = effects["trace_id"].nunique()
        confirm = run.manifest["settings"].get("confirm")
        stages = "one stage" if confirm is None else f"two stages, {confirm} confirmed"
        print(
            f"{kind:<12}{n:>6}{seconds / 60 * len(traces) / n:>9.1f}{seconds / n:>11.1f}{processor / n:>21.1f}"
            f"{count.passes:>9,}{count.tokens:>12,}{count.tokens / n:>16,.0f}  {stages}",
            flush=True,
        )


if __name__ == "__main__":
    main()
