"""Cross-validation folds of whole groups for probes: no group is ever on both sides.

Groups tie rows that share a prompt or are near-twins. Folds are scikit-learn's StratifiedGroupKFold; fewer than asked
when a class has fewer groups, or when a fold would lack a class.

Rows may also be of kinds (the conditions of :mod:`safekey_interp.measures.transfer`): then every fold holds both
classes of every kind. Labels are shuffled by :mod:`safekey_interp.measures.label_permutations`; a note says when the
size of a row's group gives its class away, which shuffled labels keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from safekey_interp.data.class_labels import ClassPair
from safekey_interp.errors import InputError
from safekey_interp.measures.auroc import auroc_columns
from safekey_interp.measures.label_permutations import shuffle_labels

MIN_GROUPS = 5
"""Groups that each class must appear in; with fewer, a probe's score says nothing about new prompts."""
_NOTABLE_AUROC = 0.55  # what the design alone gives away, from which on the note mentions it


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """One split of some rows, with its shuffles; cells with the same rows share it."""

    rows: Int[np.ndarray, " n"]
    """Which rows of the states are used, ascending."""
    positive: Bool[np.ndarray, " n"]
    """Whether each row is of the positive class."""
    fold: Int[np.ndarray, " n"]
    """The fold in which each row is scored."""
    n_folds: int
    """Folds drawn; 0 when no split gives every fold both classes."""
    n_groups: int
    """Groups among the rows."""
    shuffled: Bool[np.ndarray, "n n_permutations"]
    """Shuffled labels, a column each; no columns when the groups leave too few distinct shuffles."""
    codes: Int[np.ndarray, " n"]
    """Group of each row, as numbers from 0."""
    notes: tuple[str, ...]
    """What a reader of the table must know about this split."""

    @cached_property
    def draws(self) -> str:
        """The same for splits whose shuffles are the same, of the same rows."""
        return hashlib.sha256(self.rows.astype(np.int64).tobytes() + np.packbits(self.shuffled).tobytes()).hexdigest()


def positive_class(labels: Sequence[str | None], classes: ClassPair) -> Float[np.ndarray, " n"]:
    """1 for the positive class, 0 for the negative, NaN for rows of neither."""
    codes = {classes.positive: 1.0, classes.negative: 0.0}
    return np.array([codes.get(label, np.nan) if label else np.nan for label in labels], dtype=np.float64)


def why_not(positive: Bool[np.ndarray, " n"], groups: Sequence[str], classes: ClassPair) -> str | None:
    """Why these rows cannot be probed, in words; None when they can."""
    counts = (int(positive.sum()), int((~positive).sum()))
    if min(counts) == 0:
        both = ", ".join(f"{count:,} {name}" for count, name in zip(counts, classes, strict=True) if name)
        reason = "no labelled rows" if max(counts) == 0 else "one class only"
        return f"{reason} ({both})" if both else reason
    in_groups = _groups_in(positive.astype(int), _codes(groups))
    for name, count in zip(classes, reversed(in_groups), strict=True):
        if count < MIN_GROUPS:
            return f"too few groups: {count} {name} groups, at least {MIN_GROUPS} needed"
    return None


def make_plan(
    candidates: Int[np.ndarray, " m"],
    positive: Float[np.ndarray, " n_all"],
    groups: Sequence[str],
    *,
    seed: int,
    kinds: Int[np.ndarray, " n_all"] | None = None,
    n_folds: int = 5,
    n_permutations: int = 0,
    max_rows: int | None = None,
) -> Plan:
    """Split the candidate rows into folds of whole groups.

    Args:
        candidates: row numbers that have a label and a state; :func:`why_not` has let them pass.
        positive: 1, 0 or NaN for every row, from :func:`positive_class`.
        groups: the group of every row.
        seed: seeds the draw of rows, the folds and the shuffles.
        kinds: the kind of every row, as numbers from 0; all are of one kind when None.
        n_folds: folds wanted.
        n_permutations: shuffles wanted.
        max_rows: beyond this many rows, whole groups are drawn until each class of each kind has its share (an equal
            one, or all of a rarer one). AUROC, TPR and FPR do not depend on how common the classes are.
    """
    notes = []
    truth = positive[candidates] == 1
    codes = _codes([groups[row] for row in candidates])
    kind = np.zeros(len(candidates), int) if kinds is None else _codes(kinds[candidates])
    if max_rows is not None and len(candidates) > max_rows:
        kept = _draw_groups(_strata(truth, kind), codes, max_rows, seed)
        notes.append(f"{len(kept):,} of {len(candidates):,} rows, whole groups drawn with seed {seed}")
        candidates, truth, codes, kind = candidates[kept], truth[kept], _codes(codes[kept]), kind[kept]
    fold, n_folds_used = _split(_strata(truth, kind), codes, n_folds, seed)
    if n_folds_used == 0:
        notes.append("no split gives every fold both classes" + (" of every kind" if kind.any() else ""))
    shuffled = np.zeros((len(truth), 0), bool)
    if n_folds_used and n_permutations:
        shuffled, remarks = shuffle_labels(truth, codes, kind, fold, n_permutations=n_permutations, seed=seed)
        notes += remarks
        by_size = _auroc_of_group_size(truth, codes)
        if not remarks and by_size >= _NOTABLE_AUROC:
            notes.append(f"the size of its group alone ranks rows with AUROC {by_size:.3f}; shuffled labels keep that")
    return Plan(
        rows=candidates,
        positive=truth,
        fold=fold,
        n_folds=n_folds_used,
        n_groups=int(codes.max()) + 1,
        shuffled=shuffled,
        codes=codes,
        notes=tuple(notes),
    )


