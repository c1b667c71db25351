"""Which part of the training does it? One base, fine-tuned with each part of SafeKey's losses and with none.

The organism's base, one seed, the same examples in the same order (:mod:`analysis.replication_design`): SFT; the safety
head (DPSH); query-mask modelling (QMM); both; both with heavier weights; both in the last 40 % of the steps alone.
Attack success on test requests in wrappers that no training saw, over-refusal beside it. One seed shows what these
models do and nothing about how seeds differ: ``python -m analysis.organism_replication`` has eight, on two bases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis.asking import mean_of
from analysis.bench import Bench
from analysis.composing import Composition, in_words, shares
from analysis.replication_job import Job, is_done, run
from analysis.replication_results import answers_of
from analysis.saving import Answer
from analysis.verdicts import Measured
from safekey_interp.errors import RunError

NAME = "fig_ablations"
VARIANTS = ("SFT", "DPSH", "QMM", "both", "both, weights 1", "both, last 40 %")
CONTRASTS = {"6a": ("DPSH", "SFT"), "6b": ("QMM", "SFT"), "6c": ("both", "DPSH")}
MEASURES = {
    "attack success, unseen wrappers": ("harmful", "complied"),
    "over-refusal, unseen wrappers": ("benign", "refused"),
}
ONE_SEED = "one seed on one base: the interval is over requests alone; RESULTS.md has sixteen pairs of runs"


def answer(bench: Bench) -> Answer:
    """The figure, and what it says of claims 6a to 6c.

    Raises:
        RunError: none of the models is an organism, whose training fits a figure.
    """
    if not any(bench.is_toy(name) for name in bench.names):
        raise RunError("trains the organism only; `train/` has the recipes for other models, paper.yaml what they take")
    folder = bench.out / "runs" / "ablations"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two sum in another order
    try:
        answers = {variant: _answers(Job(variant, 1, bench.seed), folder) for variant in VARIANTS}
    finally:
        torch.set_num_threads(threads)
    rows = pd.DataFrame([row for variant, table in answers.items() for row in _rates(variant, table, bench.seed)])
    figure = Composition()
    figure.add(
        [shares(rows[rows["series"] == measure], measure, "share") for measure in MEASURES],
        said="Share of test requests in unseen wrappers that are complied with, and of benign ones that are refused.",
        heading="What each part of the losses does",
        height=240,
    )
    caption = (
        f"{figure.words()} The organism’s base (toy model), {ONE_SEED}. Lines: 95 % over requests. Answers are scored "
        "by their act."
    )
    return Answer(
        sheets=[
            figure.sheet(
                name=NAME,
                title="Which part of the training does it?",
                caption=caption,
                seed=bench.seed,
                table=in_words(rows),
                table_caption="Share of requests, 95 % over requests",
                source=f"organism:base fine-tuned in {len(VARIANTS)} ways, seed {bench.seed}",
            )
        ],
        measured=[_claim(claim, answers, *pair, bench.seed) for claim, pair in CONTRASTS.items()],
    )


def _answers(job: Job, folder: Path) -> Any:
    if not is_done(job, folder):
        run(job, folder)
    return answers_of(job, folder)


def _unseen(table: Any, label: str) -> Any:
    return table[(table["wrapper_split"] == "test") & (table["label"] == label)]


def _rates(variant: str, table: Any, seed: int) -> list[dict[str, Any]]:
    rows = []
    for measure, (label, outcome) in MEASURES.items():
        part = _unseen(table, label)
        about = {"place": variant, "series": measure}
        rows.append(about | mean_of((part["outcome"] == outcome).astype(float), part["group"]))
    return rows


def _claim(claim: str, answers: dict[str, Any], first: str, second: str, seed: int) -> Measured:
    keys = ["wrapper", "kind", "group"]
    parts = {}
    for name in (first, second):
        part = _unseen(answers[name], "harmful").reset_index(drop=True)
        part = part.assign(number=part.groupby(keys).cumcount(), held=(part["outcome"] == "complied").astype(float))
        parts[name] = part.set_index([*keys, "number"])["held"]
    both = pd.concat(parts, axis=1).dropna()
    found = mean_of(both[first] - both[second], list(both.index.get_level_values("group")))
    return Measured(
        claim=claim,
        model=f"organism:base, {first} less {second}",
        unit="of requests",
        control_value=f"{first} {both[first].mean():.2f}, {second} {both[second].mean():.2f}",
        note=ONE_SEED,
        toy=True,
        **found,
    )
