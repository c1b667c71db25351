"""What the pilot of the study over many toys chose, as the runs and the report read it.

The design has the rules, and :mod:`analysis.replication.toy_study_pilot` follows them; its choice is a file beside the
runs (``chosen.json``), and ships with the results (``toy_study_chosen.json``), so that no number of it is typed in.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from analysis.contrast_verdicts import Outcome
from analysis.replication.toy_study_design import CO_PRIMARY, PRIMARY
from analysis.study_queue import read_choice
from safekey_interp.runs.storage import write_json


class Chosen(NamedTuple):
    """The pilot's choice."""

    rate: float
    """Learning rate of all arms."""
    dose: dict[str, float]
    """Weight of K at the dose of query-mask modelling, by language."""
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
    return Chosen(**read_choice(file, "python -m analysis.replication --pilot --out DIR"))


def write_chosen(file: Path, chosen: Chosen) -> None:
    """Write the choice."""
    write_json(file, chosen._asdict())
