"""Labelled states: rows of hidden states with a class, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safekey_interp.data.class_labels import ClassPair
from safekey_interp.errors import InputError
from safekey_interp.measures.folds import positive_class, why_not


def usable_rows(matrix: np.ndarray, labels: Sequence[str | None], classes: ClassPair) -> np.ndarray:
    """Which rows have a class and a finite state; raises InputError where labels and states differ in number."""
    if np.ndim(matrix) != 2 or len(matrix) != len(labels):
        raise InputError(f"states: got shape {np.shape(matrix)}, expected ({len(labels)}, d_model), a row per label")
    return np.isfinite(matrix).all(1) & ~np.isnan(positive_class(labels, classes))


def labelled_rows(
    matrix: np.ndarray, labels: Sequence[str | None], classes: ClassPair, label_by: str
) -> tuple[np.ndarray, np.ndarray]:
    """Float64 rows with a class and a state, and which are positive; raises InputError where a class is missing."""
    usable = usable_rows(matrix, labels, classes)
    positive = positive_class(labels, classes)[usable] == 1
    if len(set(positive.tolist())) < 2:
        raise InputError(
            f"labels by {label_by}: {why_not(positive, [''] * len(positive), classes)}; both classes are needed"
        )
    return np.asarray(matrix, dtype=np.float64)[usable], positive


def check_groups(labels: Sequence[str | None], groups: Sequence[str], what: str) -> None:
    """Raises InputError unless there is a group for each label."""
    if len(groups) != len(labels):
        raise InputError(f"{what}: got {len(labels)} labels and {len(groups)} groups, expected one of each per row")


def check_width(matrix: np.ndarray, d_model: int, what: str) -> np.ndarray:
    """States as float64; raises InputError unless they are (n, d_model)."""
    wide = np.asarray(matrix, dtype=np.float64)
    if wide.ndim != 2 or wide.shape[1] != d_model:
        raise InputError(
            f"{what}: got states of shape {wide.shape}, expected (n, {d_model}); use states of the same width"
        )
    return wide
