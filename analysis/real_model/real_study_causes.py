"""Interventions on the trained SmolLM2s: calls of the package's own commands on a cell's weights and answers.

    python -m analysis.real_model --commands --data ../shared/data --out runs/real-study | bash

For each of SFT and both losses, with the first seed: X and U hidden from K; states of the plain, refused form of a
request put into its wrapped form; the heads through which the token before K reads U, the top ones together; and waking
the signal at inference, a direction added while the model answers, which is compared with training it. Each command
makes a run folder with controls and resumes. The traces (``causes/NAME.jsonl``) are the cell's own answers to the
tests, as many as each command's limit takes.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pandas as pd

from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import SEEDS, SHIPPED
from analysis.real_model.real_study_job import Cell, is_done
from safekey_interp.errors import InputError
from safekey_interp.models.organism import to_row
from safekey_interp.runs.storage import write_aside

COMMANDS = {
    "knockout": "knockout --to-span prompt --to-span understanding --limit 24 --n-random 4 --n-donors 2",
    "patch": "patch --position decision --position understanding --limit 192",
    "edges": "edges --limit 24 --top 1 --top 4 --top 16 --n-random 5",
    "waking": (
        "direction --generate --position decision --n-folds 2 --n-random 3 --scale 0 --scale 0.2 --scale 0.4 --scale 1 "
        "--max-new-tokens 60 --limit 96"
    ),
}
"""What follows ``safekey-interp intervene``, but for model, traces and folder."""


def commands(study: Study) -> list[str]:
    """The commands, a line each; writes the traces that they read.

    Raises:
        InputError: a cell is not done.
    """
    lines = []
    for arm in SHIPPED.values():
        cell = Cell(arm, SEEDS[0])
        if not is_done(cell, study):
            raise InputError(f"{study.out}: {cell.name} is not done; `--run` makes it")
        traces = write_answers(cell, study)
        for name, words in COMMANDS.items():
            weights, out = study.out / "cells" / cell.name / "model", study.out / "causes" / f"{cell.name}-{name}"
            about = f"--model {shlex.quote(str(weights))} --traces {shlex.quote(str(traces))}"
            lines.append(f"safekey-interp intervene {words} {about} --out {shlex.quote(str(out))}")
    return lines


def write_answers(cell: Cell, study: Study) -> Path:
    """A cell's answers to plain and wrapped requests as traces that the package reads: both labels and both sources in
    turn, so that any first part of the file has some of each."""
    table = pd.read_parquet(study.out / "cells" / cell.name / "answers.parquet")
    turns: dict[tuple[str | None, str | None], int] = {}
    rows = []
    for number, response in zip(table["request"], table["response"], strict=True):
        trace = study.prompts.tests[number]
        if trace.source != "xstest":
            kind = trace.label, trace.source
            turns[kind] = turns.get(kind, 0) + 1
            rows.append((turns[kind], to_row(trace.with_(response=response))))
    lines = [json.dumps(row) + "\n" for _, row in sorted(rows, key=lambda pair: pair[0])]
    file = study.out / "causes" / f"{cell.name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_aside(file, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))
    return file
