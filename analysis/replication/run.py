"""Replication over seeds, bases and wrappers.

    python -m analysis.replication.run [--out runs/replication] [--processes 2] [--part 1 | 2] [--write]
    python -m analysis.replication.run --tables [--part 1 | 2] [--write]

A queue of jobs, two at a time: each fine-tunes a base and asks it, then its mechanism is measured
(:mod:`analysis.replication.job`), as :mod:`analysis.replication.design` says, which was written before the first run.
A job that is done is not done again, so a killed queue resumes; ``--train-only`` leaves the measurements for later.
Then the tables, and with ``--write`` the results by request (:mod:`analysis.replication.results`) and the tables in
RESULTS.md. ``--tables`` reads the results that ship, so that they can be scored and tabulated again without the runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.contrast_verdicts import Contrast
from analysis.replication.design import BASES, CONTRASTS, MORE, MORE_CONTRASTS, SEEDS, SWAPPED, VARIANTS
from analysis.replication.job import Job, is_done, is_measured, make_base, measure, run
from analysis.replication.results import Results, collect, read, save, scored_by
from analysis.replication.tables import by_wrapper, contrasts, mechanism, outcomes, scorings
from analysis.study_queue import begin
from analysis.tables import markdown, publish
from safekey_interp.errors import InputError


def jobs_of(part: int) -> list[Job]:
    """The cells of a part, seeds outermost: a queue that is cut short has whole seeds."""
    first = [Job(variant, base, seed) for seed in SEEDS for base in BASES for variant in VARIANTS]
    if part == 1:
        return first
    more = [Job(variant, base, seed) for seed in SEEDS for base in BASES for variant in MORE]
    return more + [Job(variant, base, seed, swapped=True) for seed in SEEDS for base in BASES for variant in SWAPPED]


def work_off(jobs: Sequence[Job], folder: Path, processes: int, *, train_only: bool = False) -> None:
    """Do what is not done yet."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=begin) as pool:
        for base in as_completed([pool.submit(make_base, base, folder) for base in BASES]):
            base.result()
        steps = [(run, is_done, "trained"), (measure, is_measured, "measured")]
        for do, already, name in steps[:1] if train_only else steps:
            left = [job for job in jobs if not already(job, folder)]
            print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are {name}", flush=True)
            _queue({pool.submit(do, job, folder): job for job in left}, name)


def _queue(waiting: Mapping[Future[None], Job], name: str) -> None:
    """Wait for the jobs, saying how far they are."""
    began = time.perf_counter()
    for number, finished in enumerate(as_completed(waiting), 1):
        finished.result()
        seconds = time.perf_counter() - began
        rest = seconds / number * (len(waiting) - number)
        job = waiting[finished].name
        print(f"{number} of {len(waiting)} {name}: {job}, {seconds:.0f} s, {rest:.0f} s remaining", flush=True)


def gather(part: int, folder: Path) -> Results:
    """Results of the whole seeds of a part that are done, of each design apart."""
    designs = [[job for job in jobs_of(part) if job.swapped == swapped] for swapped in (False, True)]
    return collect([job for design in designs for job in _whole(design, folder)], folder)


def tables(part: int, results: Results, first: Results | None = None) -> dict[str, str]:
    """The tables of a part.

    Args:
        part: 1 or 2.
        found: the part's results.
        first: results of part 1, which part 2 is compared with.

    Raises:
        InputError: no results.
    """
    if not len(results.answers):
        raise InputError(f"part {part}: no seed of which every cell is done, expected one; the command goes on with it")
    if part == 1:
        made = _of_answers("replication", results.answers, CONTRASTS)
        made["replication-wrappers"] = markdown(by_wrapper(results.answers))
        if len(results.mechanism):
            made["replication-mechanism"] = markdown(mechanism(results.mechanism))
        return made
    made = {}
    swapped = results.answers["swapped"]
    if len(more := results.answers[~swapped]):
        if first is None:
            raise InputError("part 2: got no results of part 1, expected them to compare with")
        known = first.answers[first.answers["seed"].isin(more["seed"].unique())]
        made |= _of_answers("replication-more", pd.concat([known, more], ignore_index=True), MORE_CONTRASTS)
    if len(others := results.answers[swapped]):
        made |= _of_answers("replication-swapped", others, CONTRASTS[:-1])
    return made


def _of_answers(name: str, answers: Any, asked: Sequence[Contrast]) -> dict[str, str]:
    """Outcomes, attack success by each scoring, and contrasts."""
    others: dict[str, Any] = {"judge": scored_by(answers, "judge"), "grammar": scored_by(answers, "grammar")}
    return {
        f"{name}-outcomes": f"{_n(answers)}\n\n{markdown(outcomes(answers))}",
        f"{name}-scorings": markdown(scorings({"act": answers} | others)),
        f"{name}-contrasts": markdown(contrasts(answers, asked, others)),
    }


def _whole(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Jobs of the seeds of which every cell is done."""
    missing = {job.seed for job in jobs if not (is_done(job, folder) and is_measured(job, folder))}
    return [job for job in jobs if job.seed not in missing]


def _n(answers: Any) -> str:
    runs = answers[["variant", "base", "seed"]].drop_duplicates()
    n_seeds, n_bases = runs["seed"].nunique(), runs["base"].nunique()
    what = "mean [95 % interval over seeds and wrappers, on these bases; of plain and seen requests over runs] (n)"
    return f"{len(runs)} runs: {n_seeds} seeds on each of {n_bases} bases; answers scored by their act; {what}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("runs/replication"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", type=int, choices=[1, 2], default=1)
    parser.add_argument("--train-only", action="store_true", help="train and ask, and measure no mechanism yet")
    parser.add_argument("--gather", action="store_true", help="run nothing: results of the jobs of --out that are done")
    parser.add_argument("--tables", action="store_true", help="run nothing: tables of the shipped results")
    parser.add_argument("--write", action="store_true", help="ship the results and put the tables into RESULTS.md")
    options = parser.parse_args()
    if not (options.tables or options.gather):
        work_off(jobs_of(options.part), options.out, options.processes, train_only=options.train_only)
    results = read(options.part) if options.tables else gather(options.part, options.out)
    publish(tables(options.part, results, read(1) if options.part == 2 else None), write=options.write)
    if options.write and not options.tables:
        save(results, options.part)


if __name__ == "__main__":
    main()
