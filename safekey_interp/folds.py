"""How labelled rows are split for probes, and how their labels are shuffled, so that no group is ever on both sides.

Groups tie rows that share a prompt or are near-twins. Folds are scikit-learn's StratifiedGroupKFold; fewer than asked
when a class has fewer groups, or when a fold would lack a class.

Shuffled labels keep whatever a probe could learn from the design alone. Within each fold, the label blocks of groups
of equal size trade places (exchangeability of whole blocks: Winkler et al. 2015, *Multi-level block permutation*,
NeuroImage 123), and then labels trade places within each group, which matters only for groups that hold both classes:
without the second step the twins of XSTest, one of each class in every group, could not be shuffled at all. Every
shuffle keeps the number of positive rows of every fold, so the folds are as stratified for it as for the true labels.
Its expected AUROC is 0.5 where groups of each size hold the classes in the same proportion. Elsewhere a probe that
knows no more than the size of a row's group does better (0.575 on XSTest, whose groups of three hold one harmful prompt
and whose pairs hold one too): shuffled labels keep that, so that the null includes it, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import gammaln

from safekey_interp.errors import InputError
from safekey_interp.ranking import auroc_columns
from safekey_interp.stats import bootstrap_weights

MIN_GROUPS = 5
"""Groups that each class must appear in; with fewer, a probe's score says nothing about new prompts."""
CLASSES = {"label": ("harmful", "benign"), "aha": ("unsafe", "safe")}
"""Positive and negative class of each way of labelling."""
IGNORED = {"label": (), "aha": ("neutral",)}
"""Values that belong to neither class and are left out."""
_NOTABLE_AUROC = 0.55  # what the design alone gives away, from which on the note mentions it
_MIN_ARRANGEMENTS = 20  # fewer distinct shuffles than this cannot resolve a p-value of 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """One split of some rows, with its shuffles and bootstrap draws; cells with the same rows share it."""

    rows: Int[np.ndarray, " n"]
    """Which rows of the states are used, ascending."""
    positive: Bool[np.ndarray, " n"]
    """Whether each row is of the positive class (harmful, unsafe)."""
    fold: Int[np.ndarray, " n"]
    """The fold in which each row is scored."""
    n_folds: int
    """Folds drawn; 0 when no split gives every fold both classes."""
    n_groups: int
    """Groups among the rows."""
    shuffled: Bool[np.ndarray, "n n_permutations"]
    """Shuffled labels, a column each; no columns when the groups leave too few distinct shuffles."""
    weights: Float[np.ndarray, "n_draws n"]
    """Bootstrap counts of the rows; whole groups are drawn."""
    notes: tuple[str, ...]
    """What a reader of the table must know about this split."""


def positive_class(labels: Sequence[str | None], label_by: str) -> Float[np.ndarray, " n"]:
    """1 for the positive class, 0 for the negative, NaN for rows without a class.

    Raises:
        InputError: ``label_by`` is unknown, or a label is none of its values.
    """
    if label_by not in CLASSES:
        raise InputError(f"label_by: got {label_by!r}, expected one of {', '.join(CLASSES)}")
    codes: dict[str | None, float] = dict(zip(CLASSES[label_by], (1.0, 0.0), strict=True))
    codes |= dict.fromkeys((None, *IGNORED[label_by]), np.nan)
    unknown = sorted({str(label) for label in labels if label not in codes})
    if unknown:
        raise InputError(
            f"labels by {label_by}: got {unknown[0]!r}, expected {', '.join(map(str, codes))}; rename the values"
        )
    return np.array([codes[label] for label in labels], dtype=np.float64)


def why_not(positive: Bool[np.ndarray, " n"], groups: Sequence[str], label_by: str) -> str | None:
    """Why these rows cannot be probed, in words; None when they can."""
    names = CLASSES[label_by]
    counts = (int(positive.sum()), int((~positive).sum()))
    if min(counts) == 0:
        both = ", ".join(f"{count:,} {name}" for count, name in zip(counts, names, strict=True))
        return f"no labelled rows ({both})" if max(counts) == 0 else f"one class only ({both})"
    in_groups = _groups_per_class(positive, _codes(groups))
    for name, count in zip(names, in_groups, strict=True):
        if count < MIN_GROUPS:
            return f"too few groups: {count} {name} groups, at least {MIN_GROUPS} needed"
    return None


def make_plan(
    candidates: Int[np.ndarray, " m"],
    positive: Float[np.ndarray, " n_all"],
    groups: Sequence[str],
    *,
    seed: int,
    n_folds: int = 5,
    n_permutations: int = 0,
    n_bootstrap: int = 0,
    max_rows: int | None = None,
) -> Plan:
    """Split the candidate rows into folds of whole groups.

    Args:
        candidates: row numbers that have a label and a state; :func:`why_not` has let them pass.
        positive: 1, 0 or NaN for every row, from :func:`positive_class`.
        groups: the group of every row.
        seed: seeds the draw of rows, the folds, the shuffles and the bootstrap.
        n_folds: folds wanted.
        n_permutations: shuffles wanted.
        n_bootstrap: bootstrap draws wanted.
        max_rows: beyond this many rows, whole groups are drawn until each class has its share (all of the rarer
            class, if that is less than half). AUROC, TPR and FPR do not depend on how common the classes are.
    """
    notes = []
    truth = positive[candidates] == 1
    codes = _codes([groups[row] for row in candidates])
    if max_rows is not None and len(candidates) > max_rows:
        kept = _draw_groups(truth, codes, max_rows, seed)
        notes.append(f"{len(kept):,} of {len(candidates):,} rows, whole groups drawn with seed {seed}")
        candidates, truth, codes = candidates[kept], truth[kept], _codes(codes[kept])
    fold, n_folds_used = _split(truth, codes, n_folds, seed)
    if n_folds_used == 0:
        notes.append("no split gives every fold both classes")
    shuffled = np.zeros((len(truth), 0), bool)
    if n_folds_used and n_permutations:
        shuffled, enough = _shuffle(truth, codes, fold, n_permutations, seed)
        if not enough:
            shuffled = shuffled[:, :0]
            notes.append(f"fewer than {_MIN_ARRANGEMENTS} ways to shuffle labels among groups of equal size: no null")
        by_size = _auroc_of_group_size(truth, codes)
        if enough and by_size >= _NOTABLE_AUROC:
            notes.append(f"the size of its group alone ranks rows with AUROC {by_size:.3f}; shuffled labels keep that")
    return Plan(
        rows=candidates,
        positive=truth,
        fold=fold,
        n_folds=n_folds_used,
        n_groups=int(codes.max()) + 1,
        shuffled=shuffled,
        weights=bootstrap_weights(codes.tolist(), n_bootstrap, seed),
        notes=tuple(notes),
    )


