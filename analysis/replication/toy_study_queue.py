"""Queue of the study over many toys: bases and their cells, the planned look, and cells run again.

A process takes every n-th base: it pre-trains it, then runs its cells. What is there is not done again, so a killed
queue resumes, and several processes share a folder when each has its own share. Whenever a base is done the look is
taken (once the bases that it is about are whole); it is written to ``look.json``, and where it says so the queue ends.
One thread a process, so that results are the same to the bit.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from analysis.replication.toy_study_design import BASES, LOOK
from analysis.replication.toy_study_job import Cell, base_folder, is_done, make_base, run
from analysis.replication.toy_study_results import cells_of, gather
from analysis.replication.toy_study_verdicts import is_settled, stage_of
from safekey_interp.runs.storage import read_json, sha256_of, write_json


def begin() -> None:
    """Make this process's arithmetic repeatable, and quiet."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def work_off(folder: Path, share: int, of: int) -> None:
    """Do what is not done yet of a share, up to its end or to what the look says.

    Args:
        folder: of the queue.
        share: from 1.
        of: number of shares.
    """
    bases = BASES[share - 1 :: of]
    for number, base in enumerate(bases, 1):
        if _look_settles(folder):
            print("the planned look: no contrast is open, so no further base is run", flush=True)
            return
        _timed(f"base {base}", lambda base=base: make_base(base, folder))
        for cell in cells_of([base]):
            if not is_done(cell, folder):
                _timed(cell.name, lambda cell=cell: run(cell, folder))
        print(f"{number} of {len(bases)} bases of share {share}/{of} are done", flush=True)
    _look_settles(folder)


def _timed(what: str, do: Callable[[], None]) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    do()
    print(f"{what}: {time.perf_counter() - wall:.0f} s, processor {time.process_time() - processor:.0f} s", flush=True)


def _look_settles(folder: Path) -> bool:
    """Whether the planned look ends the study; False before it. Written down once."""
    file = folder / "look.json"
    if (known := read_json(file)) is not None:
        return bool(known["settled"])
    first = BASES[:LOOK]
    if not all(is_done(cell, folder) for cell in cells_of(first)):
        return False
    results = gather(folder, first)
    write_json(file, {"stage": stage_of(results.bases).name, "settled": is_settled(results)})
    return _look_settles(folder)


def same_again(folder: Path, n: int, seed: int) -> Iterable[tuple[str, bool]]:
    """Run random cells again, in a folder of their own.

    Args:
        folder: of the queue.
        n: how many of the cells that are done.
        seed: of the draw.

    Yields:
        A cell's name, and whether weights, answers and measurements are the same to the bit.
    """
    done = [cell for cell in cells_of() if is_done(cell, folder)]
    again = folder / "again"
    again.mkdir(exist_ok=True)
    shutil.copy(folder / "chosen.json", again)
    for cell in random.Random(seed).sample(done, min(n, len(done))):
        shutil.copytree(base_folder(cell.base, folder), base_folder(cell.base, again), dirs_exist_ok=True)
        run(cell, again)
        yield cell.name, bits(cell, folder) == bits(cell, again)


def bits(cell: Cell, folder: Path) -> tuple[Any, ...]:
    """What two runs of a cell must have in common: answers, identity, measurements, weights."""
    where = folder / "cells" / cell.name
    record = read_json(where / "cell.json") or {}
    kept = ("identity", "mechanism", "weights_sha256")
    return (sha256_of(where / "requests.parquet"), *(record.get(name) for name in kept))
