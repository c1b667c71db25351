"""Directions read off hidden states, as records that fit, save, load and apply to another file or model.

A probe scores a state x by  logit = ((x − mean) / scale) · weight + bias,  a logistic regression on standardised
states with the penalty of :mod:`safekey_interp.estimators`. A direction is one unit vector in the space of the
states: the gradient of a probe's logit, or the difference of the two class means (Marks & Tegmark 2023, arXiv
2310.06824; Arditi et al. 2024, arXiv 2406.11717), on states as they are, so that it can be added to or removed from a
residual stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from safekey_interp.errors import InputError
from safekey_interp.estimators import fit_logistic, fit_scaling, row_space
from safekey_interp.folds import Plan, make_plan, positive_class, why_not
from safekey_interp.ranking import auroc_columns, standardise_within_folds


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """A unit vector in the space of the states, and where it came from."""

    vector: Float[np.ndarray, " d_model"]
    """The direction, norm 1."""
    norm: float
    """Norm before it was made 1, in the states' unit (per logit for a probe's)."""
    layer: int = -1
    """Layer of the states; -1 when unknown."""
    site: str = ""
    """``resid_post`` or ``ln_final``."""
    position: str = ""
    """Position of the states: ``decision``, ``context`` …"""
    label_by: str = "label"
    """What told the classes apart."""
    model: str = ""
    """Name of the model that the states came from."""
    data_sha256: str = ""
    """Hash of the data."""
    n: int = 0
    """Rows used."""
    method: str = "diff_of_means"
    """``diff_of_means`` or ``logistic``."""

    @classmethod
    def fit(
        cls,
        matrix: Float[np.ndarray, "n d_model"],
        labels: Sequence[str | None],
        *,
        label_by: str = "label",
        **about: Any,
    ) -> Direction:
        """mean(positive) − mean(negative) of the states as they are.

        Args:
            matrix: states; rows that are not finite are left out.
            labels: class names; None is left out.
            label_by: ``label`` (harmful is positive) or ``aha`` (unsafe is positive).
            **about: ``layer``, ``site``, ``position``, ``model``, ``data_sha256``.

        Returns:
            The difference as a unit vector, with its norm in the states' unit and the number of rows it was fitted on.

        Raises:
            InputError: shapes differ, a class is missing, or the means are equal.
        """
        rows, positive = _labelled(matrix, labels, label_by)
        return cls._of(rows[positive].mean(0) - rows[~positive].mean(0), label_by=label_by, n=len(rows), **about)

    @classmethod
    def _of(cls, vector: np.ndarray, **about: Any) -> Direction:
        norm = float(np.linalg.norm(vector))
        if not norm > 0:
            raise InputError("direction: the two classes have the same mean state; take another layer or position")
        return cls(vector=vector / norm, norm=norm, **about)

    @property
    def d_model(self) -> int:
        """Width of the states that it applies to."""
        return len(self.vector)

    def cosine(self, other: Direction) -> float:
        """Cosine similarity in [-1, 1]. Raises InputError when the widths differ."""
        _check_width(other.vector[None], self.d_model, "direction")
        return float(np.clip(self.vector @ other.vector, -1.0, 1.0))

    def project(self, matrix: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, " n"]:
        """Length of each state along the direction, in the states' unit; NaN for a NaN row."""
        return _check_width(matrix, self.d_model, "direction") @ self.vector

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; metadata holds everything but the vector."""
        _save(self, path, ("vector",))

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Read what :meth:`save` wrote. Raises InputError, in one line, for anything else."""
        return cls(**_load(cls, path, {"vector": "d_model"}))


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A logistic probe on standardised states, and where it came from."""

    weight: Float[np.ndarray, " d_model"]
    """Weights of the standardised features."""
    bias: float
    """Added to every logit."""
    mean: Float[np.ndarray, " d_model"]
    """Mean of each feature over the rows it was fitted on."""
    scale: Float[np.ndarray, " d_model"]
    """Standard deviation of each feature; infinite for a constant one, which then counts for nothing."""
    layer: int = -1
    """Layer of the states; -1 when unknown."""
    site: str = ""
    """``resid_post`` or ``ln_final``."""
    position: str = ""
    """Position of the states: ``decision``, ``context`` …"""
    label_by: str = "label"
    """What told the classes apart: ``label`` (harmful is positive) or ``aha`` (unsafe is positive)."""
    model: str = ""
    """Name of the model that the states came from."""
    data_sha256: str = ""
    """Hash of the data that it was fitted on."""
    n: int = 0
    """Rows it was fitted on."""
    auroc: float = float("nan")
    """Out-of-fold AUROC by group on those rows; NaN when they have too few groups to split."""
    seed: int = 0
    """Seed of the folds behind ``auroc``; the weights do not depend on it."""

    @classmethod
    def fit(
        cls,
        matrix: Float[np.ndarray, "n d_model"],
        labels: Sequence[str | None],
        groups: Sequence[str],
        *,
        label_by: str = "label",
        seed: int = 0,
        n_folds: int = 5,
        **about: Any,
    ) -> Probe:
        """Fit on all labelled rows; ``auroc`` comes from folds of whole groups.

        Args:
            matrix: states; rows that are not finite are left out.
            labels: class names; None is left out.
            groups: rows of one group never stand on both sides of a split.
            label_by: ``label`` or ``aha``.
            seed: seed of the folds.
            n_folds: folds wanted; fewer when a class has fewer groups.
            **about: ``layer``, ``site``, ``position``, ``model``, ``data_sha256``.

        Returns:
            A logistic probe on standardised states; ``auroc`` is NaN where the groups allow no folds.

        Raises:
            InputError: shapes differ or a class is missing.
        """
        if len(groups) != len(labels):
            raise InputError(f"probe: got {len(labels)} labels and {len(groups)} groups, expected one of each per row")
        rows, positive = _labelled(matrix, labels, label_by)
        kept = np.flatnonzero(_usable(matrix, labels, label_by)).tolist()
        kept_groups = [groups[row] for row in kept]
        auroc = float("nan")
        if why_not(positive, kept_groups, label_by) is None:
            plan = make_plan(np.arange(len(rows)), positive.astype(float), kept_groups, seed=seed, n_folds=n_folds)
            auroc = _out_of_fold_auroc(rows, plan)
        scaling = fit_scaling(rows)
        space = row_space(scaling.apply(rows), np.eye(rows.shape[1]))
        weight, bias = fit_logistic(space.train, positive, space.mean_square)
        return cls(
            weight=space.test @ weight if space.mean_square > 0 else np.zeros(rows.shape[1]),
            bias=bias,
            mean=scaling.mean,
            scale=scaling.scale,
            label_by=label_by,
            n=len(rows),
            auroc=auroc,
            seed=seed,
            **about,
        )

    @property
    def d_model(self) -> int:
        """Width of the states that it applies to."""
        return len(self.weight)

    def score(self, matrix: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, " n"]:
        """Logit of the positive class for each state; NaN for a NaN row. Raises InputError when the width differs."""
        return (_check_width(matrix, self.d_model, "probe") - self.mean) / self.scale @ self.weight + self.bias

    def direction(self) -> Direction:
        """The direction in which the logit of a state grows fastest; its norm is logits per unit of state."""
        about = {
            name: getattr(self, name) for name in ("layer", "site", "position", "label_by", "model", "data_sha256", "n")
        }
        return Direction._of(self.weight / self.scale, method="logistic", **about)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the arrays as float64 tensors, everything else as metadata."""
        _save(self, path, ("weight", "mean", "scale"))

    @classmethod
    def load(cls, path: str | Path) -> Probe:
        """Read what :meth:`save` wrote. Raises InputError, in one line, for anything else."""
        return cls(**_load(cls, path, {"weight": "d_model", "mean": "d_model", "scale": "d_model"}))


