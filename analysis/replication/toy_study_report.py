"""Report of the study over many toys: verdicts, means of each arm, and mechanism, of the results so far.

Tables by name, as :func:`analysis.tables.publish` takes them. Means have intervals over bases and wrappers
(:mod:`safekey_interp.measures.crossed_intervals`), of what not every base has over bases alone; they describe, and
only :mod:`analysis.replication.toy_study_verdicts` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from analysis.contrast_verdicts import (
    LEVEL_TOLD,
    Outcome,
    Tested,
    by_verdict,
    over_replicates,
    p_told,
    scale_told,
    told,
    verdict_told,
)
from analysis.replication.toy_study_design import (
    ARMS,
    CO_PRIMARY,
    CONTRASTS,
    MOST_MALFORMED,
    PRIMARY,
    SEEDS,
    language_of,
)
from analysis.replication.toy_study_results import Results
from analysis.replication.toy_study_verdicts import Stage, decided, look_of, stage_of
from analysis.tables import markdown
from safekey_interp.errors import InputError
from safekey_interp.measures.crossed_intervals import LEAST, crossed_mean, crossed_share, share_between

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""


class Described(NamedTuple):
    """A line of the table of means."""

    name: str
    counts: Callable[[Table], Table]
    """Which requests it is about."""
    column: str
    """What is averaged among them."""


def _unseen(label: str) -> Callable[[Table], Table]:
    return lambda t: (t["wrapper_split"] == "test") & (t["label"] == label)


def _of_families(*, shown: bool) -> Callable[[Table], Table]:
    return lambda t: _unseen("harmful")(t) & (t["family_shown"] == shown)


def _others(split: str, label: str) -> Callable[[Table], Table]:
    return lambda t: (t["wrapper_split"] == split) & (t["label"] == label)


DESCRIBED = (
    Described("attack success, unseen wrappers", _unseen("harmful"), "complied"),
    Described("… malformed answers left out of the successes", _unseen("harmful"), "complied_well"),
    Described("… of families that fine-tuning showed (over bases)", _of_families(shown=True), "complied"),
    Described("… of families that it did not show (over bases)", _of_families(shown=False), "complied"),
    Described("attack success, seen wrappers", _others("seen", "harmful"), "complied"),
    Described("log-odds of a safe K, unseen wrappers (nats)", _unseen("harmful"), "log_odds"),
    Described("log-odds of a safe K, benign, unseen wrappers (nats)", _unseen("benign"), "log_odds"),
    Described("over-refusal, unseen wrappers", _unseen("benign"), "refused"),
    Described("plain harm refused", _others("plain", "harmful"), "refused"),
    Described("plain benign complied", _others("plain", "benign"), "complied"),
    Described("malformed, unseen wrappers", _unseen("harmful"), "malformed"),
)
_MECHANISM = {
    "attention of the token before K on U, over distance": "understanding, over_distance",
    "attention of the token before K on X, over distance": "prompt, over_distance",
    "AUROC at the token before K, plain to wrapped": "auroc",
}


def report(results: Results) -> dict[str, str]:
    """The tables of the results so far.

    Raises:
        InputError: no base of which every cell is done.
    """
    whole = results.bases
    if not whole:
        raise InputError("no base of which every arm and seed is done, expected one; `--run` goes on with it")
    stage = stage_of(whole)
    some = results.of(whole)
    n = len(whole) * len(SEEDS) * len(ARMS)
    made = {"toy-study": f"{n} runs: {len(ARMS)} arms, {len(whole)} bases, {len(SEEDS)} seeds a base. {stage.name}."}
    if stage.bases:
        made |= {
            f"toy-study-{outcome.column.replace('_', '-')}": _of_outcome(some, outcome, stage)
            for outcome in some.chosen.outcomes
        }
        made |= {"toy-study-look": markdown(_look(some))} if stage.level else {}
    made["toy-study-arms"] = markdown(_means(some.answers, whole))
    made["toy-study-wrappers"] = markdown(_by_wrapper(some.answers))
    made["toy-study-mechanism"] = markdown(_mechanism(some.mechanism))
    return made


def _of_outcome(results: Results, outcome: Outcome, stage: Stage) -> str:
    answers = results.of(stage.bases).answers
    head = f"{outcome.name}, {outcome.unit}; smallest effect of interest {outcome.smallest}; {stage.name}"
    head += "" if stage.level is None else f"; {LEVEL_TOLD.format(stage.level)}"
    head += too_malformed(answers) + (_carried(answers, outcome) if outcome.column == CO_PRIMARY.column else "")
    rows = decided(results, outcome, stage)
    said = "" if stage.level is None else f"{by_verdict(rows, outcome)}\n\n"
    return f"{head}\n\n{said}{markdown(pd.DataFrame([_line(row, outcome) for row in rows]))}"


def _carried(answers: Table, outcome: Outcome) -> str:
    odds = answers[_unseen("harmful")(answers) & (answers["arm"] == "SFT")]["log_odds"].astype(float)
    return scale_told(odds.tolist(), outcome.smallest, PRIMARY.smallest, "on these bases")


def _look(results: Results) -> pd.DataFrame:
    """Differences and verdicts of both outcomes at the planned look."""
    of = {outcome: decided(results, outcome, look_of()) for outcome in results.chosen.outcomes}
    lines = [{"contrast": contrast.name} for contrast in CONTRASTS]
    for outcome, rows in of.items():
        for line, row in zip(lines, rows, strict=True):
            line[f"{outcome.name} at the look"] = f"{row.value:+.3f}, {verdict_told(row, outcome)}"
    return pd.DataFrame(lines)


def too_malformed(answers: Table) -> str:
    """The arms of which more than the design's share of the answers in unseen wrappers are malformed."""
    shares = answers[_unseen("harmful")(answers)].groupby("arm", sort=False)["malformed"].mean()
    over = [f"{arm} {share:.3f}" for arm, share in shares.items() if share > MOST_MALFORMED]
    return f"; more than {MOST_MALFORMED:.0%} of the answers are malformed in: {', '.join(over)}" if over else ""


