"""Verdicts on contrasts of trained models: shown, excluded beyond the smallest effect of interest, or open.

A contrast's cells are paired differences between two arms. Replicates of the training (bases, seeds) and items
(wrappers, prompts) are both drawn, and crossed; replicates are drawn within strata, which are those that there are
(languages, or one stratum alone). The error is that of :func:`safekey_interp.measures.crossed_intervals.crossed_error`,
with strata for bases and replicates for seeds.

With few replicates (three seeds) their variance is estimated once, from all arms (:class:`ErrorOfArms`): from the two
or three values of one contrast it comes out small by chance, and a contrast of nothing is shown too often.

- *excluded beyond the smallest effect of interest*: two one-sided tests against that effect on either side of 0, Holm's
  procedure over the contrasts; also where the mean differs from 0, since the difference is too small to matter
- *shown*: not excluded, and Student's t of the mean against 0, Holm's procedure over the contrasts
- *open*: neither

Intervals are simultaneous by Bonferroni's correction, and so wider than Holm's verdicts need.

Beside it, with no part in a verdict: t over the means of the replicates and over those of the items alone, and the
mixed model with crossed random effects of both, whose REML estimates are the mean squares, as cells are balanced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from analysis.tables import interval
from safekey_interp.measures.crossed_intervals import crossed_error

LEVEL = 0.05
"""Of all contrasts of an outcome together, by Holm's procedure."""
LEVEL_TOLD = "level {:.3g} of all contrasts together: verdicts by Holm, intervals by Bonferroni, so wider"
Cells = Float[np.ndarray, "stratum replicate item"]
Verdict = Literal["shown", "excluded beyond the smallest effect of interest", "open"]
SHOWN, EXCLUDED, OPEN = get_args(Verdict)


class Contrast(NamedTuple):
    """A difference between two arms, the first's mean minus the second's."""

    first: str
    second: str
    asks: str
    """What it says when it is shown in the direction that the design names."""

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.first} minus {self.second}"


class Outcome(NamedTuple):
    """An outcome whose contrasts are tested."""

    name: str
    column: str
    """Of the requests' table."""
    smallest: float
    """The smallest effect of interest."""
    unit: str
    wanted: Literal[-1, 1]
    """Sign of a difference that is what a contrast asks about."""


class ErrorOfArms(NamedTuple):
    """Variance of one arm's mean of one replicate, such as a seed, beside effects of arms and of replicates."""

    variance: float
    freedom: int


def error_of_arms(means: Float[np.ndarray, "arm replicate"]) -> ErrorOfArms | None:
    """What an additive model of arms and seeds leaves, by least squares; None where it leaves nothing to estimate.

    Args:
        means: of each arm and seed; NaN for a seed that an arm does not have.
    """
    arm, replicate = np.nonzero(np.isfinite(means))
    model = np.concatenate([np.eye(means.shape[0])[arm], np.eye(means.shape[1])[replicate]], axis=1)
    values = means[arm, replicate]
    fitted, _, rank, _ = np.linalg.lstsq(model, values, rcond=None)
    freedom = len(values) - int(rank)
    if freedom < 1:
        return None
    return ErrorOfArms(float(((values - model @ fitted) ** 2).sum() / freedom), freedom)


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
    p_replicates: float
    """Over the means of the replicates."""
    p_items: float
    """Over the means of the items."""
    p_mixed: float
    by_stratum: tuple[float, ...]
    verdict: Verdict


def verdicts(
    differences: dict[Contrast, Cells], outcome: Outcome, level: float | None, arms: ErrorOfArms | None = None
) -> list[Tested]:
    """Means, errors and verdicts of contrasts.

    Args:
        differences: paired cells of each.
        outcome: what they are of.
        level: of all together; None for no verdict.
        arms: variance over replicates, of all arms together; where a contrast's own is larger it counts, with its few
            degrees of freedom.
    """
    found = [crossed_error(cells) if arms is None else _pooled_error(cells, arms) for cells in differences.values()]
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
                p_replicates=_two_sided(*over_replicates(cells)),
                p_items=_two_sided(*_over_items(cells)),
                p_mixed=_two_sided(*_mixed(cells)),
                by_stratum=tuple(map(float, cells.mean((1, 2)))),
                verdict=word,
            )
        )
    return rows


def told(row: Tested, strata: str | None = None) -> dict[str, str]:
    """A contrast as a line of a table; ``strata`` names the column of the means by stratum, left out when None."""
    return {
        "contrast": row.contrast.name,
        "asks whether": row.contrast.asks,
        "difference [simultaneous interval]": interval(row._asdict(), form="+.3f"),
        **({strata: ", ".join(f"{value:+.3f}" for value in row.by_stratum)} if strata else {}),
        "p": p_told(row.p),
        "p, Holm": p_told(row.p_holm),
        "p that it is beyond the smallest effect, Holm": p_told(row.p_excluded),
    }


