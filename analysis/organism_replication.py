"""Does what one trained organism shows hold over seeds, bases and wrappers?

    python -m analysis.organism_replication [--out runs/replication] [--processes 2] [--part 1 | 2] [--write]

A queue of jobs, two at a time: each fine-tunes a base and asks it, then its mechanism is measured
(:mod:`analysis.replication_job`), as :mod:`analysis.replication_design` says, which was written before the first run.
A job that is done is not done again, so a killed queue resumes; ``--train-only`` leaves the measurements for later.
Then the tables; ``--write`` puts them into RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from analysis.replication_design import BASES, CONTRASTS, MORE, MORE_CONTRASTS, SEEDS, SWAPPED, VARIANTS
from analysis.replication_job import Job, is_done, is_measured, make_base, measure, run
from analysis.replication_tables import by_wrapper, contrasts, mechanism, outcomes, read_answers, read_mechanism
from analysis.tables import markdown, publish


def jobs_of(part: int) -> list[Job]:
    """The cells of a part, seeds outermost: a queue that is cut short has whole seeds."""
    first = [Job(variant, base, seed) for seed in SEEDS for base in BASES for variant in VARIANTS]
    if part == 1:
        return first
    more = [Job(variant, base, seed) for seed in SEEDS for base in BASES for variant in MORE]
    return more + [Job(variant, base, seed, swapped=True) for seed in SEEDS for base in BASES for variant in SWAPPED]


def work_off(jobs: Sequence[Job], folder: Path, processes: int, *, train_only: bool = False) -> None:
    """Do what is not done yet."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin) as pool:
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


def _begin() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def tables(folder: Path, part: int) -> dict[str, str]:
    """Tables over the whole seeds that are done."""
    first = _whole(jobs_of(1), folder)
    if part == 1:
        answers = read_answers(first, folder)
        return {
            "replication-outcomes": f"{_n(first)}\n\n{markdown(outcomes(answers))}",
            "replication-contrasts": markdown(contrasts(answers, CONTRASTS)),
            "replication-wrappers": markdown(by_wrapper(answers)),
            "replication-mechanism": markdown(mechanism(read_mechanism(first, folder))),
        }
    second = jobs_of(2)
    more = _whole([job for job in second if not job.swapped], folder)
    seeds = {job.seed for job in more}
    known = [job for job in first if job.seed in seeds]
    swapped = _whole([job for job in second if job.swapped], folder)
    found = {}
    if more:
        answers = read_answers([*known, *more], folder)
        found["replication-more"] = f"{_n(more)}\n\n{markdown(outcomes(answers))}"
        found["replication-more-contrasts"] = markdown(contrasts(answers, MORE_CONTRASTS))
    if swapped:
        answers = read_answers(swapped, folder)
        found["replication-swapped"] = f"{_n(swapped)}\n\n{markdown(outcomes(answers))}"
        found["replication-swapped-contrasts"] = markdown(contrasts(answers, CONTRASTS[:-1]))
    return found


def _whole(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Jobs of the seeds of which every cell is done."""
    missing = {job.seed for job in jobs if not (is_done(job, folder) and is_measured(job, folder))}
    return [job for job in jobs if job.seed not in missing]


def _n(jobs: Sequence[Job]) -> str:
    n_seeds, n_bases = len({job.seed for job in jobs}), len({job.base for job in jobs})
    what = "mean [95 % interval over bases, seeds and wrappers] (n)"
    return f"{len(jobs)} runs: {n_seeds} seeds on each of {n_bases} bases; {what}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("runs/replication"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--part", type=int, choices=[1, 2], default=1)
    parser.add_argument(
        "--train-only", action="store_true", help="train and ask; measure the mechanism in a later call"
    )
    parser.add_argument("--tables", action="store_true", help="only the tables of what is done")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md, too")
    options = parser.parse_args()
    if not options.tables:
        work_off(jobs_of(options.part), options.out, options.processes, train_only=options.train_only)
        if options.train_only:
            return
    publish(tables(options.out, options.part), write=options.write)


if __name__ == "__main__":
    main()
