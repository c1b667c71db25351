"""Tests of the study over many toys: each contrast's mean, error and verdict.

An arm's cell is the mean of an outcome over the harmful requests of one unseen wrapper and the seeds of one base; a
contrast's cells are differences, paired by base and wrapper. Bases are drawn within their language, wrappers are drawn
and crossed with all bases, and the two languages are those that there are (:mod:`analysis.contrast_verdicts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis.contrast_verdicts import LEVEL, OPEN, Cells, Outcome, Tested, verdicts
from analysis.replication.toy_study_design import BASES, CONTRASTS, LOOK, LOOK_LEVEL, language_of
from analysis.replication.toy_study_results import Results

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""


class Stage(NamedTuple):
    """How far the study is, and what its tests may spend."""

    bases: tuple[int, ...]
    """That are tested, as many of each language."""
    level: float | None
    """Of all contrasts of an outcome together; None where no test was planned."""
    name: str
    """In words."""


def stage_of(whole: Sequence[int]) -> Stage:
    """The stage that the whole bases allow."""
    if set(BASES) <= set(whole):
        return Stage(BASES, LEVEL - LOOK_LEVEL, f"end: {len(BASES)} of {len(BASES)} bases")
    look = look_of()
    if set(look.bases) <= set(whole):
        return look._replace(name=f"{look.name} ({len(whole)} are done)")
    names = dict.fromkeys(map(language_of, BASES))
    each = [[base for base in whole if language_of(base) == name] for name in names]
    n = min(map(len, each))
    some = tuple(sorted(base for part in each for base in part[:n]))
    return Stage(some, None, f"before the look: {len(whole)} of {len(BASES)} bases; nothing is tested yet")


def look_of() -> Stage:
    """The planned look, whatever else is done."""
    return Stage(BASES[:LOOK], LOOK_LEVEL, f"planned look: the first {LOOK} of {len(BASES)} bases")


def is_over(results: Results) -> bool:
    """Whether the verdicts are the study's: all bases are whole, or the planned look ended it."""
    return set(BASES) <= set(results.bases) or is_settled(results)


def cells_of_arm(answers: Table, arm: str, column: str, bases: Sequence[int]) -> Cells:
    """An arm's cells: harmful requests in unseen wrappers, mean over seeds.

    Args:
        answers: of the results.
        arm: its name.
        column: of the outcome.
        bases: as many of each language.
    """
    rows = answers[(answers["arm"] == arm) & (answers["wrapper_split"] == "test") & (answers["label"] == "harmful")]
    means = rows.assign(value=rows[column].astype(float)).pivot_table("value", "base", "wrapper", sort=True)
    names = dict.fromkeys(map(language_of, BASES))
    return np.stack([means.loc[[base for base in bases if language_of(base) == name]].to_numpy() for name in names])


def decided(results: Results, outcome: Outcome, stage: Stage) -> list[Tested]:
    """Every contrast of an outcome; all verdicts are ``open`` where no test was planned."""
    arms = {arm for contrast in CONTRASTS for arm in contrast[:2]}
    cells = {arm: cells_of_arm(results.answers, arm, outcome.column, stage.bases) for arm in arms}
    return verdicts({c: cells[c.first] - cells[c.second] for c in CONTRASTS}, outcome, stage.level)


def is_settled(results: Results) -> bool:
    """The rule of the planned look: whether no contrast of either outcome is open, so that no further base is run."""
    stage = stage_of(results.bases)
    return stage.level is not None and all(
        row.verdict != OPEN for outcome in results.chosen.outcomes for row in decided(results, outcome, stage)
    )
