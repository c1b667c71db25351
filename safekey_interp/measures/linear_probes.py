"""Linear probes behind separability: logistic, ridge and difference of means, for many labellings at once.

With many more features than rows the weights of a ridge-type penalty lie in the span of the training rows
(representer theorem), so training and test rows are first written in coordinates Z with Z Zᵀ = X Xᵀ, a Cholesky
factor of the Gram matrix: the same solution at n_train dimensions instead of d. Ridge weights (ZᵀZ + λI)⁻¹ Zᵀ(y − ȳ)
are linear in the labels, so one factorisation serves the true labels and all shuffled ones. With two classes they
point along the axis of regularised linear discriminant analysis, Σ_within + λI (Hastie, Tibshirani & Friedman,
*Elements of Statistical Learning*, exercise 4.2).

Penalty, the same rule for states of any width and for text: C = 10 / mean squared norm of the centred training rows,
that is 10 / d for standardised states. It gives a typical row a prior logit of standard deviation √10. It is fixed,
not chosen by cross-validation, so that true and shuffled labels get the same. The 10 comes from XSTest's prompts in
SmolLM2-135M: of 0.1, 1, 10, 100 and 1,000 it lost at most 0.03 AUROC to the best at any layer tried, and nothing on
their words. Ridge takes λ = 4 / C, since the logistic loss curves by 1/4 at 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular

PRIOR_LOGIT_VARIANCE = 10.0
"""C times the mean squared norm of the training rows."""
_CONSTANT = 1e-6  # a feature whose spread is below this share of its size is float32 rounding, not a feature
_JITTER = 1e-9  # of the mean diagonal; centred rows leave a Gram matrix singular


class Scaling(NamedTuple):
    """Centre and scale of each feature, learnt from training rows."""

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    """Standard deviation; infinite for a constant feature, which then counts for nothing."""

    def apply(self, matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Standardised float64 rows."""
        return (matrix - self.mean) / self.scale


class FoldSpace(NamedTuple):
    """Training and test rows in the same coordinates; training rows are centred."""

    train: Float[np.ndarray, "n_train r"]
    test: Float[np.ndarray, "n_test r"]
    mean_square: float
    """Mean squared norm of the training rows; 0 when they are all the same."""


def fit_scaling(matrix: Float[np.ndarray, "n d"]) -> Scaling:
    """Mean and standard deviation of each feature; features that do not vary beyond rounding are switched off."""
    wide = np.asarray(matrix, dtype=np.float64)
    mean, spread = wide.mean(0), wide.std(0)
    return Scaling(mean, np.where(spread > _CONSTANT * np.abs(wide).max(0), spread, np.inf))


def row_space(train: Float[np.ndarray, "n_train d"], test: Float[np.ndarray, "n_test d"]) -> FoldSpace:
    """Centred rows in min(n_train, d) coordinates that keep every inner product."""
    if len(train) <= train.shape[1]:
        return gram_space(train @ train.T, test @ train.T)
    return FoldSpace(train, test, float(np.square(train).sum(1).mean()))


def gram_space(gram: Float[np.ndarray, "n_train n_train"], cross: Float[np.ndarray, "n_test n_train"]) -> FoldSpace:
    """Rows known by inner products alone: ``gram`` among centred training rows, ``cross`` from test to training."""
    n_train, mean_square = len(gram), float(np.trace(gram) / len(gram))
    if mean_square <= 0:
        return FoldSpace(np.zeros((n_train, 1)), np.zeros((len(cross), 1)), 0.0)
    factor = cholesky(gram + _JITTER * mean_square * np.eye(n_train), lower=True)
    return FoldSpace(factor, solve_triangular(factor, cross.T, lower=True).T, mean_square)


def centre_gram(
    gram: Float[np.ndarray, "n_train n_train"], cross: Float[np.ndarray, "n_test n_train"]
) -> tuple[Float[np.ndarray, "n_train n_train"], Float[np.ndarray, "n_test n_train"]]:
    """Inner products after the mean of the training rows is taken from all rows."""
    with_mean = gram.mean(0)
    return gram - with_mean - with_mean[:, None] + with_mean.mean(), cross - cross.mean(
        1, keepdims=True
    ) - with_mean + with_mean.mean()


def logistic_penalty(mean_square: float) -> float:
    """The inverse penalty C of every logistic probe; see the module's docstring."""
    return PRIOR_LOGIT_VARIANCE / mean_square


def fit_logistic(
    rows: Float[np.ndarray, "n r"], positive: Bool[np.ndarray, " n"], mean_square: float
) -> tuple[Float[np.ndarray, " r"], float]:
    """Weights and bias of the L2-regularised logistic probe; the bias alone when the rows are all the same."""
    from scipy.optimize import minimize
    from sklearn._loss import HalfBinomialLoss

    if mean_square <= 0:
        return np.zeros(rows.shape[1]), float(np.log(positive.sum() / (~positive).sum()))
    matrix, targets, loss = np.ascontiguousarray(rows), positive.astype(np.float64), HalfBinomialLoss()
    penalty = 1.0 / (logistic_penalty(mean_square) * len(matrix))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parameters[:-1]
        losses, slopes = loss.loss_gradient(targets, matrix @ weights + parameters[-1])
        slopes /= len(matrix)
        gradient = np.append(matrix.T @ slopes + penalty * weights, slopes.sum())
        return float(losses.sum() / len(matrix)) + float(0.5 * penalty * (weights @ weights)), gradient

    # The steps of scikit-learn's LogisticRegression(C, tol=1e-6), to the bit, in a quarter of its time: it checks its
    # arrays at every step.
    options = {"maxiter": 2_000, "maxls": 50, "gtol": 1e-6, "ftol": 64 * np.finfo(float).eps}
    fitted = minimize(objective, np.zeros(matrix.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)
    return fitted.x[:-1], float(fitted.x[-1])


def ridge_weights(space: FoldSpace, positive: Bool[np.ndarray, "n_train columns"]) -> Float[np.ndarray, "r columns"]:
    """Weights of the ridge classifier (the LDA axis), one column per labelling."""
    if space.mean_square <= 0:
        return np.zeros((space.train.shape[1], positive.shape[1]))
    targets = 2.0 * positive - 1.0
    targets -= targets.mean(0)
    penalty = 4.0 / logistic_penalty(space.mean_square)
    moments = space.train.T @ space.train + penalty * np.eye(space.train.shape[1])
    return cho_solve(cho_factor(moments, lower=True), space.train.T @ targets)


def mean_difference_scores(
    train: Float[np.ndarray, "n_train d"],
    test: Float[np.ndarray, "n_test d"],
    positive: Bool[np.ndarray, "n_train columns"],
) -> Float[np.ndarray, "n_test columns"]:
    """Projections of test rows on mean(positive) − mean(negative) of the training rows, one column per labelling."""
    n_positive = positive.sum(0)
    contrast = positive / n_positive - ~positive / (len(positive) - n_positive)
    return test @ (train.T @ contrast)