def _usable(matrix: np.ndarray, labels: Sequence[str | None], label_by: str) -> np.ndarray:
    if np.ndim(matrix) != 2 or len(matrix) != len(labels):
        raise InputError(f"states: got shape {np.shape(matrix)}, expected ({len(labels)}, d_model), a row per label")
    return np.isfinite(matrix).all(1) & ~np.isnan(positive_class(labels, label_by))


def _labelled(matrix: np.ndarray, labels: Sequence[str | None], label_by: str) -> tuple[np.ndarray, np.ndarray]:
    """Float64 rows with a class and a state, and whether each is positive."""
    usable = _usable(matrix, labels, label_by)
    positive = positive_class(labels, label_by)[usable] == 1
    if len(set(positive.tolist())) < 2:
        raise InputError(
            f"labels by {label_by}: {why_not(positive, [''] * len(positive), label_by)}; both classes are needed"
        )
    return np.asarray(matrix, dtype=np.float64)[usable], positive


def _out_of_fold_auroc(rows: np.ndarray, plan: Plan) -> float:
    if plan.n_folds == 0:
        return float("nan")
    scores = np.zeros((len(rows), 1))
    for number in range(plan.n_folds):
        test = plan.fold == number
        scaling = fit_scaling(rows[~test])
        space = row_space(scaling.apply(rows[~test]), scaling.apply(rows[test]))
        scores[test, 0] = space.test @ fit_logistic(space.train, plan.positive[~test], space.mean_square)[0]
    return float(auroc_columns(standardise_within_folds(scores, plan.fold), plan.positive[:, None], plan.fold)[0])


def _check_width(matrix: np.ndarray, d_model: int, what: str) -> np.ndarray:
    wide = np.asarray(matrix, dtype=np.float64)
    if wide.ndim != 2 or wide.shape[1] != d_model:
        raise InputError(
            f"{what}: got states of shape {wide.shape}, expected (n, {d_model}); use states of the same width"
        )
    return wide


def _save(record: Any, path: str | Path, arrays: tuple[str, ...]) -> None:
    from safetensors.numpy import save_file

    others = {field.name: getattr(record, field.name) for field in fields(record) if field.name not in arrays}
    tensors = {name: np.ascontiguousarray(getattr(record, name), dtype=np.float64) for name in arrays}
    save_file(tensors, path, {"safekey_interp": type(record).__name__, "fields": json.dumps(others)})


def _load(cls: type, path: str | Path, shapes: Mapping[str, str]) -> dict[str, Any]:
    """Arrays and fields of a record's file, checked: same record, all names, vectors of one width."""
    from safetensors import SafetensorError, safe_open

    expected = f"expected a file written by {cls.__name__}.save"
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {expected}") from None
    if about.get("safekey_interp") != cls.__name__:
        raise InputError(f"{path}: got a file of {about.get('safekey_interp') or 'something else'}, {expected}")
    if (
        set(arrays) != set(shapes)
        or len({array.shape for array in arrays.values()}) != 1
        or arrays[next(iter(shapes))].ndim != 1
    ):
        got = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
        raise InputError(
            f"{path}: got {got}, expected {', '.join(f'{name} ({width},)' for name, width in shapes.items())}"
        )
    try:
        others = json.loads(about["fields"])
        missing = {field.name for field in fields(cls)} ^ (set(others) | set(arrays))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its metadata holds no fields; {expected}") from None
    if missing:
        raise InputError(f"{path}: got other fields than expected ({', '.join(sorted(missing))}); {expected}")
    return others | arrays
