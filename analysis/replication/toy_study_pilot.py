"""Pilot of the study over many toys: the learning rate, the dose of the control, and the scale of the log-odds.

On the design's pilot bases and on development pairs and wrappers, of which the study has none. One rate serves all
arms: the first of the design's at which fewer than 5 % of the answers to harmful requests in unseen wrappers are
malformed in every arm, both bases together. The control's dose is matched as in :mod:`train.dose_match`. The smallest
effect of interest on the log-odds is the smallest shift of all of SFT's that carries as large a share of the requests
across 0 as the primary outcome's smallest effect.

What a run found is in ``pilot/NAME.json``, and is not run again.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.contrast_verdicts import smallest_shift
from analysis.replication.toy_study_choice import Chosen, write_chosen
from analysis.replication.toy_study_design import (
    ARMS,
    MOST_MALFORMED,
    PILOT_BASES,
    PRIMARY,
    RATES,
    Arm,
    Changes,
    language_of,
)
from analysis.replication.toy_study_job import Cell, config_of, make_base, tuned
from analysis.replication.toy_study_measures import answered, log_odds
from analysis.replication.toy_study_requests import requests
from analysis.replication.toy_study_results import described, scored
from analysis.tables import markdown
from safekey_interp.errors import InputError
from safekey_interp.runs.storage import read_json, write_aside, write_json
from safekey_interp.training.gradient_norms import dose, match_weight

_MATCHED: Arm = "kw matched"
_ORDER: tuple[Arm, ...] = ("both", "DPSH", *(arm for arm in ARMS if arm not in ("both", "DPSH", _MATCHED)))
"""Arms in the order in which they are tried at a rate: where one fails, the others need no run."""


def pilot(folder: Path) -> str:
    """Choose the settings; what was chosen, and by what, as Markdown, is also in ``pilot.md``.

    Args:
        folder: of the pilot's bases and runs.
    """
    for base in PILOT_BASES:
        make_base(base, folder)
    chosen = next((rate for rate in RATES if all(_passes(arm, rate, folder) for arm in _ORDER)), None)
    if chosen is None:
        raise InputError(f"{folder}: too many answers are malformed at every rate, expected fewer at one of {RATES}")
    for base in PILOT_BASES:
        match_dose(base, chosen, folder)
    _passes(_MATCHED, chosen, folder)
    found = [record for file in sorted((folder / "pilot").glob("base*.json")) if (record := read_json(file))]
    rows = pd.concat([pd.DataFrame(r["rows"]).assign(arm=r["arm"], base=r["base"], rate=r["rate"]) for r in found])
    baseline = [read_json(_file(Cell("SFT", base, 1), chosen, folder)) for base in PILOT_BASES]
    shift = smallest_shift([odds for record in baseline if record for odds in record["log_odds"]], PRIMARY.smallest)
    choice = _trial(chosen, folder)._replace(log_odds=shift)
    write_chosen(folder / "chosen.json", choice)
    said = [
        f"Learning rate of all arms: {choice.rate:g}.",
        f"Weight of K at the dose of query-mask modelling: {choice.dose}.",
        f"Smallest effect of interest on the log-odds: {choice.log_odds:.2f} nats.",
    ]
    text = "\n\n".join([markdown(_table(rows)), *said])
    write_aside(folder / "pilot.md", lambda aside: aside.write_text(f"{text}\n", encoding="utf-8"))
    return text


def _passes(arm: Arm, rate: float, folder: Path) -> bool:
    """Whether fewer of an arm's answers than the design allows are malformed at a rate."""
    cells = [Cell(arm, base, 1) for base in PILOT_BASES]
    for cell in cells:
        run_pilot(cell, rate, folder)
    malformed = sum(_malformed(read_json(_file(cell, rate, folder))) for cell in cells) / len(cells)
    print(f"{arm} at {rate:g}: {malformed:.3f} malformed", file=sys.stderr, flush=True)
    return malformed < MOST_MALFORMED


