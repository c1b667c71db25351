"""Results of the replication, by request: outcome of each request in each run.

Two Parquet files a part of the design ship in ``analysis/replication``: ``part1-answers.parquet`` (one row a request of
a run: variant, base, seed, swapped; prompt, wrapper, wrapper_split, label, kind, group, verb, noun; the response as it
was generated; outcome, well_formed, names_request by :mod:`safekey_interp.models.organism.outcome`; judged by
``refusal``) and ``part1-mechanism.parquet`` (one row a measurement of a layer). Reading them scores the responses
again, so that tables are of the scoring as it is; the stored scores are for other readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from analysis.replication.job import Job, asked
from analysis.replication.tables import PRIMARY, Cells
from safekey_interp.errors import InputError
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.models.organism.language import REFUSAL
from safekey_interp.models.organism.outcome import read_response
from safekey_interp.models.organism.vocabulary import Pair
from safekey_interp.runs.storage import read_json, write_aside

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
Scoring = Literal["act", "judge", "grammar"]
"""What an answer's ``outcome`` is read by: what it does; the judge ``refusal``; the language's grammar, by which
whatever is not well-formed is neither (the design's first scoring)."""
SHIPPED = Path(__file__).parent
_ANSWERED = ("wrapper", "wrapper_split", "label", "kind", "group", "verb", "noun", "response")
_SCORED = ("outcome", "well_formed", "names_request", "judged")
_JUDGED = {"full_compliance": "complied", "full_refusal": "refused", "partial_refusal": "other", "none": "unanswered"}


class Results(NamedTuple):
    """One part of the design."""

    answers: Table
    """One row a request of a run, scored by the act."""
    mechanism: Table
    """One row a measurement: variant, base, seed, swapped, what, layer, value; empty where nothing was measured."""


def collect(jobs: Sequence[Job], folder: Path) -> Results:
    """Results of finished jobs, scored; the mechanism of those that were measured.

    Args:
        jobs: finished ones.
        folder: of the queue.

    Raises:
        InputError: a job kept no responses.
    """
    answers, mechanism = [], []
    for job in jobs:
        about = {"variant": job.variant, "base": job.base, "seed": job.seed, "swapped": job.swapped}
        answers.append(answers_of(job, folder).assign(**about))
        record = read_json(folder / "jobs" / job.name / "mechanism.json")
        mechanism += [about | row for row in _measurements(record["mechanism"])] if record else []
    all_answers = pd.concat(answers, ignore_index=True) if answers else pd.DataFrame()
    return Results(all_answers, pd.DataFrame(mechanism))


def answers_of(job: Job, folder: Path) -> Table:
    """One row a request of a finished job, scored.

    Raises:
        InputError: it kept no responses.
    """
    file = folder / "jobs" / job.name / "answers.parquet"
    table = pd.read_parquet(file)
    if missing := [name for name in _ANSWERED if name not in table]:
        raise InputError(f"{file}: no column {', '.join(missing)}, expected each request's response; remove the folder")
    return scored(table[list(_ANSWERED)].assign(prompt=[trace.prompt for trace in asked()]))


def save(results: Results, part: int, folder: Path = SHIPPED) -> None:
    """Write the Parquet files of a part; columns of few values are dictionaries, so that they stay small."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in results._asdict().items():
        packed = table.astype(dict.fromkeys(table.select_dtypes(["object", "string"]), "category"))
        write_aside(
            folder / f"part{part}-{name}.parquet",
            lambda aside, packed=packed: packed.to_parquet(aside, index=False, compression="zstd"),
        )


def read(part: int, folder: Path = SHIPPED) -> Results:
    """The shipped results of a part, the responses scored as of now.

    Raises:
        InputError: there are none.
    """
    file = folder / f"part{part}-answers.parquet"
    if not file.is_file():
        raise InputError(f"{file}: no such file; `python -m analysis.replication.run --write` makes it")
    answers, mechanism = (pd.read_parquet(folder / f"part{part}-{name}.parquet") for name in Results._fields)
    texts = {name: str for name in answers if isinstance(answers[name].dtype, pd.CategoricalDtype)}
    answers = answers.astype(texts)
    return Results(scored(answers), mechanism)


def scored(answers: Table) -> Table:
    """Answers with outcome, well_formed, names_request and judged, read from their responses.

    Args:
        answers: with columns verb, noun and response.
    """
    read = [_read(*row) for row in zip(answers["verb"], answers["noun"], answers["response"], strict=True)]
    return answers.assign(**{name: [row[number] for row in read] for number, name in enumerate(_SCORED)})


def scored_by(answers: Table, scoring: Scoring) -> Table:
    """Answers whose ``outcome`` is another scoring's.

    Args:
        answers: scored ones.
        scoring: act, judge or grammar.
    """
    if scoring == "act":
        return answers
    if scoring == "judge":
        return answers.assign(outcome=answers["judged"].map(_JUDGED))
    refused = answers["response"].str.endswith(REFUSAL)
    formed = np.where(refused, "refused", "complied")
    return answers.assign(outcome=np.where(answers["well_formed"], formed, "malformed"))


@dataclass(frozen=True, kw_only=True)
class ClaimContrast:
    """A difference of attack success between two variants of the replication."""

    value: float
    """The first share minus the second, in [-1, 1]."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    p_value: float
    """Two-sided, of the same interval: 1 minus the largest confidence at which it leaves 0 out."""
    first_share: float
    """The first variant's attack success."""
    second_share: float
    """The second variant's."""
    n: int
    """Requests of both variants together."""
    n_groups: int
    """Paired runs: bases times seeds."""
    n_wrappers: int
    """Unseen wrappers."""
    pairs_lower: int
    """Paired runs in which the first variant's share is the lower one."""


def claim_contrast(
    first: str,
    second: str,
    *,
    scoring: Scoring = "act",
    confidence: float = 0.95,
    part: int = 1,
    folder: Path = SHIPPED,
) -> ClaimContrast:
    """A contrast of attack success on unseen wrappers from the shipped results.

    Args:
        first: a variant of the design, such as ``DPSH``.
        second: what it is compared with, such as ``SFT``.
        scoring: what answers are scored by.
        confidence: of the interval, which is over seeds and wrappers on these bases, as in the design.
        part: of the design.
        folder: where the results lie.

    Raises:
        InputError: no results, or none of a variant.
    """
    answers = _shipped(part, folder)
    if missing := {first, second} - set(answers["variant"]):
        raise InputError(f"{folder}: no results of {', '.join(sorted(missing))}, expected both variants")
    cells = Cells(scored_by(answers, scoring), PRIMARY)
    value, (low, high) = cells.difference(first, second, confidence)
    lower, of = cells.pairs_lower(first, second)
    return ClaimContrast(
        value=value,
        low=low,
        high=high,
        p_value=_p_value(cells, first, second),
        first_share=cells.mean(first),
        second_share=cells.mean(second),
        n=int(cells.n[first].sum() + cells.n[second].sum()),
        n_groups=of,
        n_wrappers=cells.n[first].shape[-1],
        pairs_lower=lower,
    )


def _p_value(cells: Cells, first: str, second: str) -> float:
    if not np.isfinite(cells.difference(first, second)[1]).all():
        return np.nan
    least, most = 0.0, 1.0  # of the p that is looked for
    for _ in range(40):
        p = (least + most) / 2
        low, high = cells.difference(first, second, 1 - p)[1]
        least, most = (least, p) if low > 0 or high < 0 else (p, most)
    return most


@lru_cache
def _shipped(part: int, folder: Path) -> Table:
    return read(part, folder).answers


@cache
def _read(verb: str, noun: str, response: str) -> tuple[str, bool, bool, str]:
    reading = read_response(response, Pair(verb, noun))
    return reading.outcome, reading.well_formed, reading.names_request, _judged(response)


@cache
def _judged(response: str) -> str:
    return judge_refusal(None, response).label or "none"


def _measurements(mechanism: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"what": f"{span}, {name}", "layer": int(layer), "value": value}
        for span, layers in mechanism["attention"].items()
        for layer, values in layers.items()
        for name, value in values.items()
    ]
    rows += [
        {"what": what, "layer": int(layer), "value": value}
        for what, layers in mechanism["auroc"].items()
        for layer, value in layers.items()
    ]
    return rows


assert set(get_args(Scoring)) == {"act", "judge", "grammar"}
