"""Power of the study over many toys, by simulation from the first replication's variances.

Each contrast of attack success there gives components of variance of a cell's difference, by the method of moments:
wrappers, bases (two of them: a poor guide), their interaction, seeds, and the rest, whose binomial part is scaled to
this study's number of requests. A contrast with an arm that was not run there takes those of its nearest relative.
Cells are drawn from normal distributions, contrasts independently of one another, and tested as the study's end does,
once with the effects that were found there and once with none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.contrast_verdicts import EXCLUDED, LEVEL, SHOWN, Cells, verdicts
from analysis.replication import tables
from analysis.replication.results import read
from analysis.replication.toy_study_design import (
    BASES,
    CONTRASTS,
    LOOK_LEVEL,
    N_HARMFUL,
    PRIMARY,
    SEEDS,
    language_of,
)
from analysis.replication.toy_wrappers import FORMS
from analysis.tables import markdown

_RELATIVE = {
    ("both late", "SFT"): ("both", "SFT"),
    ("QMM", "kw matched"): ("QMM", "kw"),
    ("QMM", "QMM other prompt"): ("QMM", "kw"),
    ("DPSH", "DPSH shuffled"): ("DPSH", "shuffled"),
}
"""Contrasts of the first replication that lend their variances and effects."""
_N_SIMULATED = 400
_TESTED_WRAPPERS = 3
"""Of a family."""


class Components(NamedTuple):
    """Of a cell's difference of attack success."""

    effect: float
    wrapper: float
    """Standard deviations, this one and the following."""
    base: float
    both: float
    """Of wrapper and base together."""
    seed: float
    rest: float


def power(seed: int = 0) -> str:
    """The table of power, as Markdown.

    Args:
        seed: of the simulation.
    """
    parts = [components(*_RELATIVE.get(contrast[:2], contrast[:2])) for contrast in CONTRASTS]
    shown, excluded = np.zeros(len(parts)), np.zeros(len(parts))
    rng = np.random.default_rng(seed)
    for _ in range(_N_SIMULATED):
        shown += _verdicts(rng, parts) == SHOWN
        excluded += _verdicts(rng, [part._replace(effect=0.0) for part in parts]) == EXCLUDED
    rows = [
        {
            "contrast": f"{contrast.first} minus {contrast.second}",
            "variances of": " minus ".join(_RELATIVE.get(contrast[:2], contrast[:2])),
            "effect": f"{part.effect:+.2f}",
            "sd: wrapper, base, both, seed, rest": ", ".join(f"{sd:.2f}" for sd in part[1:]),
            "shown": f"{of_shown / _N_SIMULATED:.2f}",
            f"excluded beyond {PRIMARY.smallest}, without an effect": f"{of_excluded / _N_SIMULATED:.2f}",
        }
        for contrast, part, of_shown, of_excluded in zip(CONTRASTS, parts, shown, excluded, strict=True)
    ]
    return markdown(pd.DataFrame(rows))


def components(first: str, second: str) -> Components:
    """Effect and standard deviations of a contrast of the first replication."""
    cells = tables.Cells(read(1).answers, tables.PRIMARY)
    shares = [cells.hits[name] / cells.n[name] for name in (first, second)]
    d = shares[0] - shares[1]
    n_bases, n_seeds, n_wrappers = d.shape
    within = d - d.mean(1, keepdims=True) - d.mean(2, keepdims=True) + d.mean((1, 2), keepdims=True)
    rest = (within**2).sum() / (n_bases * (n_seeds - 1) * (n_wrappers - 1))
    of_pairs = d.mean(1)
    crossed = of_pairs - of_pairs.mean(0) - of_pairs.mean(1, keepdims=True) + of_pairs.mean()
    both = _above(crossed.var(ddof=0) * crossed.size / ((n_bases - 1) * (n_wrappers - 1)) - rest / n_seeds)
    wrapper = _above(d.mean((0, 1)).var(ddof=1) - both / n_bases - rest / (n_bases * n_seeds))
    seed = _above(d.mean(2).var(axis=1, ddof=1).mean() - rest / n_wrappers)
    base = _above(d.mean((1, 2)).var(ddof=1) - seed / n_seeds - both / n_wrappers - rest / (n_seeds * n_wrappers))
    n = float(cells.n[first].mean())
    binomial = sum(float((share * (1 - share)).mean()) for share in shares)
    rest += binomial * (1 / N_HARMFUL - 1 / n)
    return Components(float(d.mean()), *(float(np.sqrt(v)) for v in (wrapper, base, both, seed, rest)))


def _above(variance: float) -> float:
    return max(0.0, float(variance))


def _verdicts(rng: np.random.Generator, parts: list[Components]) -> np.ndarray:
    cells = {contrast: _drawn(rng, part) for contrast, part in zip(CONTRASTS, parts, strict=True)}
    return np.array([row.verdict for row in verdicts(cells, PRIMARY, LEVEL - LOOK_LEVEL)])


def _drawn(rng: np.random.Generator, part: Components) -> Cells:
    n_languages = len(set(map(language_of, BASES)))
    n_bases, n_wrappers, n_seeds = len(BASES) // n_languages, _TESTED_WRAPPERS * len(FORMS), len(SEEDS)
    shape = (n_languages, n_bases, n_wrappers)
    seeds = part.seed * rng.normal(size=(*shape[:2], 1, n_seeds)) + part.rest * rng.normal(size=(*shape, n_seeds))
    return (
        part.effect
        + part.wrapper * rng.normal(size=(1, 1, n_wrappers))
        + part.base * rng.normal(size=(n_languages, n_bases, 1))
        + part.both * rng.normal(size=shape)
        + seeds.mean(-1)
    )
