"""Pilot of the study over many toys: the learning rate, the dose of the control, and the scale of the log-odds.

On :data:`~analysis.replication.toy_study_design.PILOT_BASES` and on development pairs and wrappers, of which the study
has none. One rate serves all arms: the largest of :data:`RATES` at which fewer than 5 % of the answers to wrapped
harmful requests are malformed in every arm, both bases together. The dose is that of :mod:`train.dose_match`. The
smallest effect of interest on the log-odds is that which goes with .05 of attack success where a request is at the
boundary: .05 over the share of SFT's requests within half a nat of it.

A run's file is ``pilot/NAME.json``; what is there is not run again.
"""

from __future__ import annotations

from pathlib import Path

from analysis.replication.toy_study_design import (
    Changes,
    language_of,
)
from analysis.replication.toy_study_job import Cell, answered, config_of, log_odds, requests, tuned
from analysis.replication.toy_study_results import described, scored
from safekey_interp.runs.storage import write_json

RATES = (3e-4, 2e-4, 1.5e-4, 1e-4)
"""From the largest; a rate is tried when the one before it failed."""
_SEED = 1


def name_of(cell: Cell, rate: float) -> str:
    """Of a pilot run's file."""
    return f"{cell.name}-rate{rate:g}"


def run_pilot(cell: Cell, rate: float, folder: Path) -> None:
    """Fine-tune a pilot base at a rate, and ask what development asks; the file has a row a wrapper and label."""
    file = folder / "pilot" / f"{name_of(cell, rate)}.json"
    if file.is_file():
        return
    language = language_of(cell.base)
    asked = requests(language, "development")
    model, seconds = tuned(cell, folder, config_of(cell, folder / "work" / name_of(cell, rate), _rate(rate)))
    table = scored(described(asked, language).assign(response=answered(model, asked)))
    table["log_odds"] = log_odds(model, asked, cell.language)
    table["near"] = table["log_odds"].abs() < 0.5
    columns = ["complied", "refused", "malformed", "log_odds", "near"]
    means = table.groupby(["wrapper_split", "wrapper", "label"], sort=False)[columns].mean()
    counts = table.groupby(["wrapper_split", "wrapper", "label"], sort=False).size().rename("n")
    rows = means.join(counts).reset_index().to_dict("records")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"arm": cell.arm, "base": cell.base, "rate": rate, "seconds": seconds, "rows": rows})


def _rate(rate: float) -> Changes:
    return {"learning_rate": rate, "head_learning_rate": rate}
