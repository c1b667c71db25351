"""What the pilot of the study of a trained SmolLM2 chose, as the runs and the report read it.

The design has the rules, and :mod:`analysis.real_model.real_study_pilot` follows them; its choice is a file beside the
runs (``chosen.json``), and ships with the results, so that no number of it is typed in. What each run of the pilot
found (``pilot/NAME.json``) ships, too (``real-study-pilot.json``): a pilot in a new clone goes on behind it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from analysis.contrast_verdicts import Outcome
from analysis.real_model.real_study_design import CO_PRIMARY, PRIMARY, Setting
from analysis.study_queue import read_choice
from safekey_interp.runs.storage import read_json, write_json

SHIPPED = Path(__file__).parent
CHOSEN, _PILOT, _TABLE = "real-study-chosen.json", "real-study-pilot.json", "real-study-pilot.md"


class Chosen(NamedTuple):
    """The pilot's choice."""

    setting: Setting
    """Of all arms."""
    go: bool
    """Whether SFT leaves room in both directions; if not, the runs describe and nothing is tested."""
    dose: float
    """Weight of K at the dose of query-mask modelling."""
    log_odds: float
    """Smallest effect of interest on the log-odds, nats."""
    lora_rate: float
    """Learning rate of the two runs that ship."""

    @property
    def outcomes(self) -> tuple[Outcome, Outcome]:
        """The outcomes that are tested, with their smallest effects of interest."""
        return PRIMARY, CO_PRIMARY._replace(smallest=self.log_odds)


def read_chosen(file: Path) -> Chosen:
    """The choice in a file.

    Raises:
        InputError: there is none.
    """
    record: Any = read_choice(file, "python -m analysis.real_model --pilot --data DIR --out DIR")
    return Chosen(**record | {"setting": Setting(**record["setting"])})


def write_chosen(file: Path, chosen: Chosen) -> None:
    """Write the choice."""
    write_json(file, chosen._asdict() | {"setting": chosen.setting._asdict()})


def begin_with(out: Path, shipped: Path = SHIPPED) -> None:
    """Give a folder of runs what ships of the pilot and its choice, where it has none of its own."""
    for name, record in (read_json(shipped / _PILOT) or {}).items():
        file = out / "pilot" / f"{name}.json"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, record)
    if (shipped / CHOSEN).is_file() and not (out / "chosen.json").is_file():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped / CHOSEN, out / "chosen.json")


def save_pilot(out: Path, shipped: Path = SHIPPED) -> int:
    """Ship what the pilot found so far, and its choice where it has chosen; the number of its runs."""
    found = {file.stem: read_json(file) for file in sorted((out / "pilot").glob("*.json"))}
    write_json(shipped / _PILOT, found)
    for own, name in ((out / "chosen.json", CHOSEN), (out / "pilot.md", _TABLE)):
        if own.is_file():
            shutil.copy(own, shipped / name)
    return len(found)