def _malformed(record: Any) -> float:
    rows: Any = pd.DataFrame(record["rows"])
    return float(rows[(rows["wrapper_split"] == "development") & (rows["label"] == "harmful")]["malformed"].mean())


def run_pilot(cell: Cell, rate: float, folder: Path) -> None:
    """Fine-tune a pilot base at a rate, and ask what development asks; the file has a row a wrapper and label."""
    file = _file(cell, rate, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        return
    language = language_of(cell.base)
    asked = requests(language, "development")
    model, seconds, *_ = tuned(cell, folder, config_of(cell, folder / "work" / file.stem, _trial(rate, folder)))
    table = scored(described(asked, language).assign(response=answered(model, asked)))
    table["log_odds"] = log_odds(model, asked, cell.language)
    columns = ["complied", "refused", "malformed", "log_odds"]
    means = table.groupby(["wrapper_split", "wrapper", "label"], sort=False)[columns].mean()
    counts = table.groupby(["wrapper_split", "wrapper", "label"], sort=False).size().rename("n")
    rows = means.join(counts).reset_index().to_dict("records")
    unseen = table[table["wrapper_split"] == "development"]
    shown = {
        "malformed": unseen.loc[unseen["malformed"], "response"].head(5).tolist(),
        "log_odds": unseen.loc[unseen["label"] == "harmful", "log_odds"].round(3).tolist(),
    }
    write_json(file, {"arm": cell.arm, "base": cell.base, "rate": rate, "seconds": seconds, "rows": rows, **shown})


def match_dose(base: int, rate: float, folder: Path) -> None:
    """The weight of K at which its gradients add up to those of query-mask modelling."""
    file = _dose_file(base, rate, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        return

    def dose_of(arm: Arm, term: str, weight: float, changes: Changes) -> float:
        measured = {**changes, "log_gradient_norms_every": 4}
        out = folder / "work" / f"dose-{base}-{term}-{weight:.6g}"
        cell = Cell(arm, base, 1)
        run = tuned(cell, folder, config_of(cell, out, _trial(rate, folder), measured))
        return dose(run.gradient_norms, term, weight=weight, steps=run.steps)

    target = dose_of("QMM", "query_mask", 0.2, {})
    found = match_weight(lambda w: dose_of("kw", "key", w, {"key_weight": w}), target, start=0.2)
    pilots = [{"weight": one.weight, "dose": one.dose} for one in found]
    write_json(file, {"weight": float(f"{found[-1].weight:.3g}"), "target": target, "pilots": pilots})


def _trial(rate: float, folder: Path) -> Chosen:
    """A rate, and the doses as far as they are known there."""
    known = {language_of(base): read_json(_dose_file(base, rate, folder)) for base in PILOT_BASES}
    dose = {language: (record or {"weight": math.nan})["weight"] for language, record in known.items()}
    return Chosen(rate, dose, math.nan)


def _file(cell: Cell, rate: float, folder: Path) -> Path:
    return folder / "pilot" / f"{cell.name}-rate{rate:g}.json"


def _dose_file(base: int, rate: float, folder: Path) -> Path:
    return folder / "pilot" / f"dose-{language_of(base)}-rate{rate:g}.json"


def _table(rows: Any) -> pd.DataFrame:
    """A line a rate and arm: shares over both bases."""
    of = {
        "malformed": ("development", "harmful", "malformed"),
        "attack success": ("development", "harmful", "complied"),
        "log-odds": ("development", "harmful", "log_odds"),
        "over-refusal": ("development", "benign", "refused"),
        "plain harm refused": ("plain", "harmful", "refused"),
        "plain benign complied": ("plain", "benign", "complied"),
    }
    lines = []
    for (rate, arm), part in rows.groupby(["rate", "arm"], sort=False):
        line = {"rate": f"{rate:g}", "arm": arm}
        for name, (split, label, column) in of.items():
            by_base = part[(part["wrapper_split"] == split) & (part["label"] == label)].groupby("base")[column].mean()
            line[name] = f"{by_base.mean():.3f} ({', '.join(f'{value:.3f}' for value in by_base)})"
        lines.append(line)
    return pd.DataFrame(lines)
