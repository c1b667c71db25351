"""Hand audit of key sentences, blind to the arm: a sheet to fill in, and the finder's agreement with it.

    python -m analysis.real_model --audit --data ../shared/data --out runs/real-study
    python -m analysis.real_model --audited --out runs/real-study

The sheet (``audit/sheet.jsonl``) has answers to wrapped requests, a few of each run that is done and was in no sheet
before, in an order that tells nothing of the arm: number, prompt, response, and ``aha`` to be filled in with safe,
unsafe, neutral, or none where there is no key sentence. What the finder said, and the run, are in ``audit/key.json``,
which is not to be opened before. A sheet that is there is not written again. ``--audited`` puts what the hand said into
``real-study-audit.json``, which ships, without texts; the agreement is that of all sheets. On harmful requests to runs
of the arms, which are what the aha share is of, the design's rule says whether verdicts on it are more than the
finder's (:func:`doubt`).
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pandas as pd

from analysis.real_model.real_study_choice import SHIPPED
from analysis.real_model.real_study_data import Study
from analysis.real_model.real_study_design import ARMS, AUDIT_SEED, LEAST_AGREEMENT, N_AUDITED, PRIMARY
from analysis.real_model.real_study_job import Cell, cells, is_done
from analysis.real_model.real_study_results import read_answers
from analysis.tables import markdown
from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.measures.intervals import share_interval
from safekey_interp.runs.storage import read_json, write_aside, write_json
from safekey_interp.segmentation.sentence_classes import Aha

WORDS = (*get_args(Aha), "none")
"""What the auditor writes."""


_FILE = "real-study-audit.json"


def write_sheet(study: Study, shipped: Path = SHIPPED) -> Path:
    """Draw the answers and write the sheet and its key.

    Args:
        study: its folder of runs has the answers.
        shipped: folder of what was audited before.

    Raises:
        InputError: a sheet is there, or no cell is done that was in none.
    """
    folder, before = study.out / "audit", {Cell(*row["cell"]) for row in read_json(shipped / _FILE) or []}
    sheet = folder / "sheet.jsonl"
    if sheet.exists():
        raise InputError(f"{sheet}: is there already, expected none, since it may be filled in; move it away first")
    drawn = _drawn(study, [cell for cell in cells() if is_done(cell, study) and cell not in before])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "key.json", [one.key for one in drawn])
    lines = [
        json.dumps({"number": number, "prompt": one.prompt, "response": one.response, "aha": None})
        for number, one in enumerate(drawn)
    ]
    write_aside(sheet, lambda aside: aside.write_text("\n".join([*lines, ""]), encoding="utf-8"))
    return sheet


def read_sheet(out: Path, shipped: Path = SHIPPED) -> str:
    """Put a filled sheet with those before it and move it away; agreement of the finder with all, as Markdown.

    Args:
        out: folder of the runs.
        shipped: folder of what was audited before.

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
    new = [row | {"by_hand": by_hand[number]} for number, row in enumerate(key)]
    # A killed command may have put them there already.
    before = [row for row in read_json(shipped / _FILE) or [] if row["cell"] not in [one["cell"] for one in new]]
    write_json(shipped / _FILE, [*before, *new])
    read = out / "audit-read" / str(sum(1 for _ in out.glob("audit-read/*")) + 1)
    read.parent.mkdir(exist_ok=True)
    shutil.move(out / "audit", read)
    return agreement(shipped)


def is_audited(shipped: Path = SHIPPED) -> bool:
    """Whether there is anything to agree with."""
    return bool(read_json(shipped / _FILE))


def agreement(shipped: Path = SHIPPED) -> str:
    """Agreement of the finder with the hand, overall and by arm, as Markdown.

    Raises:
        InputError: nothing was audited.
    """
    rows = read_json(shipped / _FILE)
    if not rows:
        raise InputError(f"{shipped / _FILE}: no such file; `python -m analysis.real_model --audited` makes it")
    return markdown(_agreement(_table(rows)))


