"""Laws of estimators: planted effects are found, noise is not, folds are never seen, what is no classifier is said."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from slow_turns import mostly_slow

from safekey_interp.capture.places import Place
from safekey_interp.data.conditions import Conditions
from safekey_interp.errors import InputError
from safekey_interp.measures.estimators import BUILT_IN, LDA, LOGISTIC, MASS_MEAN, estimator_of
from safekey_interp.measures.folds import make_plan
from safekey_interp.measures.layer_scores import out_of_fold, score, score_texts, states_space
from safekey_interp.measures.linear_probes import PRIOR_LOGIT_VARIANCE, logistic_penalty
from safekey_interp.measures.probes import Probe
from safekey_interp.measures.separability import separability_table
from safekey_interp.measures.transfer import transfer_table

CLASSIFIERS = {
    "logistic": "logistic",
    "mass_mean": "mass_mean",
    "lda": "lda",
    "GaussianNB": GaussianNB(),
    "LinearSVC": LinearSVC(),
    "LogisticRegression": make_pipeline(StandardScaler(with_mean=False), LogisticRegression()),
}


class OneLayer:
    """States at one position of one layer."""

    def __init__(self, states):
        self.states, self.positions = np.asarray(states, np.float32), ("prompt",)
        self.layers = (Place(0, "resid_post"),)
        self.trace_ids = tuple(f"t{row}" for row in range(len(states)))

    def matrix(self, layer_index, position):
        return self.states


def planted(n, d, gap, *, seed=0):
    rng = np.random.default_rng(seed)
    positive = rng.permutation(n) < n // 2
    states = rng.normal(size=(n, d))
    states[:, 0] += gap * positive
    return states, positive


def table_of(states, positive, estimator, words=None, **options):
    labels = ["harmful" if yes else "benign" for yes in positive]
    groups = [str(row) for row in range(len(positive))]
    texts = {} if words is None else {"prompt": words}
    about: Any = {"estimator": estimator, "n_permutations": 20} | options
    return separability_table(OneLayer(states), labels, groups, texts, **about).table


def plan_of(positive, n_permutations=0):
    n = len(positive)
    return make_plan(
        np.arange(n), np.asarray(positive, float), [str(row) for row in range(n)], seed=0, n_permutations=n_permutations
    )


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_estimator_finds_what_is_planted_in_states_and_in_words(name):
    states, positive = planted(200, 6, 2.5)
    words = ["a b c bad" if yes else "a b c good" for yes in positive]
    table = table_of(states, positive, CLASSIFIERS[name], words).set_index("method")
    assert list(table.index) == [name, "diff_of_means", "text_tfidf"]
    assert table.loc[name].auroc == pytest.approx(0.96, abs=0.03)
    assert table.loc["text_tfidf"].auroc == 1.0
    assert set(table.p_value) == {1 / 21}
    assert list(table.estimator) == [name, "mass_mean", name]
    assert (table.auroc_low < table.auroc).all()


@pytest.mark.parametrize("name", mostly_slow(CLASSIFIERS, quick=("logistic", "mass_mean", "lda", "GaussianNB")))
def test_labels_that_mean_nothing_give_one_half_and_honest_p_values(name):
    rows = [
        table_of(*planted(60, 8, 0.0, seed=seed), CLASSIFIERS[name], n_permutations=10, seed=seed).iloc[0]
        for seed in range(16)
    ]
    aurocs, nulls, p_values = (
        np.array([row[column] for row in rows]) for column in ("auroc", "null_auroc_mean", "p_value")
    )
    assert aurocs.mean() == pytest.approx(0.5, abs=0.07)  # standard error 0.02
    assert nulls.mean() == pytest.approx(0.5, abs=0.03)
    assert 0.3 < p_values.mean() < 0.75


def test_a_classifier_has_a_null_of_its_own():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(160, 2))
    positive = (states[:, 0] > 0) ^ (states[:, 1] > 0)  # no line tells these apart
    forest = table_of(states, positive, RandomForestClassifier(10, max_depth=6)).iloc[0]
    assert forest.auroc > 0.9
    assert forest.p_value == pytest.approx(1 / 21)
    assert table_of(states, positive, "lda").iloc[0].p_value > 0.05


def test_a_run_repeats_and_a_given_object_stays_as_it_was():
    states, positive = planted(60, 4, 1.0)
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(5))
    first, again, other = (table_of(states, positive, forest, n_permutations=3, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.auroc.equals(other.auroc)
    assert not hasattr(forest, "n_features_in_")
    assert forest.get_params()["randomforestclassifier__random_state"] is None


class Remembers(ClassifierMixin, BaseEstimator):
    """Notes every row that it was fitted on, and is sure of these."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen_ = {row.tobytes() for row in X}
        return self

    def decision_function(self, X):
        return np.array([float(row.tobytes() in self.seen_) for row in X])


