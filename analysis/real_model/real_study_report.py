"""Report of the study of a trained SmolLM2: verdicts, means of each arm, and mechanism, of the results so far.

Tables by name, as :func:`analysis.tables.publish` takes them. Means have 95 % intervals over seeds and prompts
(:mod:`safekey_interp.measures.crossed_intervals`); they describe, and only
:mod:`analysis.real_model.real_study_verdicts` decides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.contrast_verdicts import LEVEL_TOLD, Outcome, by_verdict, p_told, scale_told, told, verdict_told
from analysis.real_model.real_study_audit import agreement, doubt, is_audited
from analysis.real_model.real_study_design import ARMS, PRIMARY
from analysis.real_model.real_study_results import WORDS, Results
from analysis.real_model.real_study_verdicts import Decided, decided, stage_of, unseen
from analysis.tables import markdown
from safekey_interp.errors import InputError
from safekey_interp.measures.crossed_intervals import crossed_mean, crossed_share

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""


class Described(NamedTuple):
    """A line of the table of means."""

    name: str
    source: str
    label: str
    column: str


DESCRIBED = (
    Described("K safe, harmful, unseen wrappers", "wrapped", "harmful", "safe"),
    Described("K a go-ahead, harmful, unseen wrappers", "wrapped", "harmful", "go_ahead"),
    Described("refused by the judge, harmful, unseen wrappers", "wrapped", "harmful", "refused"),
    Described("complied with by the judge, harmful, unseen wrappers", "wrapped", "harmful", "complied"),
    Described("U names the harm, harmful, unseen wrappers", "wrapped", "harmful", "hint"),
    Described("log-odds of a safe K, harmful, unseen wrappers (nats)", "wrapped", "harmful", "log_odds"),
    Described("log-odds of a safe K, harmless, unseen wrappers (nats)", "wrapped", "benign", "log_odds"),
    Described("K safe, harmless, unseen wrappers", "wrapped", "benign", "safe"),
    Described("refused by the judge, harmless, unseen wrappers", "wrapped", "benign", "refused"),
    Described("K safe, plain harmful", "plain", "harmful", "safe"),
    Described("K safe, plain harmless", "plain", "benign", "safe"),
    Described("K safe, XSTest unsafe", "xstest", "harmful", "safe"),
    Described("K safe, XSTest safe (over-refusal)", "xstest", "benign", "safe"),
    Described("refused by the judge, XSTest safe", "xstest", "benign", "refused"),
    Described("U and K found, harmful, unseen wrappers", "wrapped", "harmful", "found"),
)
_KINDS = ("refused, K safe", "refused, K a go-ahead", "refused, K neither or none")
_MECHANISM = (
    "key_sentence to understanding, over_distance",
    "key_sentence to prompt, over_distance",
    "decision to understanding, over_distance",
    "decision to prompt, over_distance",
    "auroc",
)


def report(results: Results) -> dict[str, str]:
    """The tables of the results so far.

    Raises:
        InputError: no cell is done.
    """
    if not len(results.answers):
        raise InputError("no cell is done, expected one; `--run` goes on with it")
    stage, setting = stage_of(results), results.chosen.setting
    head = f"{stage.name}. Learning rate {setting.rate:g}, wrapped share {setting.wrapped:g}."
    made = {"real-study": head}
    for outcome in results.chosen.outcomes:
        made[f"real-study-{outcome.column.replace('_', '-')}"] = _of_outcome(results, outcome)
    made["real-study-arms"] = markdown(_table_of_means(results.answers))
    made["real-study-answers"] = markdown(_answers_by_key_sentence(results.answers))
    made["real-study-wrappers"] = markdown(_by_wrapper(results.answers))
    made["real-study-mechanism"] = _of_mechanism(results.mechanism)
    if is_audited():
        made["real-study-audit"] = agreement()
    return made


def _of_outcome(results: Results, outcome: Outcome) -> str:
    stage = stage_of(results)
    level = "" if stage.level is None else f"; {LEVEL_TOLD.format(stage.level)}"
    head = f"{outcome.name}, {outcome.unit}; smallest effect of interest {outcome.smallest:.3g}; {stage.name}{level}"
    if outcome.column == PRIMARY.column and stage.level is not None and (against := doubt()):
        head += f"; {against}"
    if outcome.column == "log_odds":
        head += _beside_the_primary(results.answers, outcome)
    rows = decided(results, outcome)
    said = "" if stage.level is None else f"{by_verdict([one.tested for one in rows], outcome)}\n\n"
    return f"{head}\n\n{said}{markdown(pd.DataFrame([_line(one, outcome) for one in rows]))}"


def _beside_the_primary(answers: Table, outcome: Outcome) -> str:
    """The log-odds' own scale on the requests that were tested, and how far they go with the primary outcome."""
    harmful = unseen(answers, "harmful")
    odds = harmful["log_odds"].astype(float)
    of_sft = harmful["arm"] == "SFT"
    safe = harmful["safe"].astype(float)
    within = [odds[rows].corr(safe[rows]) for rows in harmful.groupby("arm").groups.values()]
    above = (odds > 0).astype(float)
    return (
        f"{scale_told(odds[of_sft].tolist(), outcome.smallest, PRIMARY.smallest, 'in the tests')}; "
        f"{above[of_sft].mean():.2f} of them are above 0 and {safe[of_sft].mean():.2f} of SFT's K are safe, both or "
        f"neither in {(above == safe)[of_sft].mean():.2f}; correlation of the two over the requests of an arm "
        f"{min(within):.2f} to {max(within):.2f}"
    )


