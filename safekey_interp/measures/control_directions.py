"""Control directions: draws that know nothing of the labels, on the same states as a direction.

Three kinds, each of several draws, scaled to the norm of the tested direction:

- ``shuffled_labels``: fitted in the same way to labels that trade places between groups
  (:mod:`safekey_interp.measures.label_permutations`), on the same rows. A difference of means is fitted to rows minus
  the mean of their class, the residuals of the tested model (Freedman and Lane 1983,
  doi:10.1080/07350015.1983.10509354): on the rows as they are, a draw holds a share of the tested difference wherever
  its labels are unevenly spread over the classes, and at equal norm that share grows with the difference. Residuals
  make each draw independent of the tested direction. Draws from the same residuals depend on each other all the same,
  and the tested direction lies beyond all of them too often (Freedman and Lane divide by the residuals' spread, which a
  norm cannot). So the shuffled labels are also made orthogonal to each other (symmetric orthogonalisation, Löwdin 1950,
  doi:10.1063/1.1747632). Where labels mean nothing and rows are normal, the tested direction and up to n − 2 draws of n
  independent rows are then independent and alike, and its rank among them is uniform: p = (1 + #beyond) / (1 + draws).
  More draws than these are none: a direction has at most as many as its rows leave orthogonal directions
  (:func:`shuffled_columns`), so that of few groups no p is small (:func:`least_groups`).
- ``covariance``: drawn from a normal distribution with the covariance of the states, x̃ᵀz / √(n − 1) of the centred
  rows x̃ with z ~ N(0, I). They lie where states vary, whatever the labels.
- ``isotropic``: drawn from N(0, I). In d dimensions most of them lie where no state varies and nothing reads, so that
  they move far less than any direction fitted to states does: a weak control.

Also the first principal components of the states: a direction close to the first (|cosine| near 1) is what states
vary along most, and every direction that is fitted to them contains much of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import qr

from safekey_interp.errors import InputError
from safekey_interp.measures.label_permutations import shuffle_labels

ControlKind = Literal["shuffled_labels", "covariance", "isotropic"]
DEFAULT_CONTROLS: tuple[ControlKind, ...] = ("shuffled_labels", "covariance")
"""Kinds that a direction is compared with by default; the first decides."""
N_DRAWS = 20
"""Draws of each kind that a fit makes by default."""
N_COMPONENTS = 3
"""Principal components that are kept."""
_TINY = 1e-300
_SPARE = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Controls:
    """Control directions and principal components of the states that a record was fitted on."""

    shuffled_labels: Float[np.ndarray, "draw d_model"]
    """Fitted to shuffled labels, norm 1 of a direction, as they are of a probe; no row where groups cannot trade."""
    shuffled_bias: Float[np.ndarray, " draw"]
    """What a probe adds to the product; zeros of a direction."""
    covariance: Float[np.ndarray, "draw d_model"]
    """Drawn from the states' covariance, norm 1."""
    components: Float[np.ndarray, "component d_model"]
    """First principal components of the states, norm 1."""
    shares: Float[np.ndarray, " component"]
    """Their shares of the states' variance, in [0, 1]."""

    @classmethod
    def of(
        cls,
        rows: Float[np.ndarray, "n d_model"],
        shuffled: tuple[Float[np.ndarray, "draw d_model"], Float[np.ndarray, " draw"]],
        *,
        n_draws: int,
        seed: int,
    ) -> Controls:
        """From the states that a record was fitted on, and what was fitted to shuffled labels on them.

        Args:
            rows: states.
            shuffled: vectors and biases.
            n_draws: draws of ``covariance``.
            seed: of these.
        """
        centred = rows - rows.mean(0)
        drawn = np.random.default_rng([seed, 4]).standard_normal((n_draws, len(rows))) @ centred
        components, shares = principal_components(centred)
        return cls(
            shuffled_labels=shuffled[0].astype(np.float32),
            shuffled_bias=np.asarray(shuffled[1], np.float64),
            covariance=units(drawn).astype(np.float32),
            components=components.astype(np.float32),
            shares=shares,
        )

    def cosines(self, vector: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " component"]:
        """|cosine| of a vector with each principal component, in [0, 1]."""
        return np.minimum(np.abs(self.components @ vector) / np.linalg.norm(vector), 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name, for a file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def check_controls(controls: Sequence[str], n_random: int) -> tuple[ControlKind, ...]:
    """The requested kinds of control, each once.

    Raises:
        InputError: an unknown kind, or a negative number of draws.
    """
    kinds = (controls,) if isinstance(controls, str) else tuple(dict.fromkeys(controls))
    for kind in kinds:
        if kind not in get_args(ControlKind):
            raise InputError(f"controls: got {kind!r}, expected some of {', '.join(get_args(ControlKind))}")
    if n_random < 0:
        raise InputError(f"n_random: got {n_random}, expected 0 or more")
    return kinds  # type: ignore[return-value]


def control_draws(
    controls: Controls | None, kind: ControlKind, n: int, *, d_model: int, seed: Sequence[int], what: str
) -> Float[np.ndarray, "n d_model"]:
    """Vectors of one kind: the first ``n`` of a record's draws, or new isotropic ones of norm 1.

    Fewer of ``shuffled_labels`` where the record's groups leave no more.

    Args:
        controls: of a record; None where it was not fitted on states.
        kind: of control.
        n: vectors wanted.
        d_model: their width.
        seed: of isotropic ones.
        what: what they are compared with, for messages.

    Raises:
        InputError: the record holds none of this kind, or fewer than wanted.
    """
    if not n:
        return np.zeros((0, d_model))
    if kind == "isotropic":
        return units(np.random.default_rng(list(seed)).standard_normal((n, d_model)))
    if controls is None:
        raise InputError(
            f"{what}: holds no {kind} draws, since it was not fitted on states; give it some with "
            "with_controls(states, labels, groups), or take isotropic ones alone (controls=('isotropic',), "
            "--controls isotropic)"
        )
    drawn = getattr(controls, kind)
    if not len(drawn):
        raise InputError(
            f"{what}: holds no {kind} draws, its groups leave too few ways to shuffle labels; give more, or leave "
            "that kind out (controls=('covariance',), --controls covariance)"
        )
    n_drawn = len(controls.covariance)
    if n_drawn < n:
        raise InputError(
            f"{what}: holds {n_drawn} {kind} draws, got n_random={n}; fit it with n_controls={n}, or ask for fewer"
        )
    return drawn[:n].astype(np.float64)


def shuffled_columns(
    positive: Bool[np.ndarray, " n"], groups: Sequence[str], n: int, seed: int, fold: np.ndarray | None = None
) -> Bool[np.ndarray, "n draw"]:
    """Labels that trade places between groups, and within each, a column a draw; no column where they cannot.

    Groups of one size trade; where that leaves too few ways and each group is of one class, groups of any size do.

    Args:
        positive: whether each row is of the positive class.
        groups: the group of each row.
        n: draws wanted.
        seed: of the draws.
        fold: labels stay within each, and fits are on all folds but one; all rows are one fold, and one fit, when None.

    Returns:
        Draws that are linearly independent within the classes, no more than the rows of every fit leave orthogonal
        directions: groups − 2 where groups are of one class and size, fewer where they differ in size or are in folds.
    """
    codes = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]
    nothing = np.zeros(len(positive), int)
    where = nothing if fold is None else fold
    fits = [where >= 0] if fold is None else [where != one for one in np.unique(where)]
    for n_shuffles in (n, _SPARE * n):  # a shuffle may repeat another, or the labels
        options = {"n_permutations": n_shuffles, "seed": seed}
        drawn = shuffle_labels(positive, codes, nothing, where, **options, whatever_size=True)[0]
        kept = _independent(drawn, positive, fits)[:n]
        if len(kept) == n:
            break
    return drawn[:, kept]


