"""Pairs of conditions between which probes are transferred, and the folds that their rows share.

All conditions share one split into folds of whole groups (:mod:`safekey_interp.measures.folds`, conditions as kinds):
every fold holds both classes of every condition.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from safekey_interp.data.class_labels import ClassPair
from safekey_interp.measures.folds import Plan, Planner, part_of, why_not
from safekey_interp.measures.layer_loop import LeftOut

_ALL_PAIRS = 3  # conditions of which all pairs are measured


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which condition is fitted and which tested: all pairs of three, else only those with the first or with itself."""
    pairs = itertools.product(names, names)
    return [(a, b) for a, b in pairs if len(names) <= _ALL_PAIRS or a == b or names[0] in (a, b)]


class Design(NamedTuple):
    """How the rows that are present are split, together and by condition."""

    plan: Plan | None
    """All conditions on the same folds; None when fewer than two can be probed."""
    rows_of: dict[str, np.ndarray]
    """Which of its rows are of each condition."""
    part: dict[str, Plan]
    """Each condition's rows, with groups numbered among them."""
    reasons: list[tuple[str, str, int]]
    """Conditions that cannot be probed: name or nothing, why, n."""

    def left_out(self, place: str = "") -> list[LeftOut]:
        """The reasons, for one place."""
        return [LeftOut(f"transfer{' of ' * bool(name)}{name}{place}", why, n) for name, why, n in self.reasons]


class Designer:
    """Splits rows; cells with the same rows share one design."""

    def __init__(
        self,
        positive: np.ndarray,
        groups: Sequence[str],
        condition: Sequence[str | None],
        *,
        names: Sequence[str],
        classes: ClassPair,
        seed: int,
        sizes: Mapping[str, Any],
    ) -> None:
        self._positive, self._classes = positive, classes
        self._groups = [str(group) for group in groups]
        codes: dict[str | None, int] = {name: code for code, name in enumerate(names)}
        self._kind = np.array([codes.get(name, -1) for name in condition], dtype=int)
        self._names = dict(enumerate(names))
        self._planner = Planner(positive, self._groups, classes, seed=seed, sizes=sizes, kinds=self._kind)
        self._made: dict[bytes, Design] = {}
        self._lock = Lock()
        self.eligible = ~np.isnan(positive) & (self._kind >= 0)
        """Rows that have a class and a condition."""

    def narrow(self, names: Collection[str]) -> None:
        """Look at these conditions only."""
        self._names = {code: name for code, name in self._names.items() if name in names}
        self.eligible &= np.isin(self._kind, list(self._names))

    def design(self, present: np.ndarray) -> Design:
        """The split of the rows that are present."""
        key = np.packbits(present).tobytes()
        with self._lock:  # two splits of the same rows would not be one
            if key not in self._made:
                self._made[key] = self._make(present)
            return self._made[key]

    def _make(self, present: np.ndarray) -> Design:
        usable, reasons = [], []
        for code, name in self._names.items():
            rows = np.flatnonzero(present & (self._kind == code))
            why = why_not(self._positive[rows] == 1, [self._groups[row] for row in rows], self._classes)
            if why is None:
                usable.append(code)
            else:
                reasons.append((name, why, len(rows)))
        if len(usable) < 2:
            if not reasons:
                reasons = [("", "fewer than two conditions", int(present.sum()))]
            return Design(None, {}, {}, reasons)
        plan = self._planner.plan(present & np.isin(self._kind, usable))
        if isinstance(plan, str) or plan.n_folds == 0:
            why = plan if isinstance(plan, str) else plan.notes[-1]
            return Design(None, {}, {}, [*reasons, ("", why, int(present.sum()))])
        rows_of = {self._names[code]: self._kind[plan.rows] == code for code in usable}
        parts = {name: part_of(plan, rows, self._groups) for name, rows in rows_of.items()}
        return Design(plan, rows_of, parts, reasons)
