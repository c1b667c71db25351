"""Evidence from probes for claims 4a and 4b: distance of the classes after training.

AUROC within all prompts has no room where both models are near 1. So: AUROC of a probe that was fitted on plain prompts
and is tested on wrapped ones, over training runs on the same tokens (:mod:`analysis.paper.runs_evidence`); and for the
last two models the margin, on scores out of fold:

    d′ = (mean of harmful - mean of benign) / √((variance of harmful + variance of benign) / 2)

by layer, the mean over layers (a median would not be smooth enough for what follows). The interval of the difference is
Student's, with a jackknife that leaves out one group of prompts of both models at a time (Tukey 1958):

    se² = (G - 1) / G · Σ_g (θ_(-g) - mean θ_(-g))²,    G - 1 degrees of freedom
"""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student

from analysis.paper import runs_evidence
from analysis.paper.model_pairs import claim_of_pair
from analysis.paper.models import Bench
from analysis.paper.verdicts import Measured, unmeasured
from safekey_interp.data.conditions import FEW
from safekey_interp.experiments.compare_probes import Scores, knowledge_of
from safekey_interp.measures.intervals import Interval

POSITIONS = {"4a": "decision", "4b": "understanding"}


def claims(bench: Bench) -> list[Measured]:
    """Claims 4a and 4b, every evidence that these models give."""
    measured = []
    for claim, position in POSITIONS.items():
        if any(map(bench.is_toy, bench.names)):
            measured.append(runs_evidence.mechanism(claim))
        measured += [
            _margin(bench, claim, position),
            claim_of_pair(bench, claim, "AUROC", measure="auroc", position=position),
        ]
    return measured


def margins(scores: Scores, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """d′, mean over layers, of the traces as they are and with other weights.

    Args:
        scores: of one model.
        weights: (part, trace), how often each trace counts in each part.

    Returns:
        Of all traces, and of each part, in standard deviations; NaN where a class is missing or does not vary.
    """
    both = np.concatenate([np.ones((1, len(scores.groups))), weights])
    means, variances = [], []
    for wanted in (scores.positive, ~scores.positive):
        of, values = both[:, wanted], scores.values[wanted]
        with np.errstate(invalid="ignore", divide="ignore"):
            n = of.sum(1, keepdims=True)
            mean = of @ values / n
            means.append(mean)
            variances.append(of @ values**2 / n - mean**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.mean((means[0] - means[1]) / np.sqrt(np.clip(sum(variances) / 2, 0, None)), axis=1)
    apart[~np.isfinite(apart)] = np.nan
    return float(apart[0]), apart[1:]


def margin_change(first: Scores, second: Scores) -> tuple[float, float, Interval]:
    """d′ of two models' scores of the same traces, and the interval of the second minus the first.

    Args:
        first: of the earlier model.
        second: of the later one, of the same traces in the same order.

    Returns:
        Both margins, and the interval; NaN below :data:`~safekey_interp.data.conditions.FEW` groups.
    """
    names, codes = np.unique(np.asarray(first.groups), return_inverse=True)
    n = len(names)
    without = (codes[None] != np.arange(n)[:, None]).astype(float)
    (before, before_folds), (after, after_folds) = (margins(scores, without) for scores in (first, second))
    if n < FEW:
        return before, after, Interval(np.nan, np.nan)
    error = np.sqrt((n - 1) * np.var(after_folds - before_folds))
    half = float(student.ppf(0.975, n - 1) * error)
    return before, after, Interval(after - before - half, after - before + half)


def _margin(bench: Bench, claim: str, position: str) -> Measured:
    pair = bench.pair
    if pair is None:
        name = bench.names[0]
        why = "one model: nothing to compare it with"
        return unmeasured(claim, name, why, toy=bench.is_toy(name), evidence="margin")
    toy, words = any(map(bench.is_toy, pair)), f"{pair[1]} minus {pair[0]}"
    known = [knowledge_of(bench.probes[name]).scores if name in bench.probes else {} for name in pair]
    if not all(position in scores for scores in known):
        return unmeasured(claim, words, "one of the two has no such scores", toy=toy, evidence="margin")
    first, second = (scores[position] for scores in known)
    first, second = first.shared_with(second), second.shared_with(first)
    before, after, interval = margin_change(first, second)
    return Measured(
        claim=claim,
        evidence="margin",
        model=words,
        value=after - before,
        low=interval.low,
        high=interval.high,
        n=len(first.groups),
        n_groups=len(set(first.groups)),
        family=pair[1],
        control_value=f"{pair[0]} {before:.2f}, {pair[1]} {after:.2f}",
        note="each model on its own answers to the same prompts",
        toy=toy,
    )
