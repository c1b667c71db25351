"""Rows of the probe in tables of separability and transfer: those whose method is the estimator that was asked for.

Such tables have rows of other methods as well: the difference of class means, and the words alone. Tables without
the column ``estimator`` were written when the logistic probe was the only one.
"""

from __future__ import annotations

from typing import NamedTuple

from safekey_interp.reporting.figures.figure_style import Table
from safekey_interp.reporting.labels import METHODS

_LOGISTIC = "logistic"


class ProbeWords(NamedTuple):
    """What an estimator is called in sentences; not escaped."""

    name: str
    """The probe."""
    reads: str = "a classifier"
    """How it reads a class off the states."""
    shuffled: str = "same probe"
    """What is fitted to shuffled labels."""


LOGISTIC = ProbeWords(METHODS[_LOGISTIC], "a regularised linear classifier", "ridge classifier")
_WORDS = {
    _LOGISTIC: LOGISTIC,
    "lda": ProbeWords(METHODS["lda"], "the axis that parts the classes best under one common covariance"),
    "mass_mean": ProbeWords(METHODS["mass_mean"], "the place along the line between the class means"),
}


def probe_rows(table: Table) -> Table:
    """The rows of the table's estimator: neither the difference of means beside it nor the words alone."""
    asked_for = table["estimator"].astype(str) if "estimator" in table.columns else _LOGISTIC
    return table[table["method"].astype(str) == asked_for]


def estimator_in(table: Table) -> str:
    """The estimator of the table's probe, as its column ``method`` has it."""
    methods = probe_rows(table)["method"]
    return str(methods.iloc[0]) if len(methods) else _LOGISTIC


def probe_words(table: Table) -> ProbeWords:
    """What the table's probe is called."""
    name = estimator_in(table)
    return _WORDS.get(name, ProbeWords(name))