class Planner:
    """Splits rows, or says why not; cells with the same rows share one split."""

    def __init__(
        self, positive: np.ndarray, groups: list[str], label_by: str, seed: int, sizes: Mapping[str, Any]
    ) -> None:
        self._positive, self._groups, self._label_by = positive, groups, label_by
        self._make = partial(make_plan, positive=positive, groups=groups, seed=seed, **sizes)
        self._made: dict[bytes, Plan | str] = {}
        self._lock = Lock()

    def plan(self, present: Bool[np.ndarray, " n_all"]) -> Plan | str:
        """The split of the rows that are present, or why there is none, in words."""
        key = np.packbits(present).tobytes()
        with self._lock:  # two splits of the same rows would not be one
            if key not in self._made:
                rows = np.flatnonzero(present)
                reason = why_not(self._positive[rows] == 1, [self._groups[row] for row in rows], self._label_by)
                self._made[key] = reason or self._make(rows)
            return self._made[key]


def _codes(groups: Any) -> np.ndarray:
    """Groups as numbers 0, 1, … in sorted order."""
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _groups_per_class(positive: np.ndarray, codes: np.ndarray) -> tuple[int, int]:
    return len(np.unique(codes[positive])), len(np.unique(codes[~positive]))


def _draw_groups(positive: np.ndarray, codes: np.ndarray, max_rows: int, seed: int) -> np.ndarray:
    """Row numbers of whole groups in random order, each taken while every class that it holds is below its quota."""
    n_positive = int(positive.sum())
    rarer = min(n_positive, len(positive) - n_positive, max_rows // 2)
    quota = np.array([rarer, max_rows - rarer] if n_positive <= len(positive) / 2 else [max_rows - rarer, rarer])
    held = np.stack([np.bincount(codes, positive), np.bincount(codes, ~positive)], axis=1)
    taken, total = np.zeros(len(held), bool), np.zeros(2)
    for group in np.random.default_rng([seed, 1]).permutation(len(held)):
        if np.all((total < quota) | (held[group] == 0)) and total.sum() < max_rows:
            taken[group] = True
            total += held[group]
    return np.flatnonzero(taken[codes])


def _split(positive: np.ndarray, codes: np.ndarray, n_folds: int, seed: int) -> tuple[np.ndarray, int]:
    """The fold of each row and how many folds; the most folds up to ``n_folds`` that all hold both classes, else 0."""
    from sklearn.model_selection import StratifiedGroupKFold

    for k in range(min(n_folds, *_groups_per_class(positive, codes)), 1, -1):
        fold = np.zeros(len(positive), int)
        splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        for number, (_, test) in enumerate(splitter.split(codes, positive.astype(int), codes)):
            fold[test] = number
        if all(0 < positive[fold == number].sum() < (fold == number).sum() for number in range(k)):
            return fold, k
    return np.zeros(len(positive), int), 0


def _shuffle(
    positive: np.ndarray, codes: np.ndarray, fold: np.ndarray, n_permutations: int, seed: int
) -> tuple[np.ndarray, bool]:
    """(n, n_permutations) shuffled labels, and whether the design allows enough distinct ones."""
    rng = np.random.default_rng([seed, 2])
    by_group = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    members = np.split(by_group, np.cumsum(sizes)[:-1])
    strata: dict[tuple[int, int], list[np.ndarray]] = {}
    for rows in members:
        strata.setdefault((int(fold[rows[0]]), len(rows)), []).append(rows)
    shuffled = np.empty((n_permutations, len(positive)), bool)
    log_arrangements = 0.0
    for (_, size), groups in sorted(strata.items(), key=lambda item: item[0]):
        rows = np.stack(groups)
        blocks = positive[rows]
        order = rng.permuted(np.tile(np.arange(len(rows)), (n_permutations, 1)), axis=1)
        shuffled[:, rows] = rng.permuted(blocks[order], axis=2) if size > 1 else blocks[order]
        held = blocks.sum(1)
        log_arrangements += float(gammaln(len(rows) + 1) - gammaln(np.bincount(held) + 1).sum())
        log_arrangements += float((gammaln(size + 1) - gammaln(held + 1) - gammaln(size - held + 1)).sum())
    return shuffled.T, bool(log_arrangements >= np.log(_MIN_ARRANGEMENTS) - 1e-9)


def _auroc_of_group_size(positive: np.ndarray, codes: np.ndarray) -> float:
    """AUROC of scoring each row by the share of positives among the rows whose groups are as large as its own."""
    size = np.bincount(codes)[codes]
    share = (np.bincount(size, positive) / np.maximum(np.bincount(size), 1))[size]
    return float(auroc_columns(share[:, None], positive[:, None], np.zeros(len(size), int))[0])