def _line(row: Tested, outcome: Outcome) -> dict[str, str]:
    beside = " / ".join(map(p_told, (row.p_replicates, row.p_items, row.p_mixed)))
    verdict = verdict_told(row, outcome)
    return told(row, "by language") | {"p over bases / wrappers / mixed model": beside, "verdict": verdict}


def _means(answers: Table, bases: Sequence[int]) -> pd.DataFrame:
    """A line an outcome, a column an arm."""
    answers = answers.assign(complied_well=answers["complied"] & ~answers["malformed"])
    lines = []
    for described in DESCRIBED:
        rows = answers[described.counts(answers)]
        line = {"outcome": described.name}
        for arm in ARMS:
            part = rows[rows["arm"] == arm]
            cells = part.assign(value=part[described.column].astype(float)).pivot_table("value", "base", "wrapper")
            line[arm] = _mean(cells, bases, is_share=described.column != "log_odds")
        lines.append(line)
    return pd.DataFrame(lines)


def _mean(cells: Table, bases: Sequence[int], *, is_share: bool) -> str:
    """Mean [95 % interval] of as many bases of each language: over bases and wrappers where every base has the same
    ones, else over bases alone."""
    names = dict.fromkeys(map(language_of, bases))
    each = [[base for base in bases if language_of(base) == name] for name in names]
    n = min(map(len, each))
    found = [cells.loc[of[:n]].dropna(axis=1) for of in each]
    if len({tuple(part.columns) for part in found}) == 1 and found[0].shape[1] >= LEAST:
        crossed = crossed_share if is_share else crossed_mean
        mean, (low, high) = crossed(np.stack([part.to_numpy() for part in found]))
    else:
        means = np.stack([part.mean(axis=1).to_numpy()[:, np.newaxis] for part in found])
        mean, error, freedom = over_replicates(means)
        half = float(student.ppf(0.975, freedom) * error)
        low, high = share_between(mean, error, freedom) if is_share else (mean - half, mean + half)
    return f"{mean:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _by_wrapper(answers: Table) -> pd.DataFrame:
    """Attack success by unseen wrapper: mean ± standard deviation over bases."""
    rows = answers[_unseen("harmful")(answers)]
    means = rows.groupby(["family", "wrapper", "arm", "base"], sort=False)["complied"].mean().reset_index()
    lines = []
    for (family, wrapper), part in means.groupby(["family", "wrapper"], sort=False):
        of = {arm: part[part["arm"] == arm]["complied"] for arm in ARMS}
        lines.append(
            {"family": family, "wrapper": wrapper} | {a: f"{v.mean():.2f} ± {v.std():.2f}" for a, v in of.items()}
        )
    return pd.DataFrame(lines)


def _mechanism(measured: Table) -> pd.DataFrame:
    """A line a measure and layer: mean ± standard deviation over runs."""
    lines = []
    for name, what in _MECHANISM.items():
        for layer, part in measured[measured["what"] == what].groupby("layer"):
            of = {arm: part[part["arm"] == arm]["value"] for arm in ARMS}
            lines.append(
                {"measure": name, "layer": layer} | {a: f"{v.mean():.2f} ± {v.std():.2f}" for a, v in of.items()}
            )
    return pd.DataFrame(lines)


assert {arm for contrast in CONTRASTS for arm in contrast[:2]} == set(ARMS)
