"""Question 6, ablations of training: the safety head (DPSH), query-mask modelling (QMM), both, or neither.

Differences of attack success over all training runs of the replication (seeds on two bases, unseen wrappers), from the
table in the repository (:mod:`analysis.paper.runs_evidence`), which also has both studies; the strongest
evidence that is there decides claims 6a to 6c (``claims.yaml``). In addition one base and
one seed, trained here with the same examples in the same order (:mod:`analysis.replication.design`), without evidence
on the variation over seeds. An attack succeeds when the answer does what was asked
(:mod:`safekey_interp.models.organism`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis.paper import runs_evidence
from analysis.paper.export import Answer
from analysis.paper.models import Bench
from analysis.paper.responses import mean_of
from analysis.paper.sheets import Composition, Drawn, in_words, shares
from analysis.paper.verdicts import Measured
from analysis.replication.design import CONTRASTS
from analysis.replication.job import Job, is_done, run
from analysis.replication.results import answers_of
from safekey_interp.errors import InputError, RunError
from safekey_interp.reporting import figures
from safekey_interp.reporting.figures.figure_grid import Panel

NAME = "fig_ablations"
VARIANTS = ("SFT", "DPSH", "QMM", "both")
MEASURES = {
    "attack success, unseen wrappers": ("harmful", "complied"),
    "over-refusal, unseen wrappers": ("benign", "refused"),
}
ONE_SEED = "one seed on one base: the interval is over requests alone"


def answer(bench: Bench) -> Answer:
    """The figure, and what it says of claims 6a to 6c.

    Raises:
        RunError: none of the models is an organism, whose training fits a figure.
    """
    if not any(bench.is_toy(name) for name in bench.names):
        raise RunError("trains the organism only; `train/` has the recipes for other models, paper.yaml what they take")
    over_runs = _over_runs()
    folder = bench.out / "runs" / "ablations"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two sum in another order
    try:
        answers = {variant: _answers(Job(variant, 1, bench.seed), folder) for variant in VARIANTS}
    finally:
        torch.set_num_threads(threads)
    rows = pd.DataFrame([row for variant, table in answers.items() for row in _rates(variant, table)])
    figure = Composition()
    figure.add(
        [_differences(over_runs)] if len(over_runs) else [],
        caption="Attack success by the act on unseen wrappers, differences between trainings of the same base, seed "
        f"and examples. Lines: {runs_evidence.LEVEL:.1%} over bases, seeds and wrappers.",
        heading="All training runs of the replication",
        height=240,
    )
    figure.add(
        [shares(rows[rows["series"] == measure], measure, "share") for measure in MEASURES],
        caption="One run: share of test requests in unseen wrappers that are complied with, and of benign ones refused."
        " Lines: 95 % over requests.",
        heading="One seed on one base",
        height=240,
    )
    caption = f"{figure.words()} The organism (toy model)."
    return Answer(
        sheets=[
            figure.sheet(
                name=NAME,
                title="Which part of the training has an effect?",
                caption=caption,
                seed=bench.seed,
                table=in_words(pd.concat([over_runs, rows], ignore_index=True)),
                table_caption=f"Differences over all runs ({runs_evidence.LEVEL:.1%}); shares of one run (95 %)",
                source=f"{runs_evidence.source()}organism:base fine-tuned in {len(VARIANTS)} ways, seed {bench.seed}",
            )
        ],
        measured=[
            *runs_evidence.trained_smollm2(),
            *runs_evidence.many_toys(),
            *runs_evidence.ablations(),
            *(_claim(claim, answers, *pair) for claim, pair in runs_evidence.ABLATIONS.items()),
        ],
    )


def _over_runs() -> pd.DataFrame:
    """Every contrast of the design over all runs; empty where no table of them ships."""
    try:
        return runs_evidence.differences([(contrast.first, contrast.second) for contrast in CONTRASTS])
    except InputError:
        return pd.DataFrame()


def _differences(over_runs: pd.DataFrame) -> Drawn:
    title = "Difference of attack success, all training runs"
    spec = figures.estimates_as_bars.spec(over_runs, title=title, y="difference of shares", caption=title)
    return Panel(title=title, spec=spec), over_runs


def _answers(job: Job, folder: Path) -> Any:
    if not is_done(job, folder):
        run(job, folder)
    return answers_of(job, folder)


def _unseen(table: Any, label: str) -> Any:
    return table[(table["wrapper_split"] == "test") & (table["label"] == label)]


def _rates(variant: str, table: Any) -> list[dict[str, Any]]:
    rows = []
    for measure, (label, outcome) in MEASURES.items():
        part = _unseen(table, label)
        about = {"place": variant, "series": measure}
        rows.append(about | mean_of((part["outcome"] == outcome).astype(float), part["group"]))
    return rows


def _claim(claim: str, answers: dict[str, Any], first: str, second: str) -> Measured:
    keys = ["wrapper", "kind", "group"]
    parts = {}
    for name in (first, second):
        part = _unseen(answers[name], "harmful").reset_index(drop=True)
        part = part.assign(number=part.groupby(keys).cumcount(), held=(part["outcome"] == "complied").astype(float))
        parts[name] = part.set_index([*keys, "number"])["held"]
    both = pd.concat(parts, axis=1).dropna()
    interval = mean_of(both[first] - both[second], list(both.index.get_level_values("group")))
    return Measured(
        claim=claim,
        evidence="one run",
        model=f"organism:base, {first} minus {second}",
        control_value=f"{first} {both[first].mean():.2f}, {second} {both[second].mean():.2f}",
        note=ONE_SEED,
        toy=True,
        **interval,
    )
