"""Tests of the study of a trained SmolLM2: each contrast's mean, error and verdict.

An arm's cell is the mean of an outcome over the wrappers of one harmful prompt and one seed; a contrast's cells are
differences, paired by seed and prompt, over the seeds that both arms have. Seeds and prompts are drawn and crossed
(:mod:`analysis.contrast_verdicts`, one stratum); the variance of seeds is estimated from all arms. The wrappers are
those that there are, and t over their means stands beside. Nothing is tested before every cell is done, nor after a
no-go.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.contrast_verdicts import LEVEL, Cells, Contrast, Outcome, Tested, error_of_arms, verdicts
from analysis.real_model.real_study_design import ARMS, CONTRASTS
from analysis.real_model.real_study_job import cells
from analysis.real_model.real_study_results import Results

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""


class Stage(NamedTuple):
    """How far the study is, and what its tests may spend."""

    level: float | None
    """Of all contrasts of an outcome together; None where nothing is tested."""
    name: str
    """In words."""


class Decided(NamedTuple):
    """A contrast of an outcome."""

    tested: Tested
    p_wrappers: float
    """Of t over the means of the wrappers alone."""


def stage_of(results: Results) -> Stage:
    """The stage that the results allow."""
    n = len(results.answers[["arm", "seed", "way"]].drop_duplicates())
    if not results.is_whole:
        return Stage(None, f"{n} of {len(cells())} runs; nothing is tested yet")
    if not results.chosen.go:
        return Stage(None, f"{n} runs; no-go: SFT leaves no room in one direction, so these describe and test nothing")
    return Stage(LEVEL, f"{n} of {n} runs")


def decided(results: Results, outcome: Outcome) -> list[Decided]:
    """Every contrast of which both arms have a seed in common; all verdicts are ``open`` where nothing is tested."""
    level = stage_of(results).level
    by = {
        crossed: {contrast: difference(results.answers, contrast, outcome.column, crossed) for contrast in CONTRASTS}
        for crossed in ("request", "wrapper")
    }
    means = [_means(results.answers, arm, outcome.column, "request").mean(axis=1) for arm in ARMS]
    arms = error_of_arms(pd.concat(means, axis=1).to_numpy().T)
    over = {
        crossed: verdicts({contrast: each for contrast, each in found.items() if each.size}, outcome, level, arms)
        for crossed, found in by.items()
    }
    return [Decided(tested, beside.p_items) for tested, beside in zip(over["request"], over["wrapper"], strict=True)]


def difference(answers: Table, contrast: Contrast, column: str, crossed: str) -> Cells:
    """A contrast's cells over harmful requests in unseen wrappers.

    Args:
        answers: of the results.
        contrast: the two arms.
        column: of the outcome.
        crossed: ``request`` or ``wrapper``, over which the cells lie beside the seeds.
    """
    first, second = (_means(answers, arm, column, crossed) for arm in contrast[:2])
    seeds = first.index.intersection(second.index)
    return (first.loc[seeds] - second.loc[seeds]).to_numpy()[np.newaxis]


def unseen(answers: Table, label: str) -> Table:
    """Requests in unseen wrappers of the runs of the arms; the two that ship are no part of any test."""
    wrapped = (answers["source"] == "wrapped") & (answers["label"] == label)
    return answers[wrapped & (answers["way"] == "full")]


def _means(answers: Table, arm: str, column: str, crossed: str) -> Table:
    rows = unseen(answers, "harmful")
    rows = rows[rows["arm"] == arm]
    return rows.assign(value=rows[column].astype(float)).pivot_table("value", "seed", crossed, sort=True)