def part_of(plan: Plan, chosen: Bool[np.ndarray, " n"], groups: Sequence[str]) -> Plan:
    """Some rows of a plan on the same folds and shuffles.

    Args:
        plan: the whole.
        chosen: which of its rows.
        groups: the group of every row that there is.
    """
    rows = plan.rows[chosen]
    codes = _codes([groups[row] for row in rows])
    return replace(
        plan,
        rows=rows,
        positive=plan.positive[chosen],
        fold=plan.fold[chosen],
        n_groups=int(codes.max()) + 1,
        shuffled=plan.shuffled[chosen],
        codes=codes,
    )


class Planner:
    """Splits rows, or says why not; cells with the same rows share one split."""

    def __init__(
        self,
        positive: np.ndarray,
        groups: list[str],
        classes: ClassPair,
        *,
        seed: int,
        sizes: Mapping[str, Any],
        kinds: np.ndarray | None = None,
    ) -> None:
        if (n := sizes.get("n_permutations", 0)) < 0:
            raise InputError(f"n_permutations: got {n}, expected 0 or more")
        self._positive, self._groups, self._classes = positive, groups, classes
        self._make = partial(make_plan, positive=positive, groups=groups, seed=seed, kinds=kinds, **sizes)
        self._made: dict[bytes, Plan | str] = {}
        self._lock = Lock()

    def plan(self, present: Bool[np.ndarray, " n_all"]) -> Plan | str:
        """The split of the rows that are present, or why there is none, in words."""
        key = np.packbits(present).tobytes()
        with self._lock:  # two splits of the same rows would not be one
            if key not in self._made:
                rows = np.flatnonzero(present)
                reason = why_not(self._positive[rows] == 1, [self._groups[row] for row in rows], self._classes)
                self._made[key] = reason or self._make(rows)
            return self._made[key]


def _codes(groups: Any) -> np.ndarray:
    """Groups as numbers 0, 1, … in sorted order."""
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _strata(positive: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Class and kind of each row as one number; with one kind, the class: 1 for positive."""
    return _codes(2 * kind + positive)


def _groups_in(strata: np.ndarray, codes: np.ndarray) -> list[int]:
    """Groups that each stratum appears in."""
    return [len(np.unique(codes[strata == stratum])) for stratum in range(int(strata.max()) + 1)]


def _draw_groups(strata: np.ndarray, codes: np.ndarray, max_rows: int, seed: int) -> np.ndarray:
    """Row numbers of whole groups in random order, each taken while every stratum that it holds is below its quota."""
    sizes = np.bincount(strata)
    quota, left = np.zeros(len(sizes), int), max_rows
    for done, stratum in enumerate(np.argsort(sizes, kind="stable")):  # the rarest first: what they leave, others get
        last = done == len(sizes) - 1
        quota[stratum] = left if last else min(sizes[stratum], left // (len(sizes) - done))
        left -= quota[stratum]
    held = np.stack([np.bincount(codes, strata == stratum) for stratum in range(len(sizes))], axis=1)
    taken, total = np.zeros(len(held), bool), np.zeros(len(sizes))
    for group in np.random.default_rng([seed, 1]).permutation(len(held)):
        if np.all((total < quota) | (held[group] == 0)) and total.sum() < max_rows:
            taken[group] = True
            total += held[group]
    return np.flatnonzero(taken[codes])


def _split(strata: np.ndarray, codes: np.ndarray, n_folds: int, seed: int) -> tuple[np.ndarray, int]:
    """The fold of each row and how many folds; the most folds up to ``n_folds`` that all hold every stratum, else 0."""
    n_folds = min(n_folds, *_groups_in(strata, codes))
    fold, k = _folds_of(strata.astype(np.int64).tobytes(), codes.astype(np.int64).tobytes(), n_folds, seed)
    return fold.copy(), k


@lru_cache(maxsize=16)
def _folds_of(strata_bytes: bytes, codes_bytes: bytes, n_folds: int, seed: int) -> tuple[np.ndarray, int]:
    """The same, kept: the jobs of a run split the same rows, a tenth of a second each."""
    from sklearn.model_selection import StratifiedGroupKFold

    strata, codes = np.frombuffer(strata_bytes, np.int64), np.frombuffer(codes_bytes, np.int64)
    n_strata = int(strata.max()) + 1
    for k in range(n_folds, 1, -1):
        fold = np.zeros(len(strata), int)
        splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        for number, (_, test) in enumerate(splitter.split(codes, strata, codes)):
            fold[test] = number
        if all((np.bincount(strata[fold == number], minlength=n_strata) > 0).all() for number in range(k)):
            return fold, k
    return np.zeros(len(strata), int), 0


def _auroc_of_group_size(positive: np.ndarray, codes: np.ndarray) -> float:
    """AUROC of scoring each row by the share of positives among the rows whose groups are as large as its own."""
    size = np.bincount(codes)[codes]
    share = (np.bincount(size, positive) / np.maximum(np.bincount(size), 1))[size]
    return float(auroc_columns(share[:, None], positive[:, None], np.zeros(len(size), int))[0])
