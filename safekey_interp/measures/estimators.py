"""Estimators of probes: logistic, mass-mean, LDA, or any scikit-learn classifier, fitted fold by fold.

- ``logistic``: L2-regularised logistic regression on standardised states
  (:mod:`safekey_interp.measures.linear_probes`). What its shuffled labels are compared with is ``lda``, as refitting
  it for each shuffle would take minutes.
- ``mass_mean``: projection on mean(positive) − mean(negative) of the states as they are (Marks & Tegmark 2023, arXiv
  2310.06824). It has no scale of its own, so it gives no probabilities.
- ``lda``: linear discriminant analysis on standardised states with the covariance (S_within + λI) / (n − 2), the ridge
  classifier's axis. Its posterior is that of two normal classes with that covariance,
  logit = wᵀ(x − (μ₁ + μ₀) / 2) + log(n₁ / n₀).
- A classifier of scikit-learn's interface, cloned for each fold and each shuffle of the labels, on standardised states
  and on TF-IDF rows. Its scores are ``decision_function``'s, else the probability of the positive class. Where
  ``random_state`` is None it is set, so that a run repeats.

Every one of them ranks test rows that it never saw; probabilities are of the same fits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from safekey_interp.errors import InputError, first_line
from safekey_interp.measures.linear_probes import (
    FoldSpace,
    Scaling,
    fit_logistic,
    fit_scaling,
    mean_difference_scores,
    ridge_weights,
    row_space,
)
from safekey_interp.measures.text_baseline import count_words, text_rows, text_space

SpaceOf = Callable[[np.ndarray, np.ndarray], FoldSpace]
"""Training and test rows, given as masks, in the coordinates that probes are fitted in."""
Weights = tuple[Float[np.ndarray, " d"], float]
"""Weights of the scaled features, and the bias."""


class FoldScores(NamedTuple):
    """Of rows that the fits never saw."""

    scores: Float[np.ndarray, " n"]
    """Under the true labels; higher is more positive."""
    columns: Float[np.ndarray, "n columns"]
    """Of what the null is about, under the true labels and each shuffle."""
    probabilities: Float[np.ndarray, " n"]
    """Of the positive class; NaN from an estimator that gives none."""


class Estimator(ABC):
    """What is fitted to the rows of all folds but one, and ranks those of this one."""

    name: str
    """In the tables."""

    def scaling(self, rows: Float[np.ndarray, "n d"]) -> Scaling:
        """Centre and scale of the features of training rows; standardised where nothing else is said."""
        return fit_scaling(rows)

    def states(self, train: Float[np.ndarray, "n_train d"], test: Float[np.ndarray, "n_test d"]) -> FoldSpace:
        """States, scaled by the training rows alone, in the coordinates of the fit."""
        scaling = self.scaling(train)
        return row_space(scaling.apply(train), scaling.apply(test))

    def words(self, texts: Sequence[str]) -> SpaceOf:
        """TF-IDF rows of texts, weighted by the training rows alone, in the coordinates of the fit."""
        return partial(text_space, count_words(texts))

    @abstractmethod
    def scores(self, space: FoldSpace, labellings: Bool[np.ndarray, "n_train columns"]) -> FoldScores:
        """Scores of the test rows; the true labels are the first column."""

    @abstractmethod
    def fitter(self, rows: Float[np.ndarray, "n d"]) -> Callable[[Bool[np.ndarray, " n"]], Weights]:
        """What fits weights to scaled rows, one labelling after another."""


class Logistic(Estimator):
    """Logistic regression, beside the ridge classifier under shuffled labels."""

    name = "logistic"

    def scores(self, space: FoldSpace, labellings: Bool[np.ndarray, "n_train columns"]) -> FoldScores:  # noqa: D102
        weight, bias = fit_logistic(space.train, labellings[:, 0], space.mean_square)
        scores = space.test @ weight
        return FoldScores(scores, space.test @ ridge_weights(space, labellings), expit(scores + bias))

    def fitter(self, rows: Float[np.ndarray, "n d"]) -> Callable[[Bool[np.ndarray, " n"]], Weights]:  # noqa: D102
        space = row_space(rows, np.eye(rows.shape[1]))

        def fit(positive: np.ndarray) -> Weights:
            weight, bias = fit_logistic(space.train, positive, space.mean_square)
            return space.test @ weight if space.mean_square > 0 else np.zeros(rows.shape[1]), bias

        return fit


class MassMean(Estimator):
    """Difference of the class means."""

    name = "mass_mean"

    def scaling(self, rows: Float[np.ndarray, "n d"]) -> Scaling:  # noqa: D102
        wide = np.asarray(rows, dtype=np.float64)
        return Scaling(wide.mean(0), np.ones(wide.shape[1]))

    def states(self, train: Float[np.ndarray, "n_train d"], test: Float[np.ndarray, "n_test d"]) -> FoldSpace:  # noqa: D102
        centre = train.mean(0)
        return FoldSpace(train - centre, test - centre, np.nan)

    def scores(self, space: FoldSpace, labellings: Bool[np.ndarray, "n_train columns"]) -> FoldScores:  # noqa: D102
        columns = mean_difference_scores(space.train, space.test, labellings)
        return FoldScores(columns[:, 0], columns, np.full(len(columns), np.nan))

    def fitter(self, rows: Float[np.ndarray, "n d"]) -> Callable[[Bool[np.ndarray, " n"]], Weights]:  # noqa: D102
        def fit(positive: np.ndarray) -> Weights:
            yes, no = rows[positive].mean(0), rows[~positive].mean(0)
            return yes - no, float((no - yes) @ (yes + no) / 2)

        return fit


class Lda(Estimator):
    """Regularised linear discriminant analysis."""

    name = "lda"

    def scores(self, space: FoldSpace, labellings: Bool[np.ndarray, "n_train columns"]) -> FoldScores:  # noqa: D102
        weights = ridge_weights(space, labellings)
        columns = space.test @ weights
        slope, offset = _posterior(space.train @ weights[:, 0], labellings[:, 0])
        return FoldScores(columns[:, 0], columns, expit(slope * columns[:, 0] + offset))

    def fitter(self, rows: Float[np.ndarray, "n d"]) -> Callable[[Bool[np.ndarray, " n"]], Weights]:  # noqa: D102
        space = row_space(rows, np.eye(rows.shape[1]))

        def fit(positive: np.ndarray) -> Weights:
            axis = ridge_weights(space, positive[:, None])[:, 0]
            slope, offset = _posterior(space.train @ axis, positive)
            return slope * (space.test @ axis), offset

        return fit


class Classifier(Estimator):
    """A classifier of scikit-learn's interface."""

    def __init__(self, model: Any, seed: int) -> None:
        from sklearn.utils import get_tags

        self._model, self._seed = model, seed
        self._reads_sparse = get_tags(model).input_tags.sparse
        self.name = type(model.steps[-1][1] if hasattr(model, "steps") else model).__name__

    def states(self, train: Float[np.ndarray, "n_train d"], test: Float[np.ndarray, "n_test d"]) -> FoldSpace:  # noqa: D102
        scaling = self.scaling(train)
        return FoldSpace(scaling.apply(train), scaling.apply(test), np.nan)

    def words(self, texts: Sequence[str]) -> SpaceOf:  # noqa: D102
        return partial(text_rows, count_words(texts), dense=not self._reads_sparse)

    def scores(self, space: FoldSpace, labellings: Bool[np.ndarray, "n_train columns"]) -> FoldScores:  # noqa: D102
        n_test = space.test.shape[0]
        columns = np.zeros((n_test, labellings.shape[1]))
        probabilities = np.full(n_test, labellings[:, 0].mean() if self._gives("predict_proba") else np.nan)
        for number, positive in enumerate(labellings.T):
            if space.train.shape[1] == 0 or len(set(positive.tolist())) < 2:
                continue  # no word, or one class: nothing is told apart
            fitted = self._fitted(space.train, positive)
            way = "decision_function" if self._gives("decision_function") else "predict_proba"
            columns[:, number] = self._asked(fitted, way, space.test)
            if number == 0 and self._gives("predict_proba"):
                probabilities = self._asked(fitted, "predict_proba", space.test)
        return FoldScores(columns[:, 0], columns, probabilities)

    def fitter(self, rows: Float[np.ndarray, "n d"]) -> Callable[[Bool[np.ndarray, " n"]], Weights]:  # noqa: D102
        def fit(positive: np.ndarray) -> Weights:
            fitted = self._fitted(rows, positive)
            weight = np.asarray(getattr(fitted, "coef_", ()), dtype=np.float64)
            if weight.shape != (1, rows.shape[1]):
                raise InputError(
                    f"estimator: got {self.name}, which has no weight for each feature (coef_), and a probe is saved "
                    f"as these; expected one of {', '.join(BUILT_IN)}, or a linear classifier"
                )
            return weight[0], float(np.ravel(fitted.intercept_)[0])

        return fit

    def _gives(self, way: str) -> bool:
        return hasattr(self._model, way)

    def _fitted(self, rows: np.ndarray, positive: np.ndarray) -> Any:
        from sklearn.base import clone

        try:
            model: Any = clone(self._model)
            names = [name for name in model.get_params() if name.rpartition("__")[2] == "random_state"]
            model.set_params(**{name: self._seed for name in names if model.get_params()[name] is None})
            return model.fit(rows, positive.astype(int))
        except Exception as error:  # whatever a user's own classifier raises
            raise self._failure(error) from error

    def _asked(self, fitted: Any, way: str, rows: np.ndarray) -> np.ndarray:
        """Scores, or probabilities of the positive class, of some rows."""
        try:
            answer = np.asarray(getattr(fitted, way)(rows), dtype=np.float64)
        except Exception as error:
            raise self._failure(error) from error
        answer = answer[:, 1] if way == "predict_proba" and answer.ndim == 2 and answer.shape[1] == 2 else answer
        if answer.shape != (rows.shape[0],) or not np.isfinite(answer).all():
            raise InputError(
                f"estimator {self.name}: {way} gave shape {answer.shape} or numbers that are not finite; expected one "
                f"finite number for each of {rows.shape[0]} rows"
            )
        return answer

    def _failure(self, error: Exception) -> InputError:
        return InputError(f"estimator {self.name}: it failed: {type(error).__name__}: {first_line(error)}")


