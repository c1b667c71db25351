"""Tests of the study over many toys: each contrast's mean, error and verdict.

An arm's cell is the mean of an outcome over the harmful requests of one unseen wrapper and the seeds of one base; a
contrast's cells are differences, paired by base and wrapper. Bases are drawn within their language, wrappers are drawn
and crossed with all bases, and the two languages are those that there are
(:func:`safekey_interp.measures.crossed_intervals.crossed_error`, with languages for bases and bases for seeds).

- *excluded beyond the smallest effect of interest*: two one-sided tests against that effect on either side of 0, Holm's
  procedure over the contrasts; also where the mean differs from 0, since the difference is too small to matter
- *shown*: not excluded, and Student's t of the mean against 0, Holm's procedure over the contrasts
- *open*: neither

Beside it, with no part in a verdict: t over the means of bases and over the means of wrappers alone, and the mixed
model with crossed random effects of base and wrapper, whose REML estimates are the mean squares, as cells are balanced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from analysis.replication.toy_study_design import (
    BASES,
    CONTRASTS,
    LEVEL,
    LOOK,
    LOOK_LEVEL,
    Contrast,
    Outcome,
    language_of,
)
from analysis.replication.toy_study_results import Results
from safekey_interp.measures.crossed_intervals import crossed_error

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
Cells = Float[np.ndarray, "language base wrapper"]
Verdict = Literal["shown", "excluded beyond the smallest effect of interest", "open"]
SHOWN, EXCLUDED, OPEN = get_args(Verdict)


class Stage(NamedTuple):
    """How far the study is, and what its tests may spend."""

    bases: tuple[int, ...]
    """That are tested, as many of each language."""
    level: float | None
    """Of all contrasts of an outcome together; None where no test was planned."""
    name: str
    """In words."""


class Tested(NamedTuple):
    """One contrast of one outcome."""

    contrast: Contrast
    value: float
    low: float
    """Of the simultaneous interval, 1 - level / contrasts."""
    high: float
    p: float
    p_holm: float
    p_excluded: float
    """Of both one-sided tests against the smallest effect of interest, by Holm."""
    p_bases: float
    p_wrappers: float
    p_mixed: float
    by_language: tuple[float, ...]
    verdict: Verdict


def stage_of(whole: Sequence[int]) -> Stage:
    """The stage that the whole bases allow."""
    if set(BASES) <= set(whole):
        return Stage(BASES, LEVEL - LOOK_LEVEL, f"end: {len(BASES)} of {len(BASES)} bases")
    first = BASES[:LOOK]
    if set(first) <= set(whole):
        return Stage(first, LOOK_LEVEL, f"planned look: the first {LOOK} of {len(BASES)} bases ({len(whole)} are done)")
    names = dict.fromkeys(map(language_of, BASES))
    each = [[base for base in whole if language_of(base) == name] for name in names]
    n = min(map(len, each))
    some = tuple(sorted(base for part in each for base in part[:n]))
    return Stage(some, None, f"before the look: {len(whole)} of {len(BASES)} bases; nothing is tested yet")


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


def verdicts(differences: dict[Contrast, Cells], outcome: Outcome, level: float | None) -> list[Tested]:
    """Means, errors and verdicts of contrasts.

    Args:
        differences: paired cells of each.
        outcome: what they are of.
        level: of all together; None for no verdict.
    """
    found = [crossed_error(cells) for cells in differences.values()]
    p = [_two_sided(*one) for one in found]
    p_excluded = [_equivalent(*one, outcome.smallest) for one in found]
    holm, holm_excluded = _holm(p), _holm(p_excluded)
    spent = LEVEL if level is None else level
    rows = []
    for number, (contrast, cells) in enumerate(differences.items()):
        mean, error, freedom = found[number]
        half = float(student.ppf(1 - spent / len(found) / 2, freedom) * error) if error else error
        word: Verdict = OPEN
        if level is not None and holm_excluded[number] <= level:
            word = EXCLUDED
        elif level is not None and holm[number] <= level:
            word = SHOWN
        rows.append(
            Tested(
                contrast=contrast,
                value=mean,
                low=mean - half,
                high=mean + half,
                p=p[number],
                p_holm=holm[number],
                p_excluded=holm_excluded[number],
                p_bases=_two_sided(*_over_bases(cells)),
                p_wrappers=_two_sided(*_over_wrappers(cells)),
                p_mixed=_two_sided(*_mixed(cells)),
                by_language=tuple(map(float, cells.mean((1, 2)))),
                verdict=word,
            )
        )
    return rows


def is_settled(results: Results) -> bool:
    """The rule of the planned look: whether no contrast of either outcome is open, so that no further base is run."""
    stage = stage_of(results.bases)
    return stage.level is not None and all(
        row.verdict != OPEN for outcome in results.chosen.outcomes for row in decided(results, outcome, stage)
    )


def _two_sided(mean: float, error: float, freedom: float) -> float:
    if np.isnan(error):
        return np.nan
    if error == 0:
        return float(mean == 0)
    return float(2 * student.sf(abs(mean) / error, freedom))


def _equivalent(mean: float, error: float, freedom: float, smallest: float) -> float:
    """The larger of the p-values against an effect of the smallest size in either direction."""
    if np.isnan(error):
        return np.nan
    if error == 0:
        return float(abs(mean) >= smallest)
    return float(student.sf((smallest - abs(mean)) / error, freedom))


def _holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given (Holm 1979, Scand. J. Stat. 6:65)."""
    order = np.argsort(p)
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def _over_bases(cells: Cells) -> tuple[float, float, float]:
    n_languages, n_bases, _ = cells.shape
    if n_bases < 2:
        return float(cells.mean()), np.nan, np.nan
    variance = cells.mean(2).var(axis=1, ddof=1).sum() / (n_bases * n_languages**2)
    return float(cells.mean()), float(np.sqrt(variance)), n_languages * (n_bases - 1)


def _over_wrappers(cells: Cells) -> tuple[float, float, float]:
    n = cells.shape[2]
    return float(cells.mean()), float(cells.mean((0, 1)).std(ddof=1) / np.sqrt(n)), n - 1


def _mixed(cells: Cells) -> tuple[float, float, float]:
    """Of the fixed effect; Satterthwaite's degrees of freedom from the three mean squares."""
    n_languages, n_bases, n_wrappers = cells.shape
    mean, of_bases, df_bases = _over_bases(cells)
    _, of_wrappers, df_wrappers = _over_wrappers(cells)
    residuals = cells - cells.mean(1, keepdims=True) - cells.mean(2, keepdims=True) + cells.mean((1, 2), keepdims=True)
    df_rest = n_languages * (n_bases - 1) * (n_wrappers - 1)
    rest = float((residuals**2).sum()) / df_rest / cells.size if df_rest else np.nan
    total = max(of_bases**2 + of_wrappers**2 - rest, of_bases**2, of_wrappers**2)
    if not total > 0:
        return mean, float(np.sqrt(total)), np.inf
    freedom = total**2 / (of_bases**4 / df_bases + of_wrappers**4 / df_wrappers + rest**2 / df_rest)
    return mean, float(np.sqrt(total)), freedom
