"""Claims of the paper and their evidence, from ``claims.yaml``.

The rule is in ``verdicts.py``. Each claim lists its evidence, strongest first, with the smallest effect of interest in
its own unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from safekey_interp.errors import InputError

FILE = Path(__file__).with_name("claims.yaml")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One way to measure a claim: a difference, its unit, and what its interval is over."""

    name: str
    """Unique in the claim; what a measurement refers to."""
    contrast: str
    """The difference that is measured."""
    unit: str
    """Its unit."""
    smallest: float
    """Smallest effect of interest, in that unit, above 0."""
    control: str
    """What the difference is held against."""
    expects: int = 1
    """The sign that the claim expects, 1 or -1."""
    over: str = "prompts"
    """What the interval is over."""
    level: str = "95 %"
    """Level of the interval. Another one than 95 % is corrected by its design already, and enters no Holm family."""
    beside: bool = False
    """Whether it is another reading of the claim, which never decides."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One thing that the paper says, and how it is tested here."""

    id: str
    """The question's number and a letter."""
    says: str
    """The claim in our words."""
    where: str
    """Where it is made."""
    theirs: str
    """What is shown there."""
    evidence: tuple[Evidence, ...]
    """Strongest first."""
    built_in: str = ""
    """Why the toy's grammar or training makes it true there; empty where neither does."""
    of_training: bool = False
    """Whether it compares trainings, so that all rows speak of one thing; else each model is judged by itself."""
    ours: bool = False
    """Whether nobody but this project makes the claim."""

    def by(self, name: str) -> Evidence:
        """The evidence of a name; the strongest when the name is empty.

        Raises:
            KeyError: the claim has none of it.
        """
        return {evidence.name: evidence for evidence in self.evidence}[name] if name else self.evidence[0]

    def rank(self, name: str) -> int:
        """Place of an evidence in the claim's list, 0 for the strongest."""
        return [evidence.name for evidence in self.evidence].index(name)


def read_claims(file: Path = FILE) -> tuple[Claim, ...]:
    """Claims of a YAML file.

    Raises:
        InputError: a field is missing, unknown or out of range, a name is there twice, or no evidence may decide.
    """
    rows = yaml.safe_load(file.read_text(encoding="utf-8"))
    claims = tuple(_claim(file, row) for row in rows)
    if len({claim.id for claim in claims}) != len(claims):
        raise InputError(f"{file.name}: an id is there twice, expected each once")
    return claims


def _claim(file: Path, row: dict[str, Any]) -> Claim:
    where = f"{file.name}: claim {row.get('id', '?')}"
    try:
        evidence = tuple(Evidence(**item) for item in row.pop("evidence", ()))
        claim = Claim(**row, evidence=evidence)
    except TypeError as error:
        raise InputError(f"{where}: {str(error).partition('__init__() ')[2]}") from None
    names = [item.name for item in evidence]
    if not evidence or evidence[0].beside or len(set(names)) != len(names):
        raise InputError(f"{where}: got evidence {names}, expected names of their own, the first of which decides")
    for item in evidence:
        if item.smallest <= 0 or item.expects not in (1, -1):
            raise InputError(f"{where}, {item.name}: expected a smallest effect above 0, and a sign of 1 or -1")
    return claim


CLAIMS = read_claims()
BY_ID = {claim.id: claim for claim in CLAIMS}
