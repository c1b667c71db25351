"""Results of the study over many toys, by request: one row a request of a run.

``results.parquet`` ships in ``analysis/replication``: arm, base, seed, language; wrapper, family, family_shown,
wrapper_split, label, kind, verb, noun, prompt; the response as it was generated; ``log_odds`` of a safe key sentence
(:mod:`analysis.replication.toy_study_measures`), to half precision; outcome and well_formed by
:mod:`safekey_interp.models.organism.outcome`, read from the responses anew whenever the file is read.
``results-mechanism.parquet`` has one row a measurement of a run: what, layer, value. ``results-cells.parquet`` has one
row a run: what identifies it, and hashes of its weights and results, so that a queue that starts in a new clone goes on
behind the runs that ship, and any of them can be run again and compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.replication.toy_languages import LANGUAGES, SHOWN, LanguageName
from analysis.replication.toy_study_choice import Chosen, read_chosen, write_chosen
from analysis.replication.toy_study_design import ARMS, BASES, SEEDS, language_of
from analysis.replication.toy_study_job import Cell, Record, identity_digest, is_done, record_of
from analysis.replication.toy_study_requests import requests
from analysis.replication.toy_wrappers import FAMILY_OF
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.models.organism.outcome import read_response
from safekey_interp.models.organism.vocabulary import Pair
from safekey_interp.runs.storage import read_json, write_aside

Table = Any
"""A data frame; pandas' stubs take each of its cells for a column."""
SHIPPED = Path(__file__).parent
_TYPES = {"arm": str, "identity": str, "base_weights": str, "weights": str, "answers": str, "mechanism": str}
_ANSWERS, _MECHANISM, _CELLS = "results.parquet", "results-mechanism.parquet", "results-cells.parquet"
_CHOSEN = "toy_study_chosen.json"


class Results(NamedTuple):
    """What is known so far."""

    answers: Table
    """One row a request of a run."""
    mechanism: Table
    """One row a measurement of a run: arm, base, seed, what, layer, value."""
    chosen: Chosen
    """What the pilot chose."""
    records: tuple[Record, ...] = ()
    """One a run."""

    @property
    def bases(self) -> list[int]:
        """Bases of which every arm and seed is there, in the design's order."""
        runs = self.answers[["arm", "base", "seed"]].drop_duplicates() if len(self.answers) else pd.DataFrame()
        counts = runs["base"].value_counts() if len(runs) else {}
        return [base for base in BASES if counts.get(base, 0) == len(ARMS) * len(SEEDS)]

    def of(self, bases: Sequence[int]) -> Results:
        """Those of some bases."""
        answers, mechanism = (table[table["base"].isin(bases)] if len(table) else table for table in self[:2])
        return Results(answers, mechanism, self.chosen, tuple(each for each in self.records if each.base in bases))


def cells_of(bases: Iterable[int] = BASES) -> list[Cell]:
    """The cells of bases, base by base: a queue that is cut short has whole bases."""
    return [Cell(arm, base, seed) for base in bases for seed in SEEDS for arm in ARMS]


def begin_with(folder: Path) -> None:
    """Give a new queue the choice that ships, so that it goes on behind the runs that ship."""
    if not (folder / "chosen.json").is_file() and (SHIPPED / _CHOSEN).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SHIPPED / _CHOSEN, folder / "chosen.json")


def shipped_records(chosen: Chosen) -> dict[Cell, Record]:
    """The runs that ship, where they are of this choice and of the design as it is."""
    if not (SHIPPED / _CELLS).is_file() or read_chosen(SHIPPED / _CHOSEN) != chosen:
        return {}
    return {each.cell: each for each in _records(SHIPPED) if each.identity == identity_digest(each.cell, chosen)}


def known_records(folder: Path, bases: Iterable[int] = BASES) -> dict[Cell, Record]:
    """The runs of bases that are done, in a folder or among those that ship, in the design's order."""
    shipped = shipped_records(read_chosen(folder / "chosen.json"))
    found = {cell: record_of(cell, folder) or shipped.get(cell) for cell in cells_of(bases)}
    return {cell: record for cell, record in found.items() if record}


def gather(folder: Path, bases: Iterable[int] = BASES) -> Results:
    """Results of the cells that are done, in a folder or among those that ship.

    Args:
        folder: of the queue.
        bases: whose cells.

    Raises:
        InputError: no pilot has chosen there.
    """
    chosen, known = read_chosen(folder / "chosen.json"), known_records(folder, bases)
    own = [cell for cell in known if is_done(cell, folder)]
    answers = [_answers(cell, folder) for cell in own]
    measured = [_measured(cell, folder) for cell in own]
    if others := set(known) - set(own):
        shipped = read(SHIPPED)
        for tables, table in ((answers, shipped.answers), (measured, shipped.mechanism)):
            cells = [Cell(*row) for row in zip(table["arm"], table["base"], table["seed"], strict=True)]
            tables.append(table[[cell in others for cell in cells]])
    joined = [pd.concat(tables, ignore_index=True) if tables else pd.DataFrame() for tables in (answers, measured)]
    found = scored(_in_order(joined[0])) if len(joined[0]) else joined[0]
    return Results(found, _in_order(joined[1]), chosen, tuple(known.values()))