def _independent(
    drawn: Bool[np.ndarray, "n draw"], positive: Bool[np.ndarray, " n"], fits: Sequence[Bool[np.ndarray, " n"]]
) -> list[int]:
    """Numbers of draws that are linearly independent within the classes, as many as are so in the rows of every fit."""
    if not drawn.size:
        return []
    most = min(int(np.linalg.matrix_rank(within_classes(drawn[rows] * 1.0, positive[rows]))) for rows in fits)
    factors: Any = qr(within_classes(drawn * 1.0, positive), mode="r", pivoting=True)  # R, and the order of its columns
    return sorted(factors[1][:most].tolist())


def least_groups(n_draws: int, n_folds: int = 1) -> int:
    """Fewest groups, half of them of each class, of which every fit leaves so many orthogonal directions.

    Args:
        n_draws: draws of shuffled labels.
        n_folds: folds, each of whose directions is fitted on the others; 1 where one direction is fitted on all.
    """
    n_fitted = n_draws + max(n_folds - 1, 1) + 1  # a fold of the fit keeps its number of positive rows: one way less
    held_out = (lambda n: 0) if n_folds == 1 else (lambda n: 2 * math.ceil(n / 2 / n_folds))
    return next(n for n in itertools.count(n_fitted) if n - held_out(n) >= n_fitted)