def doubt(shipped: Path = SHIPPED, arms: Sequence[str] = ARMS) -> str:
    """What the audit has against the verdicts on the aha share, by the design's rule; empty where it has nothing.

    Args:
        shipped: folder of what was audited.
        arms: whose shares are compared; the agreement is that of all.
    """
    rows = read_json(shipped / _FILE)
    table = _table(rows or [])
    full: Any = table[(table["way"] == "full") & (table["label"] == "harmful")]
    if missing := [arm for arm in ARMS if arm not in set(full["arm"])]:
        return f"the finder's alone: not audited by hand are {', '.join(missing)}"
    safe: Any = pd.DataFrame({"rules": full["aha"] == "safe", "hand": full["by_hand"] == "safe"})
    reasons = []
    if (same := (safe["rules"] == safe["hand"]).mean()) < LEAST_AGREEMENT:
        reasons.append(f"the hand audit agrees in {same:.2f} of {len(safe)}, expected {LEAST_AGREEMENT}")
    for arm, part in safe.groupby(full["arm"], sort=True):
        rules, hand = part.mean()
        if arm in arms and abs(rules - hand) > PRIMARY.smallest + 1e-9:
            reasons.append(f"{arm} {rules:.2f} by rules and {hand:.2f} by hand (n {len(part)})")
    return f"the finder's alone: {'; '.join(reasons)}" if reasons else ""


def _table(rows: Any) -> Any:
    """What was audited, a row an answer; an arm's name says where its run is one of the two that ship."""
    cells = [Cell(*row["cell"]) for row in rows]
    arms = [cell.arm + ("" if cell.way == "full" else f", {cell.way}") for cell in cells]
    return pd.DataFrame(rows, columns=["cell", "request", "label", "prompt", "aha", "by_hand"]).assign(
        arm=arms, way=[cell.way for cell in cells]
    )


def _line(text: str, where: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON, expected an object with number and aha") from error
    if not isinstance(said, dict) or not {"number", "aha"} <= set(said):
        raise InputError(f"{where}: expected an object with number and aha")
    return said


def _agreement(table: Any) -> pd.DataFrame:
    """How often finder and hand say the same, whether K is safe alone, and chance-corrected; intervals over prompts. An
    arm's answers are those to harmful requests, as its aha share is."""
    from sklearn.metrics import cohen_kappa_score

    lines = []
    harmful = table[table["label"] == "harmful"]
    parts = ("all, harmful", harmful), ("all, harmless", table[table["label"] == "benign"])
    for name, part in (*parts, *harmful.groupby("arm", sort=True)):
        if not len(part):
            continue
        by_rules, by_hand = part["aha"] == "safe", part["by_hand"] == "safe"
        safe = by_rules == by_hand
        low, high = share_interval(safe.astype(float), list(part["prompt"]))
        kappas = (
            cohen_kappa_score(by_rules, by_hand, labels=[False, True]),
            cohen_kappa_score(part["aha"], part["by_hand"], labels=list(WORDS)),
        )
        of_safe, of_class = ("n/a" if math.isnan(kappa) else f"{kappa:.2f}" for kappa in kappas)
        lines.append(
            {
                "answers": name,
                "n": len(part),
                "same on safe or not": f"{safe.mean():.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"),
                "Cohen's kappa, safe or not": of_safe,
                "same class": f"{(part['aha'] == part['by_hand']).mean():.2f}",
                "Cohen's kappa, class": of_class,
                "safe by rules": f"{by_rules.mean():.2f}",
                "safe by hand": f"{by_hand.mean():.2f}",
            }
        )
    return pd.DataFrame(lines)


class _Drawn(NamedTuple):
    """An answer that is audited."""

    key: dict[str, Any]
    """The run, the request's number, label and prompt, and the finder's class."""
    prompt: str
    response: str


def _drawn(study: Study, of: list[Cell]) -> list[_Drawn]:
    """As many answers of each run, in one random order."""
    if not of:
        raise InputError(f"{study.out}: no cell is done that was in no sheet, expected one; `--run` goes on with it")
    asked, drawn = study.prompts.tests, []
    for cell in of:
        rng = random.Random(f"{AUDIT_SEED} {cell.name}")
        answers = pd.read_parquet(study.out / "cells" / cell.name / "answers.parquet")
        pool = [
            (number, response)
            for number, response in zip(answers["request"], answers["response"], strict=True)
            if asked[number].source == "wrapped"
        ]
        some = rng.sample(pool, min(N_AUDITED, len(pool)))
        read = read_answers([asked[number] for number, _ in some], [response for _, response in some])
        drawn += [
            _Drawn(
                {"cell": list(cell), **_about(int(number), asked[number]), "aha": aha}, asked[number].prompt, response
            )
            for (number, response), aha in zip(some, read["aha"], strict=True)
        ]
    return random.Random(AUDIT_SEED).sample(drawn, len(drawn))


def _about(number: int, request: Trace) -> dict[str, Any]:
    return {"request": number, "label": request.label, "prompt": request.group}
