"""Records of findings: a sentence with its number, n, interval and control.

Intervals are 95 % and count prompts (groups), not traces; with fewer than
:data:`~safekey_interp.data.conditions.FEW` prompts there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from safekey_interp.data.conditions import FEW
from safekey_interp.measures.intervals import share_interval, student

LEVEL = 0.05
"""A probe stands when its p, over the layers of all positions or pairs of conditions, is at most this."""

AUROC = ("auroc", "auroc_low", "auroc_high")
"""Columns of an AUROC and its interval, for a layer that was named beforehand."""
AUROC_OVER_LAYERS = ("auroc", "auroc_low_over_layers", "auroc_high_over_layers")
"""The same for a layer that was picked because it is the best."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence about the data."""

    question: Literal["where", "what", "knew", "changed", "did", "chance"]
    """What it answers."""
    text: str
    """The sentence."""
    value: float | None = None
    """The number that it rests on."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end."""
    n: int = 0
    """Traces behind it."""
    control: str = ""
    """What it is compared with."""
    short: str = ""
    """The same in a clause, without interval, for the headline; empty when it is not for the headline."""
    is_shown: bool | None = None
    """Whether the effect is more than chance by the rule of the sentence; None where it says nothing of that."""
    verdict: str = ""
    """How a difference lies to 0 and to the smallest effect of interest
    (:data:`safekey_interp.reporting.findings.effect_size.VERDICTS`); empty where the sentence is of no difference."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the sentence says, as fields: places, verdicts, and numbers as value, low and high."""


class Estimate(NamedTuple):
    """A number with its interval; NaN bounds where it has none."""

    value: float
    """The number."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""

    def lies(self, other: Estimate) -> str:
        """``above`` or ``below`` another when their intervals do not touch, else an empty string.

        A number without an interval stands for itself; one that is not sure itself is never above or below.
        """
        low, high = (other.low, other.high) if other.is_sure else (other.value, other.value)
        if not self.is_sure:
            return ""
        return "above" if self.low > high else "below" if self.high < low else ""

    @property
    def is_sure(self) -> bool:
        """Whether it has an interval."""
        return bool(np.isfinite([self.low, self.high]).all())

    def of_largest(self, n_places: int, n_groups: int, confidence: float = 0.95) -> Estimate:
        """The same of a number that was picked as the largest of several: the interval holds for all at once.

        Each half is widened by t(1 − α / 2m, G − 1) / t(1 − α / 2, G − 1) for m places and G groups (Bonferroni; Dunn
        1961, J. Am. Stat. Assoc. 56:52), as each half is a multiple of Student's quantile.

        Args:
            n_places: m, from which it was picked.
            n_groups: G, behind the interval.
            confidence: of the interval as it is.
        """
        if n_places < 2 or not self.is_sure:
            return self
        alpha = 1 - confidence
        wider = float(student(n_groups - 1, 1 - alpha / n_places) / student(n_groups - 1, confidence))
        low, high = (self.value + wider * (bound - self.value) for bound in (self.low, self.high))
        return Estimate(self.value, low, high)

    def text(self, form: str) -> str:
        """``0.17 [0.16, 0.18]`` in the number format ``form``."""
        interval = f"[{self.low:{form}}, {self.high:{form}}]" if self.is_sure else "[too few prompts for an interval]"
        return f"{self.value:{form}} {interval}"

    def listed(self) -> list[float | None]:
        """Value and bounds for ``facts``; None for a bound that it has not."""
        return [float(number) if np.isfinite(number) else None for number in self]

    def fields(self) -> dict[str, Any]:
        """The fields of a :class:`Finding`."""
        return self._asdict()


def estimate(row: Any, value: str = "value", low: str = "low", high: str = "high") -> Estimate:
    """A table's number; without its interval where that would rest on too few prompts."""
    if row["n_groups"] < FEW:
        return Estimate(float(row[value]), np.nan, np.nan)
    return Estimate(float(row[value]), float(row[low]), float(row[high]))


def share(flags: Any, groups: Any) -> Estimate:
    """A share of traces.

    Args:
        flags: (trace) bool, at least one.
        groups: (trace) the group of each.

    Returns:
        With an interval over prompts (:func:`safekey_interp.measures.intervals.share_interval`).
    """
    yes = np.asarray(flags, dtype=float)
    return Estimate(float(yes.mean()), *share_interval(yes, list(groups)))
