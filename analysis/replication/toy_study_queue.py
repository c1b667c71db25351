"""Queue of the study over many toys: bases and cells, the planned look, and cells run again.

Bases up to the look are pre-trained, then their cells are run, base by base; then the look, written to ``look.json``,
ends the queue or lets it go on with the other bases. What is there is not done again, so a killed queue resumes.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.replication.toy_study_design import BASES, LOOK
from analysis.replication.toy_study_job import Cell, base_folder, is_done, make_base, run
from analysis.replication.toy_study_results import cells_of, gather
from analysis.replication.toy_study_verdicts import is_settled, stage_of
from safekey_interp.runs.storage import read_json, sha256_of, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Workers:
    """Processes of one thread each."""

    pool: ProcessPoolExecutor

    def do(self, what: str, task: Callable[..., object], jobs: Sequence[Sequence[Any]]) -> None:
        """Run a task on each job's arguments, saying how far it is.

        Raises:
            Exception: what a job raised; the others that run are finished.
        """
        waiting: dict[Future[object], Sequence[Any]] = {self.pool.submit(task, *job): job for job in jobs}
        began = time.perf_counter()
        for number, finished in enumerate(as_completed(waiting), 1):
            finished.result()
            seconds = time.perf_counter() - began
            rest = seconds / number * (len(waiting) - number)
            name = getattr(waiting[finished][0], "name", waiting[finished][0])
            print(f"{number} of {len(waiting)} {what}: {name}, {seconds:.0f} s, {rest:.0f} s remaining", flush=True)


@contextmanager
def workers(n: int) -> Iterator[Workers]:
    """Processes for a queue."""
    with ProcessPoolExecutor(n, mp_context=get_context("spawn"), initializer=_begin) as pool:
        yield Workers(pool)


def _begin() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def work_off(folder: Path, processes: int) -> None:
    """Do what is not done yet, up to the end or to what the look says."""
    with workers(processes) as some:
        for bases in (BASES[:LOOK], BASES[LOOK:]):
            some.do("bases", make_base, [(base, folder) for base in bases if not base_folder(base, folder).is_dir()])
            cells = cells_of(bases)
            left = [cell for cell in cells if not is_done(cell, folder)]
            print(f"{len(cells) - len(left)} of {len(cells)} cells are done", flush=True)
            some.do("cells", run, [(cell, folder) for cell in left])
            results = gather(folder).of(BASES[:LOOK])
            settled = is_settled(results)
            write_json(folder / "look.json", {"stage": stage_of(results.bases).name, "settled": settled})
            if settled:
                print("the planned look: no contrast is open, so no further base is run", flush=True)
                return


def same_again(folder: Path, n: int, seed: int, processes: int) -> dict[str, bool]:
    """Run random cells again, in a folder of their own.

    Args:
        folder: of the queue.
        n: how many of the cells that are done.
        seed: of the draw.
        processes: at once.

    Returns:
        Whether weights, answers and measurements are the same to the bit, by the cell's name.
    """
    done = [cell for cell in cells_of() if (folder / "cells" / cell.name).is_dir()]
    drawn = random.Random(seed).sample(done, min(n, len(done)))
    again = folder / "again"
    for cell in drawn:
        shutil.copytree(base_folder(cell.base, folder), base_folder(cell.base, again), dirs_exist_ok=True)
    with workers(processes) as some:
        some.do("cells again", run, [(cell, again) for cell in drawn])
    return {cell.name: _bits(cell, folder) == _bits(cell, again) for cell in drawn}


def _bits(cell: Cell, folder: Path) -> tuple[Any, ...]:
    where = folder / "cells" / cell.name
    record = read_json(where / "cell.json") or {}
    kept = ("identity", "mechanism", "weights_sha256")
    return (sha256_of(where / "requests.parquet"), *(record.get(name) for name in kept))
