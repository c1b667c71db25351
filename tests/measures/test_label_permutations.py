"""Labels are shuffled inside kinds, and among groups of unlike make-up only where nothing else is left."""

from __future__ import annotations

import numpy as np

from safekey_interp.measures.label_permutations import shuffle_labels


def shuffled(positive, codes, kind, *, n=200, fold=None):
    codes = np.asarray(codes)
    fold = np.zeros(len(codes), int) if fold is None else fold
    return shuffle_labels(np.asarray(positive, bool), codes, np.asarray(kind), fold, n_permutations=n, seed=0)


def test_rows_of_one_kind_trade_labels_with_rows_of_that_kind() -> None:
    """Each group holds a row of each kind with a label of its own, so both steps of the shuffle show."""
    rng = np.random.default_rng(0)
    codes, kind = np.repeat(np.arange(30), 4), np.tile([0, 0, 1, 1], 30)
    positive = rng.random(120) < np.where(kind == 1, 0.8, 0.3)
    columns, notes = shuffled(positive, codes, kind)
    assert not notes
    for one in (0, 1):
        assert (columns[kind == one].sum(0) == positive[kind == one].sum()).all()
    assert columns[kind == 1].mean() > columns[kind == 0].mean() + 0.3


def test_make_ups_that_give_the_class_away_are_loosened_to_the_kinds_held() -> None:
    """Harmful requests have two plain forms, benign ones one: no two groups of unlike class are of one make-up."""
    sizes = [3, 2] * 20
    codes = np.repeat(np.arange(40), sizes)
    kind = np.concatenate([[0, 0, 1] if size == 3 else [0, 1] for size in sizes])
    positive = np.repeat(np.arange(40) % 2 == 0, sizes)
    columns, notes = shuffled(positive, codes, kind)
    assert columns.shape == (100, 200)
    assert notes == ["labels shuffled among groups that hold the same conditions, whatever their size"]
    by_group = columns[np.unique(codes, return_index=True)[1]]
    assert (by_group[codes] == columns).all(), "a group keeps one class"
    assert (by_group.sum(0) == 20).all()
    assert np.abs(by_group.mean(1) - 0.5).max() < 0.15, "every group is as often of either class"


def test_groups_that_hold_other_kinds_do_not_trade() -> None:
    codes = np.arange(40)
    kind = (np.arange(40) >= 20).astype(int)
    positive = kind == 1
    columns, notes = shuffled(positive, codes, kind)
    assert columns.shape == (40, 0), "a condition of one class leaves nothing to shuffle"
    assert "no null" in notes[-1]