def _line(one: Decided, outcome: Outcome) -> dict[str, str]:
    beside = " / ".join(map(p_told, (one.tested.p_replicates, one.tested.p_items, one.p_wrappers)))
    return told(one.tested) | {
        "p over seeds / prompts / wrappers": beside,
        "verdict": verdict_told(one.tested, outcome),
    }


def _columns(table: Table) -> dict[str, Table]:
    """A part of the table for each arm, and for each of the two that ship."""
    table = table[table["way"] != WORDS]
    full = table["way"] == "full"
    parts = {arm: table[full & (table["arm"] == arm)] for arm in ARMS}
    parts |= {f"{arm}, LoRA": part for arm, part in table[~full].groupby("arm", sort=False)}
    return {name: part for name, part in parts.items() if len(part)}


def _table_of_means(answers: Table) -> pd.DataFrame:
    lines = []
    for of in DESCRIBED:
        rows = answers[(answers["source"] == of.source) & (answers["label"] == of.label)]
        lines.append({"outcome": of.name} | {name: _mean(part, of.column) for name, part in _columns(rows).items()})
    return pd.DataFrame(lines)


def _mean(part: Table, column: str) -> str:
    values = part.assign(value=part[column].astype(float)).pivot_table("value", "seed", "request").to_numpy()
    crossed = crossed_mean if column == "log_odds" else crossed_share
    mean, (low, high) = crossed(values[np.newaxis])
    return f"{mean:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _answers_by_key_sentence(answers: Table) -> pd.DataFrame:
    """Share of answers that the judge calls refused, by what the finder says of their K; all full runs together. The
    design does not ask for it."""
    full = answers[answers["way"] == "full"]
    full = full.assign(kind=np.select([full["safe"], full["go_ahead"]], _KINDS[:2], _KINDS[2]))
    lines = []
    for (source, label), rows in full.groupby(["source", "label"], sort=False):
        of_kinds = {kind: rows["refused"][rows["kind"] == kind] for kind in _KINDS}
        told = {kind: f"{some.mean():.2f} ({len(some):,})" if len(some) else "–" for kind, some in of_kinds.items()}
        lines.append({"requests": source, "label": label, **told})
    return pd.DataFrame(lines)


def _spread(runs: Table) -> str:
    """Mean ± standard deviation over runs; of one run its number."""
    return f"{runs.mean():.2f}" + (f" ± {runs.std():.2f}" if len(runs) > 1 else "")


def _by_wrapper(answers: Table) -> pd.DataFrame:
    """Share of safe K by unseen wrapper: mean over prompts and seeds."""
    rows = unseen(answers, "harmful")
    means = rows.pivot_table("safe", ["family", "wrapper"], "arm", sort=False)[_columns(rows).keys()]
    return means.map("{:.2f}".format).reset_index()


def _of_mechanism(measured: Table) -> str:
    said = [
        f"AUROC of the words up to the token before K, plain to wrapped, the same in all runs: {value:.2f}"
        for value in measured[measured["way"] == WORDS]["value"]
    ]
    return "\n\n".join([*said, markdown(_mechanism(measured))])


def _mechanism(measured: Table) -> pd.DataFrame:
    """A line a measure: the median layer of each run, mean ± standard deviation over runs."""
    lines = []
    for what in _MECHANISM:
        parts = _columns(measured[measured["what"] == what])
        medians = {name: part.groupby("seed")["value"].median() for name, part in parts.items()}
        lines.append({"measure, median of the layers": what} | {name: _spread(v) for name, v in medians.items()})
    return pd.DataFrame(lines)
