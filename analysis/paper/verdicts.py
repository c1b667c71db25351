"""Verdicts on claims: a rule on an interval and a smallest effect of interest.

Of one measurement, in its own unit, with the smallest effect of interest that ``claims.yaml`` fixes beforehand:

    supports               the 95 % interval excludes 0, and the estimate is at least the smallest effect of interest
                           in the claimed direction
    contradicts            the same in the other direction
    no effect of interest  the whole interval lies within the smallest effect of interest on either side of 0
    cannot tell            anything else: the interval holds 0 and effects of interest, or there is no interval

Of one claim: the verdict is that of the strongest evidence that has an interval (the order is that of ``claims.yaml``);
weaker evidence and other readings of the claim are listed and marked as such. Claims about a model are judged for each
model; claims about training once for the organism and once for other models.

Each verdict is given twice: uncorrected, and by Holm (1979) over the claims of a model (``family``), where "supports"
and "contradicts" need an adjusted p below .05, else they become "cannot tell". The p is that of the interval's own
method where there is one, else two-sided from the interval as that of a t distribution over its groups. "Built in"
stands where the toy's grammar or training makes a claim true, so that it tests the method and not the claim.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.paper.claims import BY_ID, Evidence
from safekey_interp.reporting.findings import effect_size
from safekey_interp.reporting.findings.finding import Estimate

Verdict = Literal["supports", "contradicts", "no effect of interest", "cannot tell"]
Role = Literal["decides", "weaker", "beside", "unmeasured"]
LEVEL = 0.05
COLUMNS = (
    *("claim", "evidence", "role", "model", "verdict", "verdict_holm", "built_in"),
    *("value", "low", "high", "level", "p", "p_holm", "unit", "smallest", "n", "n_groups", "over"),
    *("control_value", "note", "toy", "family", "contrast", "control", "command"),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One evidence of a claim, measured on one model, pair of models or set of training runs."""

    claim: str
    """The claim's id."""
    evidence: str
    """The evidence's name; that of the strongest when empty."""
    model: str
    """Whose, in words."""
    value: float
    """The difference; NaN where it could not be measured."""
    low: float
    """Lower end of its interval; NaN without one."""
    high: float
    """Upper end."""
    n: int
    """Traces, requests or runs behind it."""
    n_groups: int
    """Independent groups behind it: prompts, or pairs of runs."""
    toy: bool
    """Whether it rests on the organism."""
    p: float = float("nan")
    """Two-sided p of a difference from 0 by the interval's method; NaN to take it from the interval."""
    family: str = ""
    """Whose claims Holm's correction takes together; ``model`` when empty."""
    control_value: str = ""
    """The control's own number, in words."""
    note: str = ""
    """What else has to be known, or why it could not be measured."""

    @property
    def by(self) -> Evidence:
        """What was measured."""
        return BY_ID[self.claim].by(self.evidence)

    @property
    def verdict(self) -> Verdict:
        """By the rule, uncorrected."""
        return verdict_of(self.value, self.low, self.high, smallest=self.by.smallest, expects=self.by.expects)

    @property
    def p_value(self) -> float:
        """Two-sided p of a difference from 0."""
        if np.isfinite(self.p) or self.by.level != "95 %":
            return self.p
        return p_of_interval(self.value, self.low, self.high, self.n_groups)


def verdict_of(value: float, low: float, high: float, *, smallest: float, expects: int) -> Verdict:
    """The rule.

    Args:
        value: the estimate.
        low: lower end of its interval; NaN without one.
        high: upper end.
        smallest: smallest effect of interest, in the same unit, above 0.
        expects: the claim's sign, 1 or -1.
    """
    size = effect_size.verdict_of(Estimate(value, low, high), smallest) if np.isfinite(value) else "too few"
    if size == "too small":
        return "no effect of interest"
    if size in ("open", "too few"):
        return "cannot tell"
    return "supports" if np.sign(value) == expects else "contradicts"