def test_a_fold_is_never_seen():
    states, positive = planted(40, 3, 0.0)
    plan = plan_of(positive)
    estimator = estimator_of(Remembers(), 0)
    assert not out_of_fold(states_space(MASS_MEAN, states), plan, estimator).scores.any()


class Given(BaseEstimator):
    """A covariance for scikit-learn's LDA, whatever the rows are."""

    def __init__(self, covariance_):
        self.covariance_ = covariance_

    def fit(self, X):
        return self


def test_lda_is_that_of_scikit_learn_with_the_same_covariance():
    states, positive = planted(90, 5, 1.5)
    plan = plan_of(positive)
    raw = out_of_fold(states_space(LDA, states), plan, LDA)
    for fold in range(plan.n_folds):
        test = plan.fold == fold
        train = states[~test]
        train, rows = ((part - train.mean(0)) / train.std(0) for part in (train, states[test]))
        truth = plan.positive[~test]
        penalty = 4 / logistic_penalty(float(np.square(train).sum(1).mean()))
        within = sum(np.cov(train[truth == side].T, bias=True) * (truth == side).sum() for side in (True, False))
        covariance = (within + penalty * np.eye(5)) / (len(train) - 2)
        means = train[truth].mean(0), train[~truth].mean(0)
        axis = np.linalg.solve(covariance, means[0] - means[1])
        logits = (rows - (means[0] + means[1]) / 2) @ axis + np.log(truth.sum() / (~truth).sum())
        np.testing.assert_allclose(raw.probabilities[test], expit(logits), atol=1e-9)

        theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Given(covariance)).fit(train, truth)
        np.testing.assert_allclose(raw.probabilities[test], theirs.predict_proba(rows)[:, 1], atol=1e-6)
        assert roc_auc_score(plan.positive[test], raw.scores[test]) == pytest.approx(
            roc_auc_score(plan.positive[test], logits)
        )


def test_logistic_probabilities_are_those_of_scikit_learn():
    states, positive = planted(90, 5, 1.5)
    states, plan = states.astype(np.float32), plan_of(positive)
    found = score(LOGISTIC, states, plan).probabilities
    ours = make_pipeline(StandardScaler(), LogisticRegression(C=PRIOR_LOGIT_VARIANCE / 5, tol=1e-10, max_iter=5_000))
    np.testing.assert_allclose(found, score(estimator_of(ours, 0), states, plan).probabilities, atol=1e-5)
    row = table_of(states, positive, "logistic").iloc[0]
    assert row.brier == pytest.approx(brier_score_loss(positive, found), abs=1e-12)
    assert row.brier_low < row.brier < row.brier_high


def test_a_calibrated_probe_has_a_small_error_and_an_overconfident_one_a_large_one():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2_000, 3))
    positive = rng.random(2_000) < expit(1.2 * states[:, 0])
    for estimator in ("logistic", "lda"):
        assert table_of(states, positive, estimator, max_rows=None, n_permutations=0).iloc[0].ece < 0.04
    forest = RandomForestClassifier(1)
    assert table_of(states, positive, forest, max_rows=None, n_permutations=0).iloc[0].ece > 0.2


def test_shuffled_labels_are_predicted_no_better_than_by_their_share():
    states, positive = planted(400, 4, 0.0)
    row = table_of(states, positive, "logistic").iloc[0]
    assert row.brier == pytest.approx(0.25, abs=0.02)
    assert row.ece < 0.12


@pytest.mark.parametrize("estimator", ["mass_mean", LinearSVC(), SVC()])
def test_scores_alone_have_no_calibration_and_say_so(estimator):
    states, positive = planted(40, 4, 2.0)
    row = table_of(states, positive, estimator, ["a b", "c d"] * 20).set_index("method").iloc[0]
    assert np.isnan([row.brier, row.brier_low, row.brier_high, row.ece]).all()
    assert row.undefined == f"{row.name} gives scores and no probabilities"
    assert row.note == "TPR at 1 % FPR needs 100 negative rows, got 20"
    assert np.isfinite(row.tpr_at_5fpr)
    few = table_of(*planted(30, 4, 2.0), "logistic").iloc[0]
    assert few.undefined == "TPR at 5 % FPR needs 20 negative rows, got 15"
    assert np.isnan(few.tpr_at_5fpr)
    assert np.isfinite(few.brier)


def test_mass_mean_is_the_difference_of_means():
    states, positive = planted(60, 5, 1.0)
    table = table_of(states, positive, "mass_mean")
    first, second = (table.iloc[row].drop(["method"]) for row in (0, 1))
    assert first.equals(second)


def test_coordinates_are_along_the_lda_axis_whatever_is_fitted():
    states, positive = planted(60, 5, 1.0)
    labels = ["harmful" if yes else "benign" for yes in positive]
    groups = [str(row) for row in range(60)]
    axes = [
        separability_table(OneLayer(states), labels, groups, {}, estimator=estimator, n_permutations=5).coordinates.lda
        for estimator in ("logistic", "lda", "mass_mean", GaussianNB())
    ]
    for axis in axes[1:]:
        np.testing.assert_allclose(axis, axes[0], atol=1e-8)


