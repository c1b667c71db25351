"""Results of the study of a trained SmolLM2, by request: one row a request of a run, without texts.

``real-study.parquet`` ships beside this file: arm, seed, way; request (the prompt's id in its public file), source,
label, wrapper, family; ``aha`` of the answer's K by the finder ``rules``, ``found`` (whether it finds U and K),
``hint`` (whether U names the harm), ``judged`` by the judge ``refusal``; ``log_odds``. Prompts and responses stay in
the folder of the runs: the data are read from where they are, and what models write to harmful requests is not shipped.
``real-study-mechanism.parquet`` has one row a measurement of a run: what, layer, value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.real_model.real_study_choice import Chosen, read_chosen, write_chosen
from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import ARMS
from analysis.real_model.real_study_job import Cell, cells, is_done
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.evaluation.judge_metrics import REFUSING
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.runs.storage import read_json, write_table
from safekey_interp.segmentation.segmenter import segment_all

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
SHIPPED = Path(__file__).parent
_ANSWERS, _MECHANISM, _CHOSEN = "real-study.parquet", "real-study-mechanism.parquet", "real-study-chosen.json"


class Results(NamedTuple):
    """What is known so far."""

    answers: Table
    """One row a request of a run."""
    mechanism: Table
    """One row a measurement of a run: arm, seed, way, what, layer, value."""
    chosen: Chosen
    """What the pilot chose."""

    @property
    def is_whole(self) -> bool:
        """Whether every cell of the design is there."""
        runs = self.answers[["arm", "seed", "way"]].drop_duplicates() if len(self.answers) else pd.DataFrame()
        return set(map(tuple, runs.to_numpy())) == set(map(tuple, cells()))


def gather(study: Study) -> Results:
    """Results of the cells of a folder that are done.

    Raises:
        InputError: no pilot has chosen there.
    """
    chosen, answers, mechanism = study.chosen, [], []
    for cell in cells():
        where = study.out / "cells" / cell.name
        if not is_done(cell, study):
            continue
        table = pd.read_parquet(where / "answers.parquet")
        about = {"arm": cell.arm, "seed": cell.seed, "way": cell.way}
        asked = [study.prompts.tests[number] for number in table["request"]]
        scored = read_answers(asked, table["response"].tolist())
        answers.append(scored.assign(log_odds=table["log_odds"].astype("float32").to_numpy(), **about))
        record = read_json(where / "cell.json")
        mechanism += [about | row for row in _measurements(record["mechanism"])]
    tables = pd.concat(answers, ignore_index=True) if answers else pd.DataFrame()
    return Results(counted(tables), pd.DataFrame(mechanism), chosen)


def read_answers(asked: Sequence[Trace], responses: Sequence[str]) -> Table:
    """What was asked, and what the answers are, one row each."""
    answered = [
        trace.with_(trace_id=str(number), response=response)
        for number, (trace, response) in enumerate(zip(asked, responses, strict=True))
    ]
    rows = []
    for trace, found in zip(answered, segment_all(answered), strict=True):
        about = {"request": trace.group, "source": trace.source, "label": trace.label}
        about |= {name: trace.meta[name] for name in ("wrapper", "family")}
        has_both = None not in (found.understanding, found.key_sentence)
        read = {"aha": found.aha or "none", "found": has_both, "hint": bool(found.hint)}
        rows.append(about | read | {"judged": judge_refusal(trace.prompt, trace.response).label or "none"})
    return pd.DataFrame(rows)


def counted(answers: Table) -> Table:
    """Answers with what is averaged: safe, go_ahead and refused."""
    if not len(answers):
        return answers
    return answers.assign(
        safe=answers["aha"] == "safe", go_ahead=answers["aha"] == "unsafe", refused=answers["judged"].isin(REFUSING)
    )


def save(results: Results, folder: Path = SHIPPED) -> None:
    """Write the files; columns of few values are dictionaries, so that they stay small."""
    write_chosen(folder / _CHOSEN, results.chosen)
    answers = results.answers.drop(columns=["safe", "go_ahead", "refused"])
    for name, table in ((_ANSWERS, answers), (_MECHANISM, results.mechanism)):
        packed = table.astype(dict.fromkeys(table.select_dtypes(["object", "string"]), "category"))
        write_table(folder / name, packed)


def read(folder: Path = SHIPPED) -> Results:
    """The shipped results.

    Raises:
        InputError: there are none.
    """
    if not (folder / _ANSWERS).is_file():
        raise InputError(
            f"{folder / _ANSWERS}: no such file; `python -m analysis.real_model --save --data DIR --out DIR` makes it"
        )
    tables = (pd.read_parquet(folder / name) for name in (_ANSWERS, _MECHANISM))
    answers, mechanism = (
        table.astype({name: str for name in table if isinstance(table[name].dtype, pd.CategoricalDtype)})
        for table in tables
    )
    return Results(counted(answers), mechanism, read_chosen(folder / _CHOSEN))


def _measurements(mechanism: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"what": f"{row['from']} to {row['to']}, {name}", "layer": row["layer"], "value": row[name]}
        for row in mechanism["attention"]
        for name in ("mass", "over_distance")
    ]
    return rows + [
        {"what": "auroc", "layer": int(layer), "value": value} for layer, value in mechanism["auroc"].items()
    ]


assert {cell.arm for cell in cells()} == set(ARMS)
assert Cell._fields == ("arm", "seed", "way")
