"""Queue of the study over many toys: bases and their cells, the planned look, and cells run again.

A process takes every n-th base: it pre-trains it, then runs its cells. What is there is not done again, so a killed
queue resumes, and several processes share a folder when each has its own share. Whenever a base is done the look is
taken (once the bases that it is about are whole); it is written to ``look.json``, and where it says so the queue ends.
Runs that ship (``--save``) are done, too: a queue in a new clone goes on behind them. One thread a process, so that
results are the same to the bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.replication.toy_study_choice import read_chosen
from analysis.replication.toy_study_design import BASES, LOOK
from analysis.replication.toy_study_job import Cell, base_folder, is_done, make_base, record_of, run
from analysis.replication.toy_study_results import (
    begin_with,
    cells_of,
    gather,
    known_records,
    primary_outcomes,
    shipped_records,
)
from analysis.replication.toy_study_verdicts import is_settled, stage_of
from analysis.study_queue import Again, Rerun, same_again, timed
from safekey_interp.runs.storage import read_json, write_json


def work_off(folder: Path, share: int, of: int) -> None:
    """Do what is not done yet of a share, up to its end or to what the look says.

    Args:
        folder: of the queue.
        share: from 1.
        of: number of shares.
    """
    begin_with(folder)
    bases, shipped = BASES[share - 1 :: of], shipped_records(read_chosen(folder / "chosen.json"))
    for number, base in enumerate(bases, 1):
        if all(cell in shipped for cell in cells_of([base])):
            continue
        if _look_settles(folder):
            print("the planned look: no contrast is open, so no further base is run", flush=True)
            return
        timed(f"base {base}", lambda base=base: make_base(base, folder))
        for cell in cells_of([base]):
            if cell not in shipped and not is_done(cell, folder):
                timed(cell.name, lambda cell=cell: run(cell, folder))
        print(f"{number} of {len(bases)} bases of share {share}/{of} are done", flush=True)
    _look_settles(folder)


def _look_settles(folder: Path) -> bool:
    """Whether the planned look ends the study; False before it. Written down once."""
    file = folder / "look.json"
    if (known := read_json(file)) is not None:
        return bool(known["settled"])
    first = BASES[:LOOK]
    if len(known_records(folder, first)) < len(cells_of(first)):
        return False
    results = gather(folder, first)
    write_json(file, {"stage": stage_of(results.bases).name, "settled": is_settled(results)})
    return _look_settles(folder)


def again(folder: Path, n: int, seed: int) -> Iterable[Again]:
    """Run random cells that are done again, in ``again``, those that ship from pre-training on; arguments and result as
    for :func:`analysis.study_queue.same_again`."""
    begin_with(folder)
    known, other = known_records(folder), folder / "again"
    other.mkdir(exist_ok=True)
    shutil.copy(folder / "chosen.json", other)

    def run_again(cell: Cell) -> None:
        where = base_folder(cell.base, folder)
        if where.is_dir():
            shutil.copytree(where, base_folder(cell.base, other), dirs_exist_ok=True)
        make_base(cell.base, other)
        run(cell, other)

    def both(cell: Cell) -> tuple[Any, Any]:
        second = record_of(cell, other)
        return known[cell].bits, second and second.bits

    def outcomes(cell: Cell) -> Any:
        return tuple(primary_outcomes(cell, where) for where in (folder, other))

    return same_again(dict.fromkeys(known, ""), n, seed, Rerun(run_again, both, outcomes))
