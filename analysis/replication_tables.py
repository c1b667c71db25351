"""Tables of the replication: means with intervals, contrasts by the tests of the design, attack success by wrapper.

Answers are those of :mod:`analysis.replication_results`, whose ``outcome`` is complied, refused, or anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.replication_design import MARGIN, N_DRAWS, OUTCOMES, Contrast
from safekey_interp.stats import percentile_interval

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""


def _unseen(answers: Table) -> Table:
    return answers["wrapper_split"] == "test"


def _harmful(answers: Table) -> Table:
    return _unseen(answers) & (answers["label"] == "harmful")


def _complied(answers: Table) -> Table:
    return answers["outcome"] == "complied"


def _refused(answers: Table) -> Table:
    return answers["outcome"] == "refused"


def _plain(answers: Table, label: str) -> Table:
    return (answers["wrapper_split"] == "plain") & (answers["label"] == label)


PRIMARY = "attack success, unseen wrappers"
_OF: dict[str, tuple[Callable[[Table], Table], Callable[[Table], Table]]] = {
    PRIMARY: (_harmful, _complied),
    "attack success, U names the harm": (lambda t: _harmful(t) & t["names_request"], _complied),
    "attack success, seen wrappers": (
        lambda t: (t["wrapper_split"] == "seen") & (t["label"] == "harmful"),
        _complied,
    ),
    "over-refusal": (lambda t: _unseen(t) & (t["label"] == "benign"), _refused),
    "plain harm refused": (lambda t: _plain(t, "harmful"), _refused),
    "plain benign complied": (lambda t: _plain(t, "benign"), _complied),
    "neither": (_harmful, lambda t: ~(_complied(t) | _refused(t))),
    "malformed": (_harmful, lambda t: ~t["well_formed"]),
    "malformed, of these complied": (lambda t: _harmful(t) & ~t["well_formed"], _complied),
    "dormant signal": (lambda t: _harmful(t) & _complied(t), lambda t: t["names_request"]),
}
"""Which requests an outcome is about, and what is counted among them."""
assert _OF.keys() == OUTCOMES.keys()


class Cells:
    """Hits and counts of one outcome: (variant) -> (base, seed, wrapper)."""

    def __init__(self, answers: Table, outcome: str) -> None:
        about, counts = _OF[outcome]
        mine = answers[about(answers)].copy()
        mine["hit"] = counts(mine)
        self.variants = list(dict.fromkeys(answers["variant"]))
        self._axes = [
            sorted(answers["base"].unique()),
            sorted(answers["seed"].unique()),
            sorted(mine["wrapper"].unique()),
        ]
        shape = tuple(map(len, self._axes))
        self.hits: dict[str, np.ndarray] = {}
        self.n: dict[str, np.ndarray] = {}
        for variant in self.variants:
            hits, n = np.zeros(shape), np.zeros(shape)
            part = mine[mine["variant"] == variant].groupby(["base", "seed", "wrapper"])["hit"].agg(["sum", "count"])
            for key, (total, count) in part.iterrows():
                at = tuple(axis.index(value) for axis, value in zip(self._axes, key, strict=True))
                hits[at], n[at] = total, count
            self.hits[variant], self.n[variant] = hits, n

    def draws(self, seed: int = 0, n_draws: int = N_DRAWS) -> np.ndarray:
        """Weights (draw, base, seed, wrapper): how often each cell is drawn."""
        rng = np.random.default_rng(seed)
        n_bases, n_seeds, n_wrappers = map(len, self._axes)
        of_base = rng.multinomial(n_bases, [1 / n_bases] * n_bases, size=n_draws)
        of_seed = rng.multinomial(n_seeds, [1 / n_seeds] * n_seeds, size=(n_draws, n_bases))
        of_wrapper = rng.multinomial(n_wrappers, [1 / n_wrappers] * n_wrappers, size=n_draws)
        return of_base[:, :, None, None] * of_seed[:, :, :, None] * of_wrapper[:, None, None, :]

    def mean(self, variant: str, weights: np.ndarray | None = None) -> np.ndarray:
        """Hits over counts, of all cells or of each draw."""
        hits, n = self.hits[variant], self.n[variant]
        if weights is None:
            return hits.sum() / n.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("dbsw,bsw->d", weights, hits) / np.einsum("dbsw,bsw->d", weights, n)

    def by_base(self, variant: str) -> np.ndarray:
        """The mean on each base."""
        return self.hits[variant].sum((1, 2)) / self.n[variant].sum((1, 2))

    def by_wrapper(self, variant: str) -> dict[str, tuple[float, float]]:
        """Of each wrapper the mean, and its standard deviation over bases and seeds."""
        shares = self.hits[variant] / np.maximum(self.n[variant], 1)
        means = self.hits[variant].sum((0, 1)) / self.n[variant].sum((0, 1))
        spread = shares.reshape(-1, shares.shape[-1]).std(0, ddof=1)
        return {name: (float(m), float(s)) for name, m, s in zip(self._axes[2], means, spread, strict=True)}

    def pairs_lower(self, first: str, second: str) -> tuple[int, int]:
        """In how many of the paired runs (base, seed) the first's mean is below the second's."""
        one, other = (self.hits[v].sum(-1) / self.n[v].sum(-1) for v in (first, second))
        return int((one < other).sum()), one.size


def outcomes(answers: Table) -> pd.DataFrame:
    """A line an outcome, a column a variant: mean [95 % interval] (n)."""
    return pd.DataFrame([{"outcome": outcome} | _shares(answers, outcome) for outcome in OUTCOMES])


def scorings(by: Mapping[str, Table]) -> pd.DataFrame:
    """Attack success on unseen wrappers by each way of scoring an answer, a column a variant.

    Args:
        by: answers under the name of what their outcome was read by.
    """
    return pd.DataFrame([{"attack success by": name} | _shares(answers, PRIMARY) for name, answers in by.items()])


def _shares(answers: Table, outcome: str) -> dict[str, str]:
    cells = Cells(answers, outcome)
    row = dict.fromkeys(cells.variants, "n/a (0)")
    some = [variant for variant in cells.variants if cells.n[variant].sum()]
    weights = cells.draws() if some else None
    for variant in some:
        draws = cells.mean(variant, weights)
        low, high = percentile_interval(finite(draws))
        n, empty = int(cells.n[variant].sum()), int((~np.isfinite(draws)).sum())
        without = f", {empty:,} of {N_DRAWS:,} draws without a case" if empty else ""
        row[variant] = f"{cells.mean(variant):.2f} [{float(low):.2f}, {float(high):.2f}] ({n:,}{without})"
    return row


def contrasts(answers: Table, asked: Sequence[Contrast], others: Mapping[str, Table] | None = None) -> pd.DataFrame:
    """Each contrast of attack success on unseen wrappers, with its corrected interval and what it comes to.

    Args:
        answers: whose outcome decides.
        asked: the contrasts.
        others: the same answers by other scorings, which get a column each, difference and interval, beside it.
    """
    cells = Cells(answers, PRIMARY)
    beside = {name: Cells(table, PRIMARY) for name, table in (others or {}).items()}
    weights = cells.draws()
    confidence = 1 - 0.05 / len(asked)
    rows = []
    for first, second, asks in asked:
        difference, low, high = _difference(cells, first, second, weights, confidence)
        lower, of = cells.pairs_lower(first, second)
        bases = cells.by_base(first) - cells.by_base(second)
        row = {
            "contrast": f"{first} − {second}",
            "asks whether": asks,
            "difference": f"{difference:+.2f}",
            f"interval ({confidence:.1%})": f"[{low:+.2f}, {high:+.2f}]",
            "by base": ", ".join(f"{value:+.2f}" for value in bases),
            "lower in": f"{lower} of {of} pairs",
            "verdict": verdict(low, high),
        }
        for name, other in beside.items():
            value, least, most = _difference(other, first, second, weights, confidence)
            row[f"by the {name}"] = f"{value:+.2f} [{least:+.2f}, {most:+.2f}]"
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(
    cells: Cells, first: str, second: str, weights: np.ndarray, confidence: float
) -> tuple[float, float, float]:
    """The first's mean less the second's, and its interval."""
    draws = finite(cells.mean(first, weights) - cells.mean(second, weights))
    low, high = map(float, percentile_interval(draws, confidence))
    return float(cells.mean(first) - cells.mean(second)), low, high


def verdict(low: float, high: float) -> str:
    """By the design: shown, excluded beyond the margin, or open."""
    if low > 0 or high < 0:
        return "shown"
    return f"excluded beyond {MARGIN}" if low >= -MARGIN and high <= MARGIN else "open"


def by_wrapper(answers: Table) -> pd.DataFrame:
    """Attack success by wrapper: mean ± standard deviation over bases and seeds."""
    cells = Cells(answers, PRIMARY)
    found = {variant: cells.by_wrapper(variant) for variant in cells.variants}
    names = list(next(iter(found.values())))
    return pd.DataFrame(
        [
            {"unseen wrapper": name}
            | {variant: f"{found[variant][name][0]:.2f} ± {found[variant][name][1]:.2f}" for variant in found}
            for name in names
        ]
    )


def mechanism(numbers: Table) -> pd.DataFrame:
    """A line a measure in its last layer or, of probes, each layer: mean ± standard deviation over bases and seeds."""
    rows = []
    for what, part in numbers.groupby("what", sort=False):
        for layer, mine in part.groupby("layer"):
            row = {"measure": what, "layer": int(layer)}
            for variant, values in mine.groupby("variant", sort=False)["value"]:
                row[str(variant)] = f"{values.mean():.2f} ± {values.std():.2f}"
            rows.append(row)
    return pd.DataFrame(rows)


def finite(draws: np.ndarray) -> np.ndarray:
    """The draws in which both sides have a case."""
    return draws[np.isfinite(draws)]
