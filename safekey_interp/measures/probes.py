"""Directions read off hidden states, as records that fit, save, load and apply to another file or model.

A probe scores a state x by  logit = ((x − mean) / scale) · weight + bias,  a logistic regression on standardised
states with the penalty of :mod:`safekey_interp.measures.linear_probes`. A direction is one unit vector in the space of
the states: the gradient of a probe's logit, or the difference of the two class means (Marks & Tegmark 2023, arXiv
2310.06824; Arditi et al. 2024, arXiv 2406.11717), on states as they are, so that it can be added to or removed from a
residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from safekey_interp.errors import InputError
from safekey_interp.measures.auroc import auroc_columns, standardise_within_folds
from safekey_interp.measures.control_directions import N_DRAWS, Controls, mean_differences, shuffled_columns, units, within_classes
from safekey_interp.measures.folds import Plan, make_plan, positive_class, why_not
from safekey_interp.measures.linear_probes import fit_logistic, fit_scaling, row_space
from safekey_interp.measures.probe_files import load_record, save_record


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
    """``diff_of_means``, ``logistic`` or ``safety_head``."""
    controls: Controls | None = None
    """Control directions from the states that it was fitted on; None of a direction that was set by hand."""

    @classmethod
    def fit(
        cls,
        matrix: Float[np.ndarray, "n d_model"],
        labels: Sequence[str | None],
        groups: Sequence[str],
        *,
        label_by: str = "label",
        n_controls: int = N_DRAWS,
        seed: int = 0,
        shuffled: Bool[np.ndarray, "n draw"] | None = None,
        **about: Any,
    ) -> Direction:
        """mean(positive) − mean(negative) of the states as they are.

        Args:
            matrix: states; rows that are not finite are left out.
            labels: class names; None is left out.
            groups: rows of one group keep their labels together when these are shuffled.
            label_by: ``label`` (harmful is positive) or ``aha`` (unsafe is positive).
            n_controls: control directions of each kind.
            seed: of these.
            shuffled: whether each row is positive in each shuffle of the labels; drawn here when None.
            **about: ``layer``, ``site``, ``position``, ``model``, ``data_sha256``.

        Returns:
            The difference as a unit vector, with its norm in the states' unit, the number of rows it was fitted on, and
            control directions (:mod:`safekey_interp.measures.control_directions`).

        Raises:
            InputError: shapes differ, a class is missing, or the means are equal.
        """
        rows, positive = _labelled(matrix, labels, label_by)
        found = cls._of(rows[positive].mean(0) - rows[~positive].mean(0), label_by=label_by, n=len(rows), **about)
        return found.with_controls(matrix, labels, groups, n_controls=n_controls, seed=seed, shuffled=shuffled)

    def with_controls(
        self,
        matrix: Float[np.ndarray, "n d_model"],
        labels: Sequence[str | None],
        groups: Sequence[str],
        *,
        n_controls: int = N_DRAWS,
        seed: int = 0,
        shuffled: Bool[np.ndarray, "n draw"] | None = None,
    ) -> Direction:
        """The same direction with control directions from these states: of a safety head, or set by hand.

        Args:
            matrix: states of its layer and position.
            labels: class names; None is left out.
            groups: rows of one group keep their labels together when these are shuffled.
            n_controls: control directions of each kind.
            seed: of these.
            shuffled: whether each row is positive in each shuffle of the labels; drawn here when None.

        Raises:
            InputError: shapes differ, or a class is missing.
        """
        _check_groups(labels, groups, "direction")
        rows, positive = _labelled(_check_width(matrix, self.d_model, "direction"), labels, self.label_by)
        kept = _usable(matrix, labels, self.label_by)
        if shuffled is None:
            drawn = shuffled_columns(positive, np.asarray(groups, object)[kept].tolist(), n_controls, seed)
        else:
            drawn = shuffled[kept]
        vectors = units(mean_differences(within_classes(rows, positive), drawn))
        return replace(
            self, controls=Controls.of(rows, (vectors, np.zeros(len(vectors))), n_draws=n_controls, seed=seed)
        )

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
        save_record(self, path, ("vector",))

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Read what :meth:`save` wrote. Raises InputError, in one line, for anything else."""
        return cls(**load_record(cls, path, ("vector",)))


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
    """Seed of the folds behind ``auroc`` and of the controls; the weights do not depend on it."""
    controls: Controls | None = None
    """Probes fitted to shuffled labels and control directions from the same states; None of one set by hand."""

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
        n_controls: int = N_DRAWS,
        **about: Any,
    ) -> Probe:
        """Fit on all labelled rows; ``auroc`` comes from folds of whole groups.

        Args:
            matrix: states; rows that are not finite are left out.
            labels: class names; None is left out.
            groups: rows of one group never stand on both sides of a split.
            label_by: ``label`` or ``aha``.
            seed: seed of the folds and controls.
            n_folds: folds wanted; fewer when a class has fewer groups.
            n_controls: probes fitted to shuffled labels, and control directions of each other kind.
            **about: ``layer``, ``site``, ``position``, ``model``, ``data_sha256``.

        Returns:
            A logistic probe on standardised states; ``auroc`` is NaN where the groups allow no folds.

        Raises:
            InputError: shapes differ or a class is missing.
        """
        _check_groups(labels, groups, "probe")
        rows, positive = _labelled(matrix, labels, label_by)
        kept = np.flatnonzero(_usable(matrix, labels, label_by)).tolist()
        kept_groups = [groups[row] for row in kept]
        auroc = float("nan")
        if why_not(positive, kept_groups, label_by) is None:
            plan = make_plan(np.arange(len(rows)), positive.astype(float), kept_groups, seed=seed, n_folds=n_folds)
            auroc = _out_of_fold_auroc(rows, plan)
        scaling = fit_scaling(rows)
        space = row_space(scaling.apply(rows), np.eye(rows.shape[1]))

        def weights(positive: np.ndarray) -> tuple[np.ndarray, float]:
            weight, bias = fit_logistic(space.train, positive, space.mean_square)
            return space.test @ weight if space.mean_square > 0 else np.zeros(rows.shape[1]), bias

        weight, bias = weights(positive)
        drawn = shuffled_columns(positive, kept_groups, n_controls, seed)
        shuffled = [weights(labelling) for labelling in drawn.T]
        vectors = np.array([one for one, _ in shuffled]).reshape(-1, rows.shape[1]) / scaling.scale
        biases = np.array([one for _, one in shuffled]) - vectors @ scaling.mean
        return cls(
            weight=weight,
            bias=bias,
            mean=scaling.mean,
            scale=scaling.scale,
            label_by=label_by,
            n=len(rows),
            auroc=auroc,
            seed=seed,
            controls=Controls.of(rows, (vectors, biases), n_draws=n_controls, seed=seed),
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
        """The direction in which the logit of a state grows fastest; its norm is logits per unit of state.

        Its ``shuffled_labels`` are the gradients of the probes that were fitted to shuffled labels.
        """
        about = {
            name: getattr(self, name) for name in ("layer", "site", "position", "label_by", "model", "data_sha256", "n")
        }
        shuffled = self.controls and replace(
            self.controls,
            shuffled_labels=units(self.controls.shuffled_labels.astype(np.float64)).astype(np.float32),
            shuffled_bias=np.zeros(len(self.controls.shuffled_bias)),
        )
        return Direction._of(self.weight / self.scale, method="logistic", controls=shuffled, **about)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the arrays as float64 tensors, everything else as metadata."""
        save_record(self, path, ("weight", "mean", "scale"))

    @classmethod
    def load(cls, path: str | Path) -> Probe:
        """Read what :meth:`save` wrote. Raises InputError, in one line, for anything else."""
        return cls(**load_record(cls, path, ("weight", "mean", "scale")))


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


def _check_groups(labels: Sequence[str | None], groups: Sequence[str], what: str) -> None:
    if len(groups) != len(labels):
        raise InputError(f"{what}: got {len(labels)} labels and {len(groups)} groups, expected one of each per row")


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