def within_classes(
    rows: Float[np.ndarray, "n d_model"], positive: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "n d_model"]:
    """Rows minus the mean of their class: what varies whatever the label."""
    return rows - np.where(positive[:, None], rows[positive].mean(0), rows[~positive].mean(0))


def orthogonal_contrasts(
    positive: Bool[np.ndarray, " n"], shuffled: Bool[np.ndarray, "n draw"]
) -> Float[np.ndarray, "n draw"]:
    """Weights of the rows in each draw: shuffled labels, orthogonal to the labels and to each other.

    Args:
        positive: whether each row is of the positive class.
        shuffled: whether it is in each draw; linearly independent within the classes (:func:`shuffled_columns`).

    Returns:
        The orthonormal columns that are closest to the shuffled labels minus their mean in each class.
    """
    first, _, last = np.linalg.svd(within_classes(shuffled.astype(np.float64), positive), full_matrices=False)
    return first @ last


def principal_components(
    centred: Float[np.ndarray, "n d_model"],
) -> tuple[Float[np.ndarray, "component d_model"], Float[np.ndarray, " component"]]:
    """The first components of centred rows, and their shares of the variance; fewer where rows vary in fewer ways."""
    from sklearn.decomposition import PCA

    n = min(N_COMPONENTS, len(centred) - 1, centred.shape[1])
    if n < 1 or not np.square(centred).sum() > 0:
        return np.zeros((0, centred.shape[1])), np.zeros(0)
    pca: Any = PCA(n_components=n, random_state=0).fit(centred)
    return np.asarray(pca.components_), np.asarray(pca.explained_variance_ratio_, np.float64)


def units(vectors: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n d_model"]:
    """Each vector at norm 1; zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)


def controls_in(arrays: Mapping[str, np.ndarray], d_model: int, path: str) -> Controls | None:
    """Controls from a file's arrays; None for none.

    Raises:
        InputError: some are missing, or their shapes do not fit.
    """
    if not arrays:
        return None
    names = {field.name for field in fields(Controls)}
    if set(arrays) != names:
        raise InputError(f"{path}: got the controls {', '.join(sorted(arrays))}, expected {', '.join(sorted(names))}")
    wide = ("shuffled_labels", "covariance", "components")
    if any(arrays[name].ndim != 2 or arrays[name].shape[1] != d_model for name in wide) or any(
        arrays[name].shape != arrays[match].shape[:1]
        for name, match in (("shuffled_bias", "shuffled_labels"), ("shares", "components"))
    ):
        got = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
        raise InputError(f"{path}: got controls of shapes {got}, expected vectors of width {d_model}")
    return Controls(**arrays)
