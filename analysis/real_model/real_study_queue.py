"""Queue of the study of a trained SmolLM2: its cells by shares, their cost before the start, and cells run again.

A process takes every n-th cell. What is there is not done again, so a killed queue resumes, within a training from its
last checkpoint; several processes share a folder when each has its own share. Runs that ship (``--save``) are done,
too: a queue in a new clone goes on behind them. One thread a process, so that results are the same to the bit.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import ANSWER_LIMIT, EPOCHS, GRID, N_TRACES
from analysis.real_model.real_study_job import (
    AT_ONCE,
    answered,
    attention,
    cells,
    is_done,
    log_odds,
    read_alike,
    record_of,
    run,
)
from analysis.real_model.real_study_openings import opened
from analysis.real_model.real_study_results import known_records, primary_outcomes
from analysis.smollm2.data import FIXED_KEY
from analysis.study_queue import Again, Rerun, Share, same_again, timed
from analysis.tables import markdown
from safekey_interp.models.model import Model

_HELD_OUT = 0.1
_ROWS, _SOME, _TIMES = 8, 8, 4
"""Traces of a training pass, requests of the other passes, and training passes of either precision, interleaved."""


class PassSeconds(NamedTuple):
    """Seconds of the processor that parts of a cell take, measured on a few of their inputs."""

    trace: float
    """Forward and backward pass of a training trace, and its part of the optimizer's step."""
    answer: float
    """A greedy answer of the longest kind, in a whole batch, whose size decides."""
    odds: float
    """A request behind which the bank is scored."""
    reading: float
    """A trace whose attention and states are read."""
    half: float
    """Time of a training pass with matrix products in bfloat16, as a share of that in float32."""

    def cell(self, study: Study) -> dict[str, float]:
        """Minutes of each part of a cell on one core."""
        asked = study.prompts.tests
        wrapped = [trace for trace in asked if trace.source == "wrapped"]
        return {
            "training": 2 * N_TRACES * (1 - _HELD_OUT) * EPOCHS * self.trace / 60,
            "answers": len(asked) * self.answer / 60,
            "log-odds": len(wrapped) * self.odds / 60,
            # The attention of harmful wrapped ones, a third of them, and the states of all.
            "attention and probes": 4 / 3 * len(read_alike(asked)) * self.reading / 60,
        }


def measured_passes(model: Model, study: Study) -> PassSeconds:
    """Measure them on traces and requests of the study; a few minutes."""
    import torch

    wrapped = [trace for trace in study.prompts.tests if trace.source == "wrapped"]
    asked, batch = wrapped[:_SOME], wrapped[:AT_ONCE]
    rows = random.Random(0).sample(study.traces(GRID[0]), _ROWS)
    tokens = [model.encode(trace).input_ids for trace in rows]
    encoded = model.tokenizer.pad({"input_ids": tokens}, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.hf.parameters(), lr=1e-9)

    def seconds(do: object) -> float:
        begin = time.process_time()
        do()  # type: ignore[operator]
        return time.process_time() - begin

    def passes(half: bool = True) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.hf(**encoded, labels=encoded["input_ids"]).loss
        loss.backward()

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    passes()
    step()
    halves, wholes = zip(*((seconds(passes), seconds(lambda: passes(half=False))) for _ in range(_TIMES)), strict=True)
    trace = statistics.median(halves) / _ROWS + seconds(step) / 16
    return PassSeconds(
        trace,
        seconds(lambda: answered(model, batch)) / len(batch),
        seconds(lambda: log_odds(model, asked)) / len(asked),
        seconds(lambda: attention(model, [opened(trace, FIXED_KEY) for trace in asked])) / len(asked),
        statistics.median(half / whole for half, whole in zip(halves, wholes, strict=True)),
    )


def cost(study: Study) -> str:
    """What the design costs on this machine, as Markdown: measured passes times their number."""
    measured = measured_passes(study.base(), study)
    parts = measured.cell(study)
    n, whole = len(cells()), sum(parts.values())
    table = pd.DataFrame([{"part": name, "minutes of a core": f"{value:.1f}"} for name, value in parts.items()])
    pilot = (parts["training"] + parts["answers"] * len(study.prompts.development) / len(study.prompts.tests)) / 60
    said = (
        f"A cell: {whole:.0f} minutes of a core; {n} cells: {n * whole / 60:.1f} hours of a core, half of it on two. "
        f"A setting of the pilot: {pilot:.1f} hours of a core; at least one, at most {len(GRID)}, and three or four "
        f"runs more for the control's dose. An answer is taken to have {ANSWER_LIMIT} tokens; auxiliary losses add "
        f"about a tenth. A training pass in bfloat16 takes {measured.half:.2f} of float32's time (median of {_TIMES})."
    )
    return f"{markdown(table)}\n\n{said}"


def work_off(study: Study, share: Share) -> None:
    """Do what is not done yet of a share."""
    mine, known = cells()[share.number - 1 :: share.of], known_records(study)
    left = [cell for cell in mine if cell not in known]
    print(f"{len(mine) - len(left)} of {len(mine)} cells of share {share.number}/{share.of} are done", flush=True)
    if left:
        minutes = sum(measured_passes(study.base(), study).cell(study).values())
        print(f"estimate: {minutes:.0f} minutes of a core a cell, {len(left) * minutes / 60:.1f} hours", flush=True)
    seconds = []
    for number, cell in enumerate(left, 1):
        seconds.append(timed(cell.name, lambda cell=cell: run(cell, study)))
        hours = sum(seconds) / number * (len(left) - number) / 3600
        print(f"{number} of {len(left)} cells, about {hours:.1f} hours left", flush=True)


def again(study: Study, n: int, seed: int) -> Iterable[Again]:
    """Run random cells that are done again, in a folder of the draw, where a killed command goes on; arguments and
    result as for :func:`analysis.study_queue.same_again`."""
    other, known = study.beside(f"again-{seed}"), known_records(study)

    def run_again(cell: object) -> None:
        if not is_done(cell, other):  # type: ignore[arg-type]
            run(cell, other)  # type: ignore[arg-type]

    def both(cell: object) -> tuple[Any, Any]:
        second = record_of(cell, other)  # type: ignore[arg-type]
        return known[cell].bits, second and second.bits  # type: ignore[index]

    def outcomes(cell: object) -> Any:
        return tuple(primary_outcomes(cell, where) for where in (study, other))  # type: ignore[arg-type]

    return same_again(
        {cell: record.processor for cell, record in known.items()}, n, seed, Rerun(run_again, both, outcomes)
    )
