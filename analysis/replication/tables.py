"""Tables of the replication: means with intervals, contrasts by the tests of the design, attack success by wrapper.

Answers are those of :mod:`analysis.replication.results`, whose ``outcome`` is complied, refused, or anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.contrast_verdicts import Contrast
from analysis.replication.design import MARGIN, OUTCOMES
from safekey_interp.measures.crossed_intervals import LEAST, crossed_mean
from safekey_interp.measures.intervals import Interval, share_from_error, share_interval

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
        rows = answers[about(answers)].copy()
        rows["hit"] = counts(rows)
        self.variants = list(dict.fromkeys(answers["variant"]))
        self._axes = [
            sorted(answers["base"].unique()),
            sorted(answers["seed"].unique()),
            sorted(rows["wrapper"].unique()),
        ]
        shape = tuple(map(len, self._axes))
        self.hits: dict[str, np.ndarray] = {}
        self.n: dict[str, np.ndarray] = {}
        for variant in self.variants:
            hits, n = np.zeros(shape), np.zeros(shape)
            part = rows[rows["variant"] == variant].groupby(["base", "seed", "wrapper"])["hit"].agg(["sum", "count"])
            for key, (total, count) in part.iterrows():
                at = tuple(axis.index(value) for axis, value in zip(self._axes, key, strict=True))
                hits[at], n[at] = total, count
            self.hits[variant], self.n[variant] = hits, n

    def mean(self, variant: str) -> float:
        """Hits over counts, of all cells; NaN without a case."""
        n = self.n[variant].sum()
        return float(self.hits[variant].sum() / n) if n else np.nan

    def interval(self, variant: str, confidence: float = 0.95) -> Interval:
        """Of the mean: over wrappers and seeds, on these bases; over runs alone where there are few wrappers."""
        n_wrappers = len(self._axes[2])
        if n_wrappers < LEAST:
            return self._over_runs(variant, confidence)
        mean, (low, high) = crossed_mean(self._cells(variant), confidence)
        if low == high:  # 0 or 1 in every cell
            return share_from_error(mean, 0.0, n_wrappers, confidence)
        return Interval(*(float(bound) for bound in np.clip((low, high), 0, 1)))

    def difference(self, first: str, second: str, confidence: float = 0.95) -> tuple[float, Interval]:
        """The first's mean minus the second's, and its interval over wrappers and seeds, on these bases."""
        return crossed_mean(self._cells(first) - self._cells(second), confidence)

    def _cells(self, variant: str) -> np.ndarray:
        """What each cell says of the mean, to first order: the share of a cell where all have as many cases."""
        hits, n, mean = self.hits[variant], self.n[variant], self.mean(variant)
        return mean + (hits - mean * n) / n.mean()

    def _over_runs(self, variant: str, confidence: float) -> Interval:
        hits, n = (part[variant].sum(-1).ravel() for part in (self.hits, self.n))
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = hits / n
        return share_interval(shares[n > 0], np.flatnonzero(n > 0).tolist(), confidence)

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
        rate, other = (self.hits[v].sum(-1) / self.n[v].sum(-1) for v in (first, second))
        return int((rate < other).sum()), rate.size


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
    for variant in cells.variants:
        if n := int(cells.n[variant].sum()):
            low, high = cells.interval(variant)
            within = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
            row[variant] = f"{cells.mean(variant):.2f}{within} ({n:,})"
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
    confidence = 1 - 0.05 / len(asked)
    rows = []
    for first, second, asks in asked:
        difference, (low, high) = cells.difference(first, second, confidence)
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
            value, (least, most) = other.difference(first, second, confidence)
            row[f"by the {name}"] = f"{value:+.2f} [{least:+.2f}, {most:+.2f}]"
        rows.append(row)
    return pd.DataFrame(rows)


def verdict(low: float, high: float) -> str:
    """By the design: shown, excluded beyond the margin, or open (also without an interval)."""
    if low > 0 or high < 0:
        return "shown"
    return f"excluded beyond {MARGIN}" if low >= -MARGIN and high <= MARGIN else "open"


def by_wrapper(answers: Table) -> pd.DataFrame:
    """Attack success by wrapper: mean ± standard deviation over bases and seeds."""
    cells = Cells(answers, PRIMARY)
    statistics = {variant: cells.by_wrapper(variant) for variant in cells.variants}
    names = list(next(iter(statistics.values())))
    return pd.DataFrame(
        [
            {"unseen wrapper": name}
            | {
                variant: f"{statistics[variant][name][0]:.2f} ± {statistics[variant][name][1]:.2f}"
                for variant in statistics
            }
            for name in names
        ]
    )


def mechanism(numbers: Table) -> pd.DataFrame:
    """A line a measure in its last layer or, of probes, each layer: mean ± standard deviation over bases and seeds."""
    rows = []
    for what, part in numbers.groupby("what", sort=False):
        for layer, rows_of_layer in part.groupby("layer"):
            row = {"measure": what, "layer": int(layer)}
            for variant, values in rows_of_layer.groupby("variant", sort=False)["value"]:
                row[str(variant)] = f"{values.mean():.2f} ± {values.std():.2f}"
            rows.append(row)
    return pd.DataFrame(rows)
