"""Results of the study of a trained SmolLM2, by request: one row a request of a run, without texts.

``real-study.parquet`` ships beside this file: arm, seed, way; request (the prompt's id in its public file), source,
label, wrapper, family; ``aha`` of the answer's K by the finder ``rules``, ``found`` (whether it finds U and K),
``hint`` (whether U names the harm), ``judged`` by the judge ``refusal``; ``log_odds``. Prompts and responses stay in
the folder of the runs: the data are read from where they are, and what models write to harmful requests is not shipped.
``real-study-mechanism.parquet`` has one row a measurement of a run: what, layer, value; and one of the words that all
runs read (``way`` is :data:`WORDS`). ``real-study-cells.parquet``
has one row a run: what identifies it, and hashes of its weights and results, so that a queue in a new clone goes on
behind the runs that ship, and any of them can be run again and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.real_model.real_study_choice import CHOSEN, SHIPPED, Chosen, read_chosen, write_chosen
from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_job import (
    Cell,
    Record,
    cells,
    identity,
    is_done,
    read_alike,
    record_of,
    words_auroc,
)
from analysis.study_queue import as_read, digest
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.evaluation.judge_metrics import REFUSING
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.runs.storage import read_json, write_table
from safekey_interp.segmentation.segmenter import segment_all

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
_ANSWERS, _MECHANISM, _CELLS = (f"real-study{part}.parquet" for part in ("", "-mechanism", "-cells"))
COUNTED = {
    "safe": ("aha", ["safe"]),
    "go_ahead": ("aha", ["unsafe"]),
    "refused": ("judged", list(REFUSING)),
    "complied": ("judged", ["full_compliance"]),
}
"""What is averaged of answers: the column, and its values that count."""
WORDS = "words"
"""In place of the way of a run, where the words that all runs read are measured."""
_TYPES = ("arm", "way", "identity", "weights", "answers", "mechanism", "processor")


class Results(NamedTuple):
    """What is known so far."""

    answers: Table
    """One row a request of a run."""
    mechanism: Table
    """One row a measurement of a run: arm, seed, way, what, layer, value."""
    chosen: Chosen
    """What the pilot chose."""
    records: tuple[Record, ...] = ()
    """One a run."""

    @property
    def is_whole(self) -> bool:
        """Whether every cell of the design is there."""
        runs = self.answers[["arm", "seed", "way"]].drop_duplicates() if len(self.answers) else pd.DataFrame()
        return set(map(tuple, runs.to_numpy())) == set(map(tuple, cells()))


def shipped_records(study: Study, folder: Path = SHIPPED) -> dict[Cell, Record]:
    """The runs that ship, where they are of this choice, these data and the design as it is."""
    if not (folder / _CELLS).is_file():
        return {}
    found = {record.cell: record for record in _records(folder)}
    return {cell: each for cell, each in found.items() if each.identity == digest(as_read(identity(cell, study)))}


def known_records(study: Study, folder: Path = SHIPPED) -> dict[Cell, Record]:
    """The runs that are done, in a folder of runs or among those that ship, in the design's order."""
    shipped = shipped_records(study, folder)
    found = {cell: record_of(cell, study) or shipped.get(cell) for cell in cells()}
    return {cell: record for cell, record in found.items() if record}


def gather(study: Study, folder: Path = SHIPPED) -> Results:
    """Results of the cells that are done, in a folder of runs or among those that ship.

    Raises:
        InputError: no pilot has chosen there.
    """
    chosen, known = study.chosen, known_records(study, folder)
    own = {cell for cell in known if is_done(cell, study)}
    shipped = read(folder) if len(own) < len(known) else None
    answers, mechanism = [], []
    for cell in known:
        if cell in own or shipped is None:
            answers.append(_answers(cell, study))
            mechanism.append(_measured(cell, study))
        else:
            answers.append(_of_cell(cell, shipped.answers))
            mechanism.append(_of_cell(cell, shipped.mechanism))
    joined = [pd.concat(tables, ignore_index=True) if tables else pd.DataFrame() for tables in (answers, mechanism)]
    return Results(counted(joined[0]), joined[1], chosen, tuple(known.values()))


def with_words(results: Results, study: Study) -> Results:
    """With what the words alone tell of the requests on which probes are measured."""
    auroc = words_auroc(study.base(), read_alike(study.prompts.tests))
    row = {"arm": "", "seed": 0, "way": WORDS, "what": "auroc", "layer": -1, "value": auroc}
    return results._replace(mechanism=pd.concat([results.mechanism, pd.DataFrame([row])], ignore_index=True))


def primary_outcomes(cell: Cell, study: Study) -> Table:
    """Class of K of each harmful request in an unseen wrapper, and whether it is safe: of a run here or that ships."""
    found = _answers(cell, study) if is_done(cell, study) else _of_cell(cell, read().answers)
    found = found[(found["source"] == "wrapped") & (found["label"] == "harmful")]
    return found[["aha"]].rename(columns={"aha": "outcome"}).assign(counts=found["aha"] == "safe")


def _of_cell(cell: Cell, table: Table) -> Table:
    return table[(table[list(Cell._fields)] == list(cell)).all(axis=1)]


def _answers(cell: Cell, study: Study) -> Table:
    table = pd.read_parquet(study.out / "cells" / cell.name / "answers.parquet")
    asked = [study.prompts.tests[number] for number in table["request"]]
    scored = read_answers(asked, table["response"].tolist())
    return scored.assign(log_odds=table["log_odds"].astype("float32").to_numpy(), **cell._asdict())


def _measured(cell: Cell, study: Study) -> Table:
    record = read_json(study.out / "cells" / cell.name / "cell.json")
    return pd.DataFrame([cell._asdict() | row for row in _measurements(record["mechanism"])])


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
    """Answers with what is averaged, of :data:`COUNTED`."""
    if not len(answers):
        return answers
    return answers.assign(**{name: answers[column].isin(values) for name, (column, values) in COUNTED.items()})


def save(results: Results, folder: Path = SHIPPED) -> None:
    """Write the files, the choice alone where no run is done; columns of few values are dictionaries, to stay small.

    Raises:
        InputError: runs ship that are not among these results: they would be lost.
    """
    if (folder / _CELLS).is_file():
        lost = {record.cell.name for record in _records(folder)} - {record.cell.name for record in results.records}
        if lost:
            raise InputError(
                f"{folder / _CELLS}: has {', '.join(sorted(lost))}, which these settings and data do not know; "
                "expected runs of the same design, or that file moved away"
            )
    write_chosen(folder / CHOSEN, results.chosen)
    if not len(results.answers):
        return
    answers = results.answers.drop(columns=list(COUNTED))
    records = pd.DataFrame(results.records, columns=pd.Index(Record._fields))
    for name, table in ((_ANSWERS, answers), (_MECHANISM, results.mechanism), (_CELLS, records)):
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
    return Results(counted(answers), mechanism, read_chosen(folder / CHOSEN), _records(folder))


def _records(folder: Path) -> tuple[Record, ...]:
    table = pd.read_parquet(folder / _CELLS)
    table = table.astype({name: str for name in _TYPES if name in table})
    return tuple(Record(*row) for row in table.itertuples(index=False))


def _measurements(mechanism: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"what": f"{row['from']} to {row['to']}, {name}", "layer": row["layer"], "value": row[name]}
        for row in mechanism["attention"]
        for name in ("mass", "over_distance")
    ]
    return rows + [
        {"what": "auroc", "layer": int(layer), "value": value} for layer, value in mechanism["auroc"].items()
    ]