def p_of_interval(value: float, low: float, high: float, n_groups: int) -> float:
    """Two-sided p of a difference from 0, of a 95 % interval read as a t interval over groups.

    The half of the interval that faces 0 gives the standard error; NaN without an interval or below two groups.
    """
    if not np.isfinite([value, low, high]).all() or n_groups < 2:
        return float("nan")
    half = value - low if value > 0 else high - value
    if half <= 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stats.t.sf(abs(value) * stats.t.ppf(0.975, n_groups - 1) / half, n_groups - 1))


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's (1979) adjusted p-values, in the order given; NaN stay NaN and do not count.

    The i-th smallest of m, from 1: the largest of (m - j + 1) · p_j over j ≤ i, at most 1.
    """
    given = np.array(list(p_values), float)
    adjusted = np.full(len(given), np.nan)
    order = [int(at) for at in np.argsort(given) if np.isfinite(given[at])]
    so_far = 0.0
    for place, at in enumerate(order):
        so_far = max(so_far, (len(order) - place) * given[at])
        adjusted[at] = min(1.0, so_far)
    return adjusted


def unmeasured(claim: str, model: str, why: str, *, toy: bool, evidence: str = "") -> Measured:
    """An evidence that could not be measured, with the reason."""
    nan = float("nan")
    return Measured(
        claim=claim, evidence=evidence, model=model, value=nan, low=nan, high=nan, n=0, n_groups=0, toy=toy, note=why
    )


def as_table(measured: Iterable[Measured], models: Sequence[str] = ()) -> pd.DataFrame:
    """``claims.csv``: a row for each measurement, claims in order, the strongest evidence of each first.

    Args:
        measured: in any order.
        models: that were asked, where they are not those of the command's default.
    """
    rows = [_row(measurement) | {"command": command(measurement.claim, models)} for measurement in measured]
    rows.sort(key=lambda row: place_of(row["claim"], row["evidence"]))
    for row in rows:
        row["role"] = _role(row, rows)
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["role"] == "decides" and row["level"] == "95 %":
            families.setdefault(row["family"], []).append(row)
    for family in families.values():
        for row, p in zip(family, holm(row["p"] for row in family), strict=True):
            row["p_holm"] = float(p)
    for row in rows:
        row["verdict_holm"] = _corrected(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def place_of(claim: str, evidence: str) -> tuple[int, int]:
    """Where a row stands: claims in order, the strongest evidence of each first."""
    return list(BY_ID).index(claim), BY_ID[claim].rank(evidence)


def _row(measurement: Measured) -> dict[str, Any]:
    claim, by = BY_ID[measurement.claim], measurement.by
    return {
        **{
            name: getattr(measurement, name)
            for name in ("claim", "model", "value", "low", "high", "n", "n_groups", "toy")
        },
        **{name: getattr(measurement, name) for name in ("control_value", "note")},
        **{name: getattr(by, name) for name in ("level", "unit", "smallest", "over", "contrast", "control")},
        "evidence": by.name,
        "p": measurement.p_value,
        "p_holm": float("nan"),
        "family": measurement.family or measurement.model,
        "verdict": measurement.verdict,
        "built_in": claim.built_in if measurement.toy else "",
    }


def _role(row: dict[str, Any], rows: list[dict[str, Any]]) -> Role:
    claim = BY_ID[row["claim"]]
    judged = ("claim", "toy") if claim.of_training else ("claim", "toy", "model")
    rivals = [rival for rival in rows if all(rival[name] == row[name] for name in judged)]
    rivals = [rival for rival in rivals if not claim.by(rival["evidence"]).beside]
    measured = [rival for rival in rivals if np.isfinite([rival["value"], rival["low"], rival["high"]]).all()]
    # Where nothing has an interval, the strongest evidence stands for the claim, and says why.
    best = min((claim.rank(rival["evidence"]) for rival in measured or rivals), default=None)
    is_beside = claim.by(row["evidence"]).beside
    if not is_beside and claim.rank(row["evidence"]) == best:
        return "decides"
    if not np.isfinite([row["value"], row["low"], row["high"]]).all():
        return "unmeasured"
    return "beside" if is_beside else "weaker"


def _corrected(row: dict[str, Any]) -> str:
    if row["role"] != "decides":
        return ""
    if row["level"] == "95 %" and row["verdict"] in ("supports", "contradicts") and not row["p_holm"] < LEVEL:
        return "cannot tell"
    return row["verdict"]


def command(claim: str, models: Sequence[str] = ()) -> str:
    """What measures a claim again, of these models."""
    asked, out = (["--models", shlex.join(models)], "other-figures") if models else ([], "figures")
    return " ".join(["python -m analysis", *asked, f"--only {claim[0]}", f"--out {out}"])