def verdict_told(row: Tested, outcome: Outcome) -> str:
    """The verdict, and whether what is shown is not what the contrast asks about."""
    is_other = row.verdict == SHOWN and row.value * outcome.wanted < 0
    return f"{row.verdict}, in the other direction" if is_other else row.verdict


def by_verdict(rows: Sequence[Tested], outcome: Outcome) -> str:
    """The contrasts of each verdict, as a line."""
    of: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: get_args(Verdict).index(row.verdict)):
        of.setdefault(verdict_told(row, outcome), []).append(row.contrast.name)
    return "; ".join(f"**{word}**: {', '.join(names)}" for word, names in of.items())


def p_told(value: float) -> str:
    """A p-value as tables have it."""
    return "n/a" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _pooled_error(cells: Cells, arms: ErrorOfArms) -> tuple[float, float, float]:
    """As :func:`crossed_error`, of one stratum; replicates' variance is that of two arms, or their own, if larger."""
    _, n_replicates, n_items = cells.shape
    mean, error, freedom = crossed_error(cells)
    if np.isnan(error):
        return mean, error, freedom
    own, freedom = float(cells.mean((0, 2)).var(ddof=1)), n_replicates - 1
    if own <= 2 * arms.variance:
        own, freedom = 2 * arms.variance, arms.freedom
    of_replicates = own / n_replicates
    of_items = float(cells.mean((0, 1)).var(ddof=1)) / n_items
    total = of_replicates + of_items
    if total == 0:
        return mean, 0.0, np.inf
    return mean, math.sqrt(total), _satterthwaite(total, (of_replicates, freedom), (of_items, n_items - 1))


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


def over_replicates(cells: Cells) -> tuple[float, float, float]:
    """The mean, its standard error over replicates alone, and the degrees of freedom of Student's t."""
    n_strata, n_replicates, _ = cells.shape
    if n_replicates < 2:
        return float(cells.mean()), np.nan, np.nan
    variance = cells.mean(2).var(axis=1, ddof=1).sum() / (n_replicates * n_strata**2)
    return float(cells.mean()), float(np.sqrt(variance)), n_strata * (n_replicates - 1)


def _over_items(cells: Cells) -> tuple[float, float, float]:
    n = cells.shape[2]
    return float(cells.mean()), float(cells.mean((0, 1)).std(ddof=1) / np.sqrt(n)), n - 1


def _mixed(cells: Cells) -> tuple[float, float, float]:
    """Of the fixed effect; Satterthwaite's degrees of freedom from the three mean squares."""
    n_strata, n_replicates, n_items = cells.shape
    mean, of_replicates, df_replicates = over_replicates(cells)
    _, of_items, df_items = _over_items(cells)
    residuals = cells - cells.mean(1, keepdims=True) - cells.mean(2, keepdims=True) + cells.mean((1, 2), keepdims=True)
    df_rest = n_strata * (n_replicates - 1) * (n_items - 1)
    rest = float((residuals**2).sum()) / df_rest / cells.size if df_rest else np.nan
    total = max(of_replicates**2 + of_items**2 - rest, of_replicates**2, of_items**2)
    if not total > 0:
        return mean, float(np.sqrt(total)), np.inf
    parts = (of_replicates**2, df_replicates), (of_items**2, df_items), (rest, df_rest)
    return mean, float(np.sqrt(total)), _satterthwaite(total, *parts)


def _satterthwaite(total: float, *parts: tuple[float, float]) -> float:
    """Degrees of freedom of a variance, of the variances that it is put together of and theirs (1946)."""
    return total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def smallest_shift(log_odds: Sequence[float], share: float) -> float:
    """The smallest shift of all log-odds, up or down, that carries at least a share of them across 0; NaN if none.

    Args:
        log_odds: one a request, nats.
        share: of the requests.
    """
    needed = math.ceil(share * len(log_odds) - 1e-9)
    sides = (sorted(-odds for odds in log_odds if odds < 0), sorted(odds for odds in log_odds if odds >= 0))
    return min((side[needed - 1] for side in sides if len(side) >= needed), default=math.nan)


def scale_told(log_odds: Sequence[float], smallest: float, share: float, where: str) -> str:
    """What the smallest effect of interest on log-odds, which a pilot chose, is on the requests that were tested.

    Args:
        log_odds: SFT's, one a request, nats.
        smallest: the effect.
        share: of the requests that an effect of interest carries across 0.
        where: names them.
    """
    between = sum(-smallest <= odds < 0 for odds in log_odds) / len(log_odds)
    return (
        f"; of SFT's requests {where}, {between:.2f} have log-odds between {-smallest:.3f} and 0, and a "
        f"shift of {smallest_shift(log_odds, share):.2f} nats would carry {share:.2f} of them across 0"
    )