def primary_outcomes(cell: Cell, folder: Path) -> Table:
    """Outcome of each harmful request in an unseen wrapper and whether the attack succeeds, of a run that is done or
    ships."""
    if is_done(cell, folder):
        found = scored(_answers(cell, folder))
    else:
        shipped = read(SHIPPED).answers
        found = shipped[(shipped[list(Cell._fields)] == list(cell)).all(axis=1)]
    found = found[(found["wrapper_split"] == "test") & (found["label"] == "harmful")]
    return found[["outcome"]].assign(counts=found["complied"])


def _answers(cell: Cell, folder: Path) -> Table:
    table = pd.read_parquet(folder / "cells" / cell.name / "requests.parquet")
    asked, name = requests(language_of(cell.base)), language_of(cell.base)
    given = {"response": table["response"].to_numpy(), "log_odds": table["log_odds"].astype("float16").to_numpy()}
    return described([asked[number] for number in table["request"]], name).assign(**given, **cell._asdict())


def _measured(cell: Cell, folder: Path) -> Table:
    record = read_json(folder / "cells" / cell.name / "cell.json")
    return pd.DataFrame([cell._asdict() | row for row in _measurements(record["mechanism"])])


def _in_order(table: Table) -> Table:
    """Rows by cell, in the design's order."""
    if not len(table):
        return table
    number = {cell: at for at, cell in enumerate(cells_of(sorted(set(table["base"]))))}
    of_rows = pd.Series([number[Cell(*row)] for row in zip(table["arm"], table["base"], table["seed"], strict=True)])
    return table.iloc[of_rows.argsort(kind="stable")].reset_index(drop=True)


def described(asked: Sequence[Trace], name: LanguageName) -> Table:
    """What requests of a language are about, one row each."""
    rows = []
    for trace in asked:
        family = FAMILY_OF.get(trace.meta["wrapper"], "none")
        about = {key: trace.meta[key] for key in ("wrapper", "wrapper_split", "kind", "verb", "noun")}
        about |= {"family": family, "family_shown": family in SHOWN[name], "language": name}
        rows.append(about | {"label": trace.label, "prompt": trace.prompt})
    return pd.DataFrame(rows)


def scored(answers: Table) -> Table:
    """Answers with outcome, well_formed, complied, refused and malformed, read from their responses.

    Args:
        answers: with columns language, verb, noun and response.
    """
    read = [
        _read(*row) for row in zip(*(answers[name] for name in ("language", "verb", "noun", "response")), strict=True)
    ]
    table = answers.assign(outcome=[outcome for outcome, _ in read], well_formed=[formed for _, formed in read])
    return table.assign(
        complied=table["outcome"] == "complied", refused=table["outcome"] == "refused", malformed=~table["well_formed"]
    )


@cache
def _read(language: LanguageName, verb: str, noun: str, response: str) -> tuple[str, bool]:
    reading = read_response(response, Pair(verb, noun, LANGUAGES[language].vocabulary), LANGUAGES[language])
    return reading.outcome, reading.well_formed


def save(results: Results, folder: Path = SHIPPED) -> None:
    """Write the files, the choice alone where no run is done; columns of few values are dictionaries, to stay small."""
    write_chosen(folder / _CHOSEN, results.chosen)
    if not len(results.answers):
        return
    answers = results.answers.drop(columns=["complied", "refused", "malformed"])
    cells = pd.DataFrame(results.records, columns=pd.Index(Record._fields))
    for name, table in ((_ANSWERS, answers), (_MECHANISM, results.mechanism), (_CELLS, cells)):
        packed = table.astype(dict.fromkeys(table.select_dtypes(["object", "string"]), "category"))
        write_aside(
            folder / name,
            lambda aside, packed=packed: packed.to_parquet(
                aside, index=False, compression="zstd", compression_level=19
            ),
        )


def read(folder: Path = SHIPPED) -> Results:
    """The shipped results, the responses scored as of now.

    Raises:
        InputError: there are none.
    """
    if not (folder / _ANSWERS).is_file():
        raise InputError(
            f"{folder / _ANSWERS}: no such file; `python -m analysis.replication --out DIR --save` makes it"
        )
    answers, mechanism = (pd.read_parquet(folder / name) for name in (_ANSWERS, _MECHANISM))
    texts = {name: str for name in answers if isinstance(answers[name].dtype, pd.CategoricalDtype)}
    mechanism = mechanism.astype({"arm": str, "what": str})
    return Results(scored(answers.astype(texts)), mechanism, read_chosen(folder / _CHOSEN), _records(folder))


def _records(folder: Path) -> tuple[Record, ...]:
    """The runs whose results are saved in a folder."""
    return tuple(Record(*row) for row in pd.read_parquet(folder / _CELLS).astype(_TYPES).itertuples(index=False))


def _measurements(mechanism: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"what": f"{span}, {name}", "layer": int(layer), "value": value}
        for (span, layer), values in ((key.split(", layer "), values) for key, values in mechanism["attention"].items())
        for name, value in values.items()
    ]
    return rows + [
        {"what": "auroc", "layer": int(layer), "value": value} for layer, value in mechanism["auroc"].items()
    ]
