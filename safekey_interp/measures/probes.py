"""Linear probe on hidden states, as a record that fits, saves, loads and applies to another file or model.

A probe scores a state x by  logit = ((x − mean) / scale) · weight + bias:  a logistic regression on standardised
states, or another estimator of :mod:`safekey_interp.measures.estimators`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from safekey_interp.data.class_labels import class_pair
from safekey_interp.measures.auroc import auroc_columns, standardise_within_folds
from safekey_interp.measures.control_directions import N_DRAWS, Controls, shuffled_columns, units
from safekey_interp.measures.direction_record import Direction, unit_direction
from safekey_interp.measures.estimator_names import EstimatorName
from safekey_interp.measures.estimators import Estimator, estimator_of
from safekey_interp.measures.folds import Plan, make_plan, why_not
from safekey_interp.measures.labelled_states import check_groups, check_width, labelled_rows, usable_rows
from safekey_interp.measures.layer_scores import out_of_fold, states_space
from safekey_interp.measures.probe_files import load_record, save_record


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A linear probe on scaled states, and where it came from."""

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
    """The column that the classes are by."""
    classes: tuple[str, ...] = ()
    """Names of the positive and the negative class; none where these are not known."""
    estimator: str = "logistic"
    """What was fitted: ``logistic``, ``mass_mean``, ``lda``, or the name of a scikit-learn classifier."""
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
        estimator: EstimatorName | Any = "logistic",
        seed: int = 0,
        n_folds: int = 5,
        n_controls: int = N_DRAWS,
        **about: Any,
    ) -> Probe:
        """Fit on all labelled rows; ``auroc`` comes from folds of whole groups.

        Args:
            matrix: states; rows that are not finite are left out.
            labels: class names; None is left out.
            groups: rows of one group are never on both sides of a split.
            label_by: the column that the labels come from, for the record. Which of its two values is positive:
                :mod:`safekey_interp.data.class_labels`.
            estimator: ``logistic``, ``mass_mean``, ``lda``, or a linear classifier of scikit-learn
                (:mod:`safekey_interp.measures.estimators`).
            seed: seed of the folds and controls.
            n_folds: folds wanted; fewer when a class has fewer groups.
            n_controls: probes fitted to shuffled labels (fewer where the groups allow no more:
                :func:`~safekey_interp.measures.control_directions.shuffled_columns`), and control directions of each
                other kind.
            **about: ``layer``, ``site``, ``position``, ``model``, ``data_sha256``.

        Returns:
            The probe; ``auroc`` is NaN where the groups allow no folds.

        Raises:
            InputError: shapes differ, a class is missing, or the estimator is no linear classifier.
        """
        check_groups(labels, groups, "probe")
        fitted = estimator_of(estimator, seed)
        classes = class_pair(labels, label_by)
        rows, positive = labelled_rows(matrix, labels, classes, label_by)
        usable = np.flatnonzero(usable_rows(matrix, labels, classes)).tolist()
        kept_groups = [groups[row] for row in usable]
        auroc = float("nan")
        if why_not(positive, kept_groups, classes) is None:
            plan = make_plan(np.arange(len(rows)), positive.astype(float), kept_groups, seed=seed, n_folds=n_folds)
            auroc = _out_of_fold_auroc(rows, plan, fitted)
        scaling = fitted.scaling(rows)
        weights = fitted.fitter(scaling.apply(rows))
        weight, bias = weights(positive)
        drawn = shuffled_columns(positive, kept_groups, n_controls, seed)
        shuffled = [weights(labelling) for labelling in drawn.T]
        vectors = np.array([vector for vector, _ in shuffled]).reshape(-1, rows.shape[1]) / scaling.scale
        biases = np.array([bias for _, bias in shuffled]) - vectors @ scaling.mean
        return cls(
            weight=weight,
            bias=bias,
            mean=scaling.mean,
            scale=scaling.scale,
            label_by=label_by,
            classes=classes,
            estimator=fitted.name,
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
        return (check_width(matrix, self.d_model, "probe") - self.mean) / self.scale @ self.weight + self.bias

    def direction(self) -> Direction:
        """The direction in which the logit of a state grows fastest; its norm is logits per unit of state.

        Its ``shuffled_labels`` are the gradients of the probes that were fitted to shuffled labels.
        """
        names = ("layer", "site", "position", "label_by", "classes", "model", "data_sha256", "n")
        about = {name: getattr(self, name) for name in names}
        shuffled = self.controls and replace(
            self.controls,
            shuffled_labels=units(self.controls.shuffled_labels.astype(np.float64)).astype(np.float32),
            shuffled_bias=np.zeros(len(self.controls.shuffled_bias)),
        )
        return unit_direction(self.weight / self.scale, method=self.estimator, controls=shuffled, **about)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the arrays as float64 tensors, everything else as metadata."""
        save_record(self, path, ("weight", "mean", "scale"))

    @classmethod
    def load(cls, path: str | Path) -> Probe:
        """Read what :meth:`save` wrote. Raises InputError, in one line, for anything else."""
        return cls(**load_record(cls, path, ("weight", "mean", "scale")))


def _out_of_fold_auroc(rows: np.ndarray, plan: Plan, estimator: Estimator) -> float:
    if plan.n_folds == 0:
        return float("nan")
    scores = out_of_fold(states_space(estimator, rows), plan, estimator).scores[:, None]
    return float(auroc_columns(standardise_within_folds(scores, plan.fold), plan.positive[:, None], plan.fold)[0])
