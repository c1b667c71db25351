"""Label permutations by group, for the null distribution of a probe.

Shuffled labels keep whatever a probe could learn from the design alone. Within each fold, the label blocks of groups
of equal size trade places (exchangeability of whole blocks: Winkler et al. 2015, *Multi-level block permutation*,
NeuroImage 123), and then labels trade places within each group, which matters only for groups that hold both classes:
without the second step the twins of XSTest, one of each class in every group, could not be shuffled at all. Every
shuffle keeps the number of positive rows of every fold, so the folds are as stratified for it as for the true labels.
Its expected AUROC is 0.5 where groups of each size hold the classes in the same proportion. Elsewhere a probe that
knows no more than the size of a row's group does better (0.575 on XSTest, whose groups of three hold one harmful prompt
and whose pairs hold one too): shuffled labels keep that, so that the null includes it, and a note states it.

Rows may also be of kinds (the conditions of :mod:`safekey_interp.measures.transfer`). Then every fold holds both
classes of every kind, and labels trade places among groups of the same make-up and rows of the same kind only, so that
every shuffle keeps the number of positive rows of every fold and kind. Where make-ups differ between the classes so
much that this leaves few shuffles, and every group is of one class, groups trade their class with any that holds the
same kinds, however many rows of each; a note states it.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy.special import gammaln

_MIN_ARRANGEMENTS = 20  # fewer distinct shuffles than this cannot resolve a p-value of 0.05
_MANY_ARRANGEMENTS = 1_000  # as many make the maximum over layers and pairs of conditions resolvable, too


def shuffle_labels(
    positive: Bool[np.ndarray, " n"],
    codes: Int[np.ndarray, " n"],
    kind: Int[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    *,
    n_permutations: int,
    seed: int,
    whatever_size: bool = False,
) -> tuple[Bool[np.ndarray, "n n_permutations"], list[str]]:
    """Shuffled labels, a column each, and what a reader must know about them.

    Args:
        positive: whether each row is of the positive class.
        codes: the group of each row, as numbers from 0.
        kind: the kind of each row, as numbers from 0; zeros when there are no kinds.
        fold: the fold of each row; labels never leave it.
        n_permutations: shuffles wanted.
        seed: of the draws.
        whatever_size: where groups of equal size leave too few shuffles, and every group is of one class, let groups
            trade their class whatever their size; then a fold's number of positive rows may change.

    Returns:
        No columns when the groups leave too few distinct shuffles.
    """
    draws = _trade_blocks(positive, codes, kind, fold, n_permutations=n_permutations, seed=seed)
    notes = []
    if whatever_size and draws.arrangements < _MIN_ARRANGEMENTS and _is_one_class(positive, codes):
        draws = _trade_classes(positive, codes, kind, fold, n_permutations=n_permutations, seed=seed)
        notes.append("labels shuffled among groups whatever their size")
    elif kind.any() and draws.arrangements < _MANY_ARRANGEMENTS and _is_one_class(positive, codes):
        draws = _trade_classes(positive, codes, kind, fold, n_permutations=n_permutations, seed=seed)
        notes.append("labels shuffled among groups that hold the same conditions, whatever their size")
    if draws.arrangements >= _MIN_ARRANGEMENTS - 1e-9:
        return draws.shuffled, notes
    notes.append(f"fewer than {_MIN_ARRANGEMENTS} ways to shuffle labels among groups of equal size: no null")
    return draws.shuffled[:, :0], notes


class _Shuffled(NamedTuple):
    """Shuffled labels."""

    shuffled: Bool[np.ndarray, "n n_permutations"]
    arrangements: float
    """Distinct shuffles that the design allows; infinite when very many."""


def _trade_blocks(
    positive: np.ndarray, codes: np.ndarray, kind: np.ndarray, fold: np.ndarray, *, n_permutations: int, seed: int
) -> _Shuffled:
    """Blocks of labels trade places among groups of the same make-up, then labels within a group and kind."""
    rng = np.random.default_rng([seed, 2])
    members = np.split(np.lexsort((kind, codes)), np.cumsum(np.bincount(codes))[:-1])
    alike: dict[tuple[int, tuple[int, ...]], list[np.ndarray]] = {}
    for rows in members:
        make_up = tuple(np.bincount(kind[rows], minlength=int(kind.max()) + 1).tolist())
        alike.setdefault((int(fold[rows[0]]), make_up), []).append(rows)
    shuffled = np.empty((n_permutations, len(positive)), bool)
    log_arrangements = 0.0
    for (_, make_up), groups in sorted(alike.items(), key=lambda item: item[0]):
        rows = np.stack(groups)
        blocks = positive[rows]
        order = rng.permuted(np.tile(np.arange(len(rows)), (n_permutations, 1)), axis=1)
        traded = blocks[order]
        log_arrangements += _log_orders(blocks)
        for start, end in itertools.pairwise(np.cumsum([0, *make_up])):
            inside = blocks[:, start:end].sum(1)
            log_arrangements += float(
                (gammaln(end - start + 1) - gammaln(inside + 1) - gammaln(end - start - inside + 1)).sum()
            )
            if end - start > 1:
                traded[..., start:end] = rng.permuted(traded[..., start:end], axis=2)
        shuffled[:, rows] = traded
    return _Shuffled(shuffled.T, _exp(log_arrangements))


def _trade_classes(
    positive: np.ndarray, codes: np.ndarray, kind: np.ndarray, fold: np.ndarray, *, n_permutations: int, seed: int
) -> _Shuffled:
    """Groups of one class trade it among those of their fold that hold the same kinds."""
    rng = np.random.default_rng([seed, 3])
    first = np.unique(codes, return_index=True)[1]
    holds = np.stack([np.bincount(codes, kind == value) > 0 for value in range(int(kind.max()) + 1)], axis=1)
    alike = np.unique(np.column_stack([fold[first], holds]), axis=0, return_inverse=True)[1].ravel()
    of_group = np.empty((n_permutations, len(first)), bool)
    log_arrangements = 0.0
    for number in range(int(alike.max()) + 1):
        groups = np.flatnonzero(alike == number)
        classes = positive[first[groups]]
        of_group[:, groups] = rng.permuted(np.tile(classes, (n_permutations, 1)), axis=1)
        log_arrangements += _log_orders(classes[:, None])
    return _Shuffled(of_group[:, codes].T, _exp(log_arrangements))


def _is_one_class(positive: np.ndarray, codes: np.ndarray) -> bool:
    """Whether every group is of one class."""
    share = np.bincount(codes, positive) / np.bincount(codes)
    return bool(np.isin(share, (0.0, 1.0)).all())


def _exp(logarithm: float) -> float:
    return float(np.exp(min(logarithm, 700.0)))


def _log_orders(blocks: np.ndarray) -> float:
    """Logarithm of how many distinct ways whole blocks can be ordered; blocks with the same sum count as the same."""
    held = np.bincount(blocks.sum(1))
    return float(gammaln(len(blocks) + 1) - gammaln(held + 1).sum())
