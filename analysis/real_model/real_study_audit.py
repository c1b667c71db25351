"""Hand audit of key sentences, blind to the arm: a sheet to fill in, and the finder's agreement with it.

    python -m analysis.real_model --audit --data ../shared/data --out runs/real-study
    python -m analysis.real_model --audited --out runs/real-study

The sheet (``audit/sheet.jsonl``) has 100 answers to wrapped requests, drawn over all runs, in an order that tells
nothing of the arm: number, prompt, response, and ``aha`` to be filled in with safe, unsafe, neutral, or none where
there is no key sentence. What the finder said, and the arm, are in ``audit/key.json``, which is not to be opened
before. A sheet that is there is not written again.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import AUDIT_SEED, N_AUDITED
from analysis.real_model.real_study_job import cells, is_done
from analysis.real_model.real_study_results import read_answers
from analysis.tables import markdown
from safekey_interp.errors import InputError
from safekey_interp.measures.intervals import share_interval
from safekey_interp.runs.storage import read_json, write_aside, write_json
from safekey_interp.segmentation.sentence_classes import Aha

WORDS = (*get_args(Aha), "none")
"""What the auditor writes."""


def write_sheet(study: Study) -> Path:
    """Draw the answers and write the sheet and its key.

    Raises:
        InputError: a sheet is there, or no cell is done.
    """
    folder = study.out / "audit"
    sheet = folder / "sheet.jsonl"
    if sheet.exists():
        raise InputError(f"{sheet}: is there already, expected none, since it may be filled in; move it away first")
    drawn = _drawn(study)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "key.json", [{"arm": arm, "aha": aha} for arm, aha, _, _ in drawn])
    lines = [
        json.dumps({"number": number, "prompt": prompt, "response": response, "aha": None})
        for number, (_, _, prompt, response) in enumerate(drawn)
    ]
    write_aside(sheet, lambda aside: aside.write_text("\n".join([*lines, ""]), encoding="utf-8"))
    return sheet


def read_sheet(out: Path) -> str:
    """Agreement of the finder with a filled sheet, overall and by arm, as Markdown.

    Raises:
        InputError: there is none, or a line is not filled in.
    """
    sheet, key = out / "audit" / "sheet.jsonl", read_json(out / "audit" / "key.json")
    if key is None or not sheet.is_file():
        raise InputError(f"{sheet}: no such file; `python -m analysis.real_model --audit` makes it")
    by_hand: dict[int, str] = {}
    for number, line in enumerate(sheet.read_text(encoding="utf-8").splitlines(), 1):
        said = _line(line, f"{sheet}, line {number}")
        if said["aha"] not in WORDS:
            raise InputError(f"{sheet}, line {number}: aha is {said['aha']!r}, expected one of {', '.join(WORDS)}")
        by_hand[said["number"]] = said["aha"]
    if sorted(by_hand) != list(range(len(key))):
        raise InputError(f"{sheet}: got {len(by_hand)} of {len(key)} answers, expected each once")
    table = pd.DataFrame(key).assign(by_hand=[by_hand[number] for number in range(len(key))])
    return markdown(_agreement(table))


def _line(text: str, where: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON, expected an object with number and aha") from error
    if not isinstance(said, dict) or not {"number", "aha"} <= set(said):
        raise InputError(f"{where}: expected an object with number and aha")
    return said


def _agreement(table: Any) -> pd.DataFrame:
    """How often finder and hand say the same, whether K is safe alone, and chance-corrected."""
    from sklearn.metrics import cohen_kappa_score

    lines = []
    for name, part in (("all", table), *table.groupby("arm", sort=True)):
        safe = (part["aha"] == "safe") == (part["by_hand"] == "safe")
        low, high = share_interval(safe.astype(float), list(range(len(part))))
        lines.append(
            {
                "arm": name,
                "n": len(part),
                "same class": f"{(part['aha'] == part['by_hand']).mean():.2f}",
                "same on safe or not": f"{safe.mean():.2f} [{low:.2f}, {high:.2f}]",
                "Cohen's kappa": f"{cohen_kappa_score(part['aha'], part['by_hand'], labels=list(WORDS)):.2f}",
                "safe by rules": f"{(part['aha'] == 'safe').mean():.2f}",
                "safe by hand": f"{(part['by_hand'] == 'safe').mean():.2f}",
            }
        )
    return pd.DataFrame(lines)


def _drawn(study: Study) -> list[tuple[str, str, str, str]]:
    """Arm, the finder's class, prompt and response."""
    asked = study.prompts.tests
    pool = []
    for cell in cells():
        if is_done(cell, study):
            answers = pd.read_parquet(study.out / "cells" / cell.name / "answers.parquet")
            pool += [
                (cell.arm, number, response)
                for number, response in zip(answers["request"], answers["response"], strict=True)
                if asked[number].source == "wrapped"
            ]
    if not pool:
        raise InputError(f"{study.out}: no cell is done, expected one; `--run` goes on with it")
    some = random.Random(AUDIT_SEED).sample(pool, min(N_AUDITED, len(pool)))
    read = read_answers([asked[number] for _, number, _ in some], [response for _, _, response in some])
    return [
        (arm, aha, asked[number].prompt, response)
        for (arm, number, response), aha in zip(some, read["aha"], strict=True)
    ]
