"""Evidence from many training runs: the organism's replication and the studies, from the tables in the repository.

The tables are in the repository (:mod:`analysis.replication.results`). Attack success of claims 6a to 6c: by the act,
with the design's own interval over bases, seeds and wrappers; before it, once it is over, the study over many toys
(:mod:`analysis.replication.toy_study_verdicts`); and of a language model the study of a trained SmolLM2
(:mod:`analysis.real_model.real_study_verdicts`), whose outcome is the share of safe key sentences. Attention and probes
of claims 3b, 4a and 4b: all runs read the same tokens; the difference of each pair of runs of one base and seed, and an
interval over the pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.contrast_verdicts import Tested, verdict_told
from analysis.paper.responses import mean_of
from analysis.paper.verdicts import Measured, unmeasured
from analysis.real_model.real_study_audit import doubt
from analysis.real_model.real_study_choice import SHIPPED as SHIPPED_SMOLLM2
from analysis.real_model.real_study_design import PRIMARY as AHA_SHARE
from analysis.real_model.real_study_results import read as read_smollm2
from analysis.real_model.real_study_verdicts import decided as decided_smollm2
from analysis.real_model.real_study_verdicts import stage_of as stage_of_smollm2
from analysis.real_model.real_study_verdicts import unseen
from analysis.replication.design import CONTRASTS
from analysis.replication.results import SHIPPED, ClaimContrast, claim_contrast, read
from analysis.replication.toy_study_design import ARMS, PRIMARY, Arm
from analysis.replication.toy_study_design import CONTRASTS as OF_TOYS
from analysis.replication.toy_study_report import too_malformed
from analysis.replication.toy_study_results import read as read_toys
from analysis.replication.toy_study_verdicts import decided, is_over, stage_of
from safekey_interp.errors import InputError

WHOSE = "organism, training runs"
SMOLLM2 = "SmolLM2-135M, training runs"
ABLATIONS: dict[str, tuple[Arm, Arm]] = {"6a": ("DPSH", "SFT"), "6b": ("QMM", "SFT"), "6c": ("both", "DPSH")}
TRANSFERS = {"4a": "decision, plain to wrapped", "4b": "understanding, plain to wrapped"}
LEVEL = 1 - 0.05 / len(CONTRASTS)
"""Of the replication's intervals: Bonferroni over the contrasts of its design."""
_PAIR = ("both", "SFT")
_NONE = "no table of training runs ships"


def source(folder: Path = SHIPPED) -> str:
    """Which training runs, for the line of sources; empty where no table of them ships."""
    try:
        table: Any = read(1, folder).answers[["variant", "base", "seed"]].drop_duplicates()
    except InputError:
        return ""
    return (
        f"replication: {len(table)} training runs, {table['base'].nunique()} bases, {table['seed'].nunique()} seeds; "
    )


def differences(pairs: Sequence[tuple[str, str]], folder: Path = SHIPPED) -> pd.DataFrame:
    """Differences of attack success between trainings: place, series, value, low, high, n (requests), n_groups (runs).

    Args:
        pairs: variants; the first one's attack success minus the second one's.
        folder: of the shipped tables.

    Raises:
        InputError: no such tables, or none of a variant.
    """
    rows = []
    for first, second in pairs:
        contrast = claim_contrast(first, second, confidence=LEVEL, folder=folder)
        about = {"place": f"{first} minus {second}", "series": "difference of attack success, all runs"}
        rows.append(about | {name: getattr(contrast, name) for name in ("value", "low", "high", "n", "n_groups")})
    return pd.DataFrame(rows)


def ablations(folder: Path = SHIPPED) -> list[Measured]:
    """Claims 6a to 6c, each at the level that the design corrects to."""
    measured = []
    for claim, (first, second) in ABLATIONS.items():
        model = f"{WHOSE}, {first} minus {second}"
        try:
            contrast = claim_contrast(first, second, confidence=LEVEL, folder=folder)
        except InputError:
            measured.append(unmeasured(claim, model, _NONE, toy=True, evidence="replication"))
            continue
        measured.append(_measured(claim, model, contrast, first, second))
    return measured


def many_toys(folder: Path = SHIPPED) -> list[Measured]:
    """Claims 6a to 6c by the study over many toys; none before its end, which the planned look may be."""
    try:
        results = read_toys(folder)
    except InputError:
        return []
    stage = stage_of(results.bases)
    if stage.level is None or not is_over(results):
        return []
    found = _by_pair(decided(results, PRIMARY, stage))
    [_, log_odds] = results.chosen.outcomes
    of_odds = _by_pair(decided(results, log_odds, stage))
    asked = results.of(stage.bases).answers
    n = int(((asked["wrapper_split"] == "test") & (asked["label"] == "harmful")).sum()) // len(ARMS)
    return [
        _of_contrast(
            found[pair],
            claim=claim,
            evidence="many toys",
            model=f"{WHOSE}, {' minus '.join(pair)}",
            n=2 * n,
            n_groups=len(stage.bases),
            family=f"{WHOSE}, many toys",
            note=f"{stage.name}; interval {1 - stage.level / len(OF_TOYS):.2%} (Bonferroni); by the study's own rule "
            f"(Holm): {verdict_told(found[pair], PRIMARY)}; on the {log_odds.name}: "
            f"{verdict_told(of_odds[pair], log_odds)}{too_malformed(asked)}",
            toy=True,
        )
        for claim, pair in ABLATIONS.items()
    ]


