"""False and true positive rates of the statement "more than chance" on planted nulls and effects.

    python -m analysis.validation.planted_controls [--runs 200] [--only NAME …] [--out FOLDER] [--processes 2] [--write]

Requirements at a level of .05: a false positive rate of at most 7 % in 200 runs on a planted null (5 % plus one and a
half standard errors), and detection of a planted effect in at least 90 %. Experiments:
:mod:`analysis.validation.planted_experiments`. A quarter as many runs have a planted effect. Each run is one line of a
JSON file in ``--out``, so that a killed script resumes; ``--write`` puts the table into RESULTS.md, where with
``--only`` the rows of other experiments stay.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from scipy.stats import binomtest

from analysis.tables import markdown, publish
from analysis.validation.planted_experiments import EXPERIMENTS

MOST_FALSE, LEAST_FOUND = 0.07, 0.9
SECONDS = {"direction-stages": 9.0}
"""Of processor time a run, about; half a second where none is named."""


class Run(NamedTuple):
    """One run of one experiment."""

    name: str
    """The experiment's."""
    planted: bool
    """Whether an effect is planted."""
    number: int
    """From 0, the seed."""


def wanted(names: Sequence[str], runs: int) -> list[Run]:
    """All runs, experiments in turn, so that a stopped script knows of each; effects in every fourth."""
    return [
        Run(name, planted, number // 4 if planted else number)
        for number in range(runs)
        for name in names
        for planted in ((False, True) if number % 4 == 0 else (False,))
    ]


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """The stored runs; a line that was cut off is none."""
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def once(run: Run) -> dict[str, Any]:
    """Make one run."""
    torch.set_num_threads(1)
    start = time.process_time()
    verdicts = EXPERIMENTS[run.name].run(run.number, run.planted)
    return run._asdict() | {"verdicts": verdicts, "seconds": round(time.process_time() - start, 3)}


def measure(names: Sequence[str], runs: int, out: Path, processes: int = 1) -> pd.DataFrame:
    """Make the runs that are not stored yet.

    Args:
        names: experiments.
        runs: with a null of each; a quarter as many, rounded up, with an effect.
        out: folder of the stored runs, made when missing.
        processes: side by side.

    Returns:
        A row per stored run of these experiments, of a larger ``runs`` too, and statement: name, planted, number,
        statement, shown (None where it says nothing).
    """
    out.mkdir(parents=True, exist_ok=True)
    for file in out.glob("*.jsonl"):
        if not file.read_bytes().endswith(b"\n"):  # cut off in a line: the next begins a new one
            with file.open("a", encoding="utf-8") as cut:
                cut.write("\n")
    plan = wanted(names, runs)
    known = {Run(record["name"], record["planted"], record["number"]) for record in measured(out)}
    left = [run for run in plan if run not in known]
    cost = sum(SECONDS.get(run.name, 0.5) for run in left) / 60
    print(f"{len(left):,} of {len(plan):,} runs to make, about {cost:.0f} minutes of processor time", flush=True)
    start = time.monotonic()
    for done, record in enumerate(_made(left, processes), start=1):
        with (out / f"{record['name']}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if done % 20 == 0 or done == len(left):
            remaining = (time.monotonic() - start) / done * (len(left) - done) / 60
            print(f"{done:,} of {len(left):,} runs, {remaining:.0f} min left ({record['name']})", flush=True)
    rows = [
        {
            "name": record["name"],
            "planted": record["planted"],
            "number": record["number"],
            "statement": text,
            "shown": shown,
        }
        for record in measured(out)
        if record["name"] in names
        for text, shown in record["verdicts"].items()
    ]
    return pd.DataFrame(rows).drop_duplicates(["name", "planted", "number", "statement"])


def _made(runs: Sequence[Run], processes: int) -> Iterator[dict[str, Any]]:
    if processes < 2 or len(runs) < 2:
        yield from map(once, runs)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(once, run) for run in runs]):
            yield future.result()


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a statement: how often it was false on the null, and found the effect, with exact 95 % intervals."""
    table = []
    for statement, part in rows.groupby("statement", sort=False):
        about = EXPERIMENTS[part["name"].iloc[0]]
        null, effect = (part.loc[part["planted"] == planted, "shown"] for planted in (False, True))
        false, found = share(null), share(effect)
        held = _rate(null) <= MOST_FALSE and (effect.empty or _rate(effect) >= LEAST_FOUND)
        table.append(
            {
                "statement": statement,
                "planted null": about.null,
                "false": false,
                "planted effect": about.effect if len(effect) else "n/a",
                "found": found,
                "bar": "met" if held else "missed",
            }
        )
    return pd.DataFrame(table)


def share(shown: Any) -> str:
    """``.045 [.02, .08] (9 of 200)``; runs in which nothing is said count as not shown, and are named."""
    if shown.empty:
        return "n/a"
    n, k = len(shown), int(shown.eq(True).sum())
    low, high = binomtest(k, n).proportion_ci()
    silent = int(shown.isna().sum())
    return f"{k / n:.3f} [{low:.2f}, {high:.2f}] ({k} of {n}{f', {silent} without interval' if silent else ''})"


def _rate(shown: Any) -> float:
    return float(shown.eq(True).mean()) if len(shown) else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and with ``--write`` publish it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--out", type=Path, default=Path("runs/planted_controls"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    rows = measure(options.only, options.runs, options.out, options.processes)
    is_part = set(options.only) < set(EXPERIMENTS)
    publish({"planted-controls": markdown(tabulate(rows))}, write=options.write, is_part=is_part)


if __name__ == "__main__":
    main()
