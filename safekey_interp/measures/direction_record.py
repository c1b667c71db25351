"""Direction: a unit vector in the space of hidden states that fits, saves, loads and applies to other states.

The gradient of a probe's logit (:mod:`safekey_interp.measures.probes`), or the difference of the two class means (Marks
& Tegmark 2023, arXiv 2310.06824; Arditi et al. 2024, arXiv 2406.11717), on states as they are, so that it can be added
to or removed from a residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from safekey_interp.data.class_labels import class_pair
from safekey_interp.errors import InputError
from safekey_interp.measures.control_directions import (
    N_DRAWS,
    Controls,
    orthogonal_contrasts,
    shuffled_columns,
    units,
    within_classes,
)
from safekey_interp.measures.labelled_states import check_groups, check_width, labelled_rows, usable_rows
from safekey_interp.measures.probe_files import load_record, save_record


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """A unit vector in the space of the states, and where it came from."""

    vector: Float[np.ndarray, " d_model"]
    """The direction, norm 1."""
    norm: float
    """Norm before it was made 1, in the states' unit (per logit for a probe's)."""
    layer: int = -1
    """Layer that it applies to; -1 when unknown."""
    site: str = ""
    """Site that it applies to: ``resid_post`` or ``ln_final``."""
    position: str = ""
    """Position of the states that it comes from: ``decision``, ``context`` …"""
    label_by: str = "label"
    """The column that the classes are by."""
    classes: tuple[str, ...] = ()
    """Names of the positive and the negative class; none where these are not known."""
    model: str = ""
    """Name of the model that it comes from."""
    data_sha256: str = ""
    """Hash of the data that it comes from."""
    n: int = 0
    """Rows that it was computed from."""
    method: str = "diff_of_means"
    """``diff_of_means``, ``safety_head``, or the estimator of a probe: ``logistic`` …"""
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
        shuffled: Float[np.ndarray, "n draw"] | None = None,
        **about: Any,
    ) -> Direction:
        """mean(positive) − mean(negative) of the states as they are.

        Args:
            matrix: states; rows that are not finite are left out.
            labels: class names; None is left out.
            groups: rows of one group keep their labels together when these are shuffled.
            label_by: the column that the labels come from, for the record. Which of its two values is positive:
                :mod:`safekey_interp.data.class_labels`.
            n_controls: control directions of each kind; fewer of shuffled labels where the groups allow no more
                (:func:`~safekey_interp.measures.control_directions.shuffled_columns`).
            seed: of these.
            shuffled: weight of each row in each draw of shuffled labels
                (:func:`~safekey_interp.measures.control_directions.orthogonal_contrasts`); drawn here when None.
            **about: ``layer``, ``site``, ``position``, ``model``, ``data_sha256``.

        Returns:
            The difference as a unit vector, with its norm in the states' unit, the number of rows it was fitted on, and
            control directions (:mod:`safekey_interp.measures.control_directions`).

        Raises:
            InputError: shapes differ, a class is missing, or the means are equal.
        """
        classes = class_pair(labels, label_by)
        rows, positive = labelled_rows(matrix, labels, classes, label_by)
        direction = unit_direction(
            rows[positive].mean(0) - rows[~positive].mean(0),
            label_by=label_by,
            classes=classes,
            n=len(rows),
            **about,
        )
        return direction.with_controls(matrix, labels, groups, n_controls=n_controls, seed=seed, shuffled=shuffled)

    def with_controls(
        self,
        matrix: Float[np.ndarray, "n d_model"],
        labels: Sequence[str | None],
        groups: Sequence[str],
        *,
        n_controls: int = N_DRAWS,
        seed: int = 0,
        shuffled: Float[np.ndarray, "n draw"] | None = None,
    ) -> Direction:
        """The same direction with control directions from these states: of a safety head, or set by hand.

        Args:
            matrix: states of its layer and position.
            labels: class names; None is left out.
            groups: rows of one group keep their labels together when these are shuffled.
            n_controls: control directions of each kind; fewer of shuffled labels where the groups allow no more
                (:func:`~safekey_interp.measures.control_directions.shuffled_columns`).
            seed: of these.
            shuffled: weight of each row in each draw of shuffled labels
                (:func:`~safekey_interp.measures.control_directions.orthogonal_contrasts`); drawn here when None.

        Raises:
            InputError: shapes differ, or a class is missing.
        """
        check_groups(labels, groups, "direction")
        classes = class_pair(labels, self.label_by)
        rows, positive = labelled_rows(check_width(matrix, self.d_model, "direction"), labels, classes, self.label_by)
        kept = usable_rows(matrix, labels, classes)
        if shuffled is None:
            drawn = shuffled_columns(positive, np.asarray(groups, object)[kept].tolist(), n_controls, seed)
            weights = orthogonal_contrasts(positive, drawn)
        else:
            weights = shuffled[kept]
        vectors = units(weights.T @ within_classes(rows, positive))
        return replace(
            self, controls=Controls.of(rows, (vectors, np.zeros(len(vectors))), n_draws=n_controls, seed=seed)
        )

    @property
    def d_model(self) -> int:
        """Width of the states that it applies to."""
        return len(self.vector)

    def cosine(self, other: Direction) -> float:
        """Cosine similarity in [-1, 1]. Raises InputError when the widths differ."""
        check_width(other.vector[None], self.d_model, "direction")
        return float(np.clip(self.vector @ other.vector, -1.0, 1.0))

    def project(self, matrix: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, " n"]:
        """Length of each state along the direction, in the states' unit; NaN for a NaN row."""
        return check_width(matrix, self.d_model, "direction") @ self.vector

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; metadata holds everything but the vector."""
        save_record(self, path, ("vector",))

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Read what :meth:`save` wrote. Raises InputError, in one line, for anything else."""
        return cls(**load_record(cls, path, ("vector",)))


def unit_direction(vector: np.ndarray, **about: Any) -> Direction:
    """The direction of a vector, with its norm; raises InputError where that is 0."""
    norm = float(np.linalg.norm(vector))
    if not norm > 0:
        raise InputError("direction: the two classes have the same mean state; take another layer or position")
    return Direction(vector=vector / norm, norm=norm, **about)