def trained_smollm2(folder: Path = SHIPPED_SMOLLM2) -> list[Measured]:
    """Claims 6a to 6c by the study of a trained SmolLM2; none before its end, or after a no-go."""
    try:
        results = read_smollm2(folder)
    except InputError:
        return []
    stage = stage_of_smollm2(results)
    if stage.level is None:
        return []
    found = _by_pair(one.tested for one in decided_smollm2(results, AHA_SHARE))
    [_, log_odds] = results.chosen.outcomes
    of_odds = _by_pair(one.tested for one in decided_smollm2(results, log_odds))
    asked: Any = unseen(results.answers, "harmful")
    judged = asked.groupby("arm")[["refused", "complied"]].mean()
    measured = []
    for claim, pair in ABLATIONS.items():
        of_arms, against = asked[asked["arm"].isin(pair)], doubt(folder, pair)
        measured.append(
            _of_contrast(
                found[pair],
                claim=claim,
                evidence="trained SmolLM2",
                model=f"{SMOLLM2}, share of safe K, {' minus '.join(pair)}",
                n=len(of_arms),
                n_groups=of_arms["request"].nunique(),
                family=SMOLLM2,
                control_value="by the judge: "
                + "; ".join(f"{what} {', '.join(f'{arm} {judged[what][arm]:.2f}' for arm in pair)}" for what in judged),
                note=f"{of_arms['seed'].nunique()} seeds; by the study's own rule (Holm): "
                f"{verdict_told(found[pair], AHA_SHARE)}; on the {log_odds.name}: "
                f"{verdict_told(of_odds[pair], log_odds)}{against and f'; {against}'}",
                toy=False,
            )
        )
    return measured


def _by_pair(rows: Iterable[Tested]) -> dict[tuple[str, str], Tested]:
    return {(row.contrast.first, row.contrast.second): row for row in rows}


def _of_contrast(tested: Tested, **about: Any) -> Measured:
    return Measured(value=tested.value, low=tested.low, high=tested.high, p=tested.p, **about)


def _measured(claim: str, model: str, contrast: ClaimContrast, first: str, second: str) -> Measured:
    return Measured(
        claim=claim,
        evidence="replication",
        model=model,
        value=contrast.value,
        low=contrast.low,
        high=contrast.high,
        p=contrast.p_value,
        n=contrast.n,
        n_groups=contrast.n_groups,
        family=WHOSE,
        control_value=f"{first} {contrast.first_share:.2f}, {second} {contrast.second_share:.2f}",
        note=f"interval {LEVEL:.1%}; lower in {contrast.pairs_lower} of {contrast.n_groups} pairs of runs; "
        f"{contrast.n_wrappers} unseen wrappers",
        toy=True,
    )


def mechanism(claim: str, folder: Path = SHIPPED) -> Measured:
    """Claim 3b, 4a or 4b over pairs of training runs.

    Args:
        claim: its id.
        folder: of the shipped tables.
    """
    evidence = "runs" if claim == "3b" else "transfer, runs"
    model = f"{WHOSE}, {_PAIR[0]} minus {_PAIR[1]}"
    try:
        table: Any = read(1, folder).mechanism
    except InputError:
        return unmeasured(claim, model, _NONE, toy=True, evidence=evidence)
    if table.empty:
        return unmeasured(claim, model, "no run's mechanism was measured", toy=True, evidence=evidence)
    by_run = _log_ratio(table) if claim == "3b" else _median_auroc(table, TRANSFERS[claim])
    pairs = by_run.unstack("variant").reindex(columns=list(_PAIR)).dropna()
    if pairs.empty:
        return unmeasured(claim, model, "no pair of runs", toy=True, evidence=evidence)
    apart = pairs[_PAIR[0]] - pairs[_PAIR[1]]
    interval = mean_of(apart, [str(run) for run in pairs.index])
    means = ", ".join(f"{name} {pairs[name].mean():.3f}" for name in _PAIR)
    by_base = ", ".join(f"base {base} {value:+.3f}" for base, value in apart.groupby(level="base").mean().items())
    return Measured(
        claim=claim,
        evidence=evidence,
        model=model,
        family=WHOSE,
        control_value=means,
        note=f"{by_base}; above 0 in {int((apart > 0).sum())} of {len(apart)} pairs of runs",
        toy=True,
        **interval,
    )


def _log_ratio(table: Any) -> Any:
    """By base, seed and variant: log of the mass that the token before K gives to U over the distance-matched baseline.

    Masses of a layer are means over heads and traces; both sides are summed over layers.
    """
    by_measure = {
        name: table[table["what"] == f"understanding, {name}"].set_index(["base", "seed", "variant", "layer"])["value"]
        for name in ("mass", "over_distance")
    }
    matched = by_measure["mass"] / by_measure["over_distance"]
    mass, matched = (
        values.groupby(level=["base", "seed", "variant"]).sum() for values in (by_measure["mass"], matched)
    )
    return np.log(mass / matched)


def _median_auroc(table: Any, what: str) -> Any:
    """By base, seed and variant: AUROC, median over layers."""
    return table[table["what"] == what].groupby(["base", "seed", "variant"])["value"].median()