def test_transfer_takes_estimators_too():
    states, positive = planted(120, 4, 2.5)
    labels = ["harmful" if yes else "benign" for yes in positive]
    groups = [str(row) for row in range(120)]
    condition = ["plain", "wrapped"] * 60
    words = {"prompt": ["bad" if yes else "good" for yes in positive]}
    conditions = Conditions(by="source", names=("plain", "wrapped"))
    for name in ("lda", "mass_mean", "GaussianNB"):
        about: Any = {"conditions": conditions, "estimator": CLASSIFIERS[name], "n_permutations": 5}
        table = transfer_table(OneLayer(states), labels, groups, condition, words, **about).table
        assert set(table.method) == {name, "text_tfidf"}
        assert set(table.estimator) == {name}
        assert table[table.method == name].auroc.min() > 0.85
        assert table[table.method == "text_tfidf"].auroc.min() == 1.0


@pytest.mark.parametrize("estimator", ["logistic", "mass_mean", "lda", LinearSVC(), LogisticRegression()])
def test_a_probe_of_any_linear_estimator_scores_as_it_does(estimator, tmp_path):
    states, positive = planted(80, 5, 2.0, seed=1)
    states = 3 * states + 7
    labels = ["harmful" if yes else "benign" for yes in positive]
    groups = [str(row) for row in range(80)]
    probe = Probe.fit(states, labels, groups, estimator=estimator, n_controls=3)
    name = estimator if isinstance(estimator, str) else type(estimator).__name__
    assert probe.estimator == probe.direction().method == name
    assert probe.auroc > 0.8
    assert roc_auc_score(positive, probe.score(states)) > 0.85
    assert np.mean((probe.score(states) > 0) == positive) > 0.75, "the bias lies between the classes"
    cosine = abs(probe.direction().vector[0])
    assert cosine > 0.8, "the planted direction"
    probe.save(tmp_path / "p")
    read = Probe.load(tmp_path / "p")
    assert (read.estimator, read.classes) == (name, ("harmful", "benign"))
    assert np.array_equal(read.score(states), probe.score(states))
    if name == "lda":
        theirs = estimator_of("lda", 0).scores(
            states_space(LDA, states)(np.ones(80, bool), np.ones(80, bool)), np.asarray(positive)[:, None]
        )
        np.testing.assert_allclose(expit(probe.score(states)), theirs.probabilities, atol=1e-7)


class Broken(ClassifierMixin, BaseEstimator):
    """Goes wrong in a way of its choice."""

    def __init__(self, way="raise"):
        self.way = way

    def fit(self, X, y):
        if self.way == "raise":
            raise ValueError("no\nway")
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        if self.way == "late":
            raise KeyError("x")
        return {"shape": np.zeros((len(X), 3)), "nan": np.full(len(X), np.nan)}[self.way]


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        ("svm", "estimator: got 'svm'; expected one of logistic, mass_mean, lda, or a scikit-learn classifier"),
        (LinearRegression(), "got LinearRegression, which is no classifier"),
        (LogisticRegression, "got the class LogisticRegression, not an object of it"),
        (None, "got NoneType, which is no classifier"),
        (3, "got int, which is no classifier"),
        (object(), "got object, which is no classifier"),
        (StandardScaler(), "got StandardScaler, which is no classifier"),
        (Broken("raise"), "estimator Broken: it failed: ValueError: no"),
        (Broken("late"), "estimator Broken: it failed: KeyError"),
        (Broken("shape"), r"decision_function gave shape \(\d+, 3\)"),
        (Broken("nan"), "numbers that are not finite"),
    ],
)
def test_what_is_no_classifier_is_one_line(estimator, said):
    states, positive = planted(40, 4, 2.0)
    with pytest.raises(InputError, match=said) as error:
        table_of(states, positive, estimator)
    assert "\n" not in str(error.value)


def test_a_probe_needs_weights():
    states, positive = planted(40, 4, 2.0)
    labels = ["harmful" if yes else "benign" for yes in positive]
    for estimator in (GaussianNB(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(InputError, match="which has no weight for each feature"):
            Probe.fit(states, labels, [str(row) for row in range(40)], estimator=estimator)


def test_texts_without_a_common_word_tell_nothing():
    plan = plan_of([row < 20 for row in range(40)], 3)
    words = [f"w{row}" for row in range(40)]
    for estimator in [*BUILT_IN.values(), estimator_of(GaussianNB(), 0), estimator_of(CalibratedClassifierCV(), 0)]:
        scored = score_texts(words, plan, estimator)
        assert scored.observed == 0.5
        if estimator is not MASS_MEAN:
            np.testing.assert_allclose(scored.probabilities, 0.5, atol=1e-6)
