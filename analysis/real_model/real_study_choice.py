"""What the pilot of the study of a trained SmolLM2 chose, as the runs and the report read it.

The design has the rules, and :mod:`analysis.real_model.real_study_pilot` follows them; its choice is a file beside the
runs (``chosen.json``), and ships with the results, so that no number of it is typed in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from analysis.contrast_verdicts import Outcome
from analysis.real_model.real_study_design import CO_PRIMARY, PRIMARY, Setting
from analysis.study_queue import read_choice
from safekey_interp.runs.storage import write_json


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
