"""Questions of the analysis, in order, and storage of their answers.

    OUT/answers/NAME.json    data of a question's figures for the index and the claims

A stored answer for the same models, prompts and seed is reused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from analysis.paper.export import Answer, Sheet, Shown, save_pictures, save_sheet
from analysis.paper.models import Bench
from analysis.paper.verdicts import Measured
from safekey_interp.errors import RunError
from safekey_interp.runs.storage import read_json, sha256_of, write_json


class Question(NamedTuple):
    """One question of the analysis."""

    number: int
    """As in CLAIMS.md."""
    name: str
    """What ``--only`` takes, beside the number."""
    title: str
    """The question."""
    module: str
    """The script that answers it, by its function ``answer``."""
    reads: tuple[str, ...] = ()
    """Patterns of shipped results of training runs that it reads, in :data:`ANALYSIS`."""

    def answer(self, bench: Bench) -> Answer:
        """Draw its figures.

        Raises:
            RunError: these models and prompts cannot answer it.
        """
        return import_module(f"analysis.paper.{self.module}").answer(bench)


_REPLICATION = ("replication/part1-*.parquet",)
_STUDIES = ("replication/*.parquet", "replication/toy_study_chosen.json", "real_model/real-study*")
QUESTIONS = (
    Question(1, "key_sentence", "Does the key sentence decide?", "q1_key_sentence"),
    Question(2, "dormant_signal", "Is there a dormant signal?", "q2_dormant_signal"),
    Question(
        3, "attention", "What does the key sentence attend to, and what affects it?", "q3_attention", _REPLICATION
    ),
    Question(4, "representations", "What do the hidden states encode before it?", "q4_representations", _REPLICATION),
    Question(5, "depth", "How deep does alignment go?", "q5_depth"),
    Question(6, "ablations", "Which part of the training has an effect?", "q6_ablations", _STUDIES),
    Question(7, "cost", "What do the two losses cost?", "q7_cost"),
)
OF_A_RUN = ("attention", "representations")
"""Questions that a finished run of ``probe`` answers alone."""


ANALYSIS = Path(__file__).parents[1]


class Kept(NamedTuple):
    """What is kept of an answer."""

    question: Question
    """Which."""
    sheets: list[Shown]
    """Its figures; none where it could not be answered."""
    measured: list[Measured]
    """What they say of claims."""
    why_not: str
    """Why it could not be answered, in one line; empty where it could."""
    no_pictures: str
    """Why there is no PNG or SVG, in one line; empty where there is."""


def kept(out: Path, question: Question, identity: Mapping[str, Any]) -> Kept | None:
    """The answer that is there; None when it is none of this identity, or a file of it is gone."""
    record = read_json(_file(out, question))
    if not isinstance(record, dict) or record.get("identity") != _identity(question, identity):
        return None
    sheets = [Shown(**sheet) for sheet in record["sheets"]]
    files = [
        out / name for sheet in sheets for name in (f"{sheet.name}.html", *(f"{csv}.csv" for csv in sheet.numbers))
    ]
    if not all(file.is_file() for file in files):
        return None
    measured = [Measured(**_with_nan(row)) for row in record["measured"]]
    return Kept(question, sheets, measured, record["why_not"], record["no_pictures"])


def make(bench: Bench, question: Question, identity: Mapping[str, Any]) -> None:
    """Answer a question, and keep it."""
    bench.progress.stage(question.title, None)
    sheets: list[Sheet] = []
    measured: list[Measured] = []
    why_not = no_pictures = ""
    try:
        sheets, measured = question.answer(bench)
    except RunError as error:
        why_not = str(error)
    for sheet in sheets:
        save_sheet(bench.out, sheet)
    if sheets:
        no_pictures = save_pictures(bench.out, sheets) or ""
    file = _file(bench.out, question)
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {"sheets": [asdict(sheet.shown()) for sheet in sheets], "measured": [vars(claim) for claim in measured]}
    write_json(
        file, {"identity": _identity(question, identity), "why_not": why_not, "no_pictures": no_pictures} | record
    )


def _identity(question: Question, identity: Mapping[str, Any]) -> dict[str, Any]:
    runs = sorted(file for pattern in question.reads for file in ANALYSIS.glob(pattern))
    return {**identity, "runs": {file.name: sha256_of(file) for file in runs}}


def _file(out: Path, question: Question) -> Path:
    return out / "answers" / f"{question.name}.json"


def _with_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in record.items()}