LOGISTIC, MASS_MEAN, LDA = Logistic(), MassMean(), Lda()
BUILT_IN: dict[str, Estimator] = {estimator.name: estimator for estimator in (LOGISTIC, MASS_MEAN, LDA)}
"""The built-in estimators by name."""


def estimator_of(estimator: Any, seed: int) -> Estimator:
    """The estimator of a name, or of a scikit-learn classifier.

    Args:
        estimator: ``logistic``, ``mass_mean``, ``lda``, or a classifier that was not fitted.
        seed: ``random_state`` of a classifier that has none.

    Raises:
        InputError: it is neither.
    """
    if isinstance(estimator, str):
        if estimator in BUILT_IN:
            return BUILT_IN[estimator]
        got = repr(estimator)
    elif isinstance(estimator, type):
        got = f"the class {estimator.__name__}, not an object of it"
    elif (lack := _lack(estimator)) is None:
        return Classifier(estimator, seed)
    else:
        got = f"{type(estimator).__name__}, {lack}"
    raise InputError(f"estimator: got {got}; expected one of {', '.join(BUILT_IN)}, or a scikit-learn classifier")


def _lack(estimator: Any) -> str | None:
    """What an object lacks of a classifier, in words."""
    from sklearn.base import BaseEstimator, is_classifier

    if not isinstance(estimator, BaseEstimator) or not is_classifier(estimator):
        return "which is no classifier"
    if not (hasattr(estimator, "decision_function") or hasattr(estimator, "predict_proba")):
        return "which has neither decision_function nor predict_proba"
    return None


def _posterior(axis: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """Slope and offset that make projections on the ridge classifier's axis LDA's logits.

    With δ = μ₁ − μ₀, the ridge weights are w = n₁n₀/n (2 − wᵀδ) (S_within + λI)⁻¹ δ, and LDA's (n − 2) (S_within +
    λI)⁻¹ δ.
    """
    n_yes, n_no = int(positive.sum()), int((~positive).sum())
    yes, no = axis[positive].mean(), axis[~positive].mean()
    slope = (len(axis) - 2) * len(axis) / (n_yes * n_no * (2 - (yes - no)))
    return float(slope), float(np.log(n_yes / n_no) - slope * (yes + no) / 2)
