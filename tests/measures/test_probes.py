"""Laws of probes and directions: the solution of the full space, files that come back the same, plain errors."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression, Ridge

from safekey_interp.errors import InputError
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.linear_probes import (
    PRIOR_LOGIT_VARIANCE,
    fit_scaling,
    mean_difference_scores,
    ridge_weights,
    row_space,
)
from safekey_interp.measures.probes import Probe

ABOUT = {"layer": 3, "site": "resid_post", "position": "decision", "model": "tiny", "data_sha256": "ab" * 32}


def states(n, d, *, gap=1.0, seed=0):
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 2 == 0
    matrix = rng.normal(size=(n, d)) * rng.uniform(0.1, 50, d) + rng.normal(size=d) * 100
    matrix[:, 0] += gap * positive * matrix[:, 0].std()
    return matrix.astype(np.float32), ["harmful" if yes else "benign" for yes in positive], [str(i) for i in range(n)]


@pytest.mark.parametrize(("n", "d"), [(40, 120), (300, 20), (50, 50)])
def test_a_probe_is_scikit_learns_logistic_regression_on_standardised_states(n, d):
    matrix, labels, groups = states(n, d)
    probe = Probe.fit(matrix, labels, groups)
    standardised = (matrix.astype(float) - matrix.astype(float).mean(0)) / matrix.astype(float).std(0)
    full = LogisticRegression(C=PRIOR_LOGIT_VARIANCE / d, tol=1e-10, max_iter=20_000).fit(standardised, labels)
    expected = full.decision_function(standardised)  # classes are sorted: harmful is second
    assert list(full.classes_) == ["benign", "harmful"]
    assert np.allclose(probe.score(matrix), expected, atol=1e-3 * np.abs(expected).max())
    assert np.allclose(probe.weight, full.coef_[0], atol=1e-3 * np.abs(full.coef_).max())


@pytest.mark.parametrize(("n", "d"), [(40, 120), (300, 20)])
def test_ridge_columns_equal_a_ridge_fit_per_column(n, d):
    matrix, _, _ = states(n, d)
    labels = np.random.default_rng(1).random((n - 10, 7)) < 0.4
    scaling = fit_scaling(matrix[10:])
    train, test = scaling.apply(matrix[10:]), scaling.apply(matrix[:10])
    space = row_space(train, test)
    fast = space.test @ ridge_weights(space, labels)
    for column in range(7):
        model = Ridge(alpha=4 * d / PRIOR_LOGIT_VARIANCE).fit(train, 2.0 * labels[:, column] - 1)
        assert np.allclose(fast[:, column], test @ model.coef_, atol=1e-6)


def test_mean_difference_columns_are_means_by_hand():
    matrix, _, _ = states(30, 5)
    labels = np.random.default_rng(1).random((20, 4)) < 0.5
    fast = mean_difference_scores(matrix[:20], matrix[20:], labels)
    for column, truth in enumerate(labels.T):
        direction = matrix[:20][truth].mean(0) - matrix[:20][~truth].mean(0)
        assert np.allclose(fast[:, column], matrix[20:] @ direction, rtol=1e-4)


def test_constant_features_and_constant_states_count_for_nothing():
    matrix, labels, groups = states(40, 6)
    wider = np.concatenate([matrix, np.full((40, 2), 3.3, np.float32)], axis=1)
    probe = Probe.fit(wider, labels, groups)
    assert np.allclose(probe.score(wider)[:5], probe.score(np.concatenate([matrix, np.zeros((40, 2))], axis=1))[:5])
    nothing = Probe.fit(np.full((40, 3), 7.7, np.float32), labels, groups)
    assert nothing.auroc == 0.5
    assert np.allclose(nothing.score(np.ones((2, 3))), 0.0), "equal classes, nothing known: logit 0"


def test_a_probe_recovers_a_planted_direction_at_the_theoretical_auroc():
    rng = np.random.default_rng(0)
    axis = rng.normal(size=12)
    axis /= np.linalg.norm(axis)
    positive = rng.random(4_000) < 0.5
    matrix = rng.normal(size=(4_000, 12)) + 1.5 * np.outer(positive, axis)
    labels, groups = ["harmful" if yes else "benign" for yes in positive], [str(i) for i in range(4_000)]
    probe = Probe.fit(matrix, labels, groups)
    assert probe.auroc == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.02)
    planted = Direction(vector=axis, norm=1.0)
    assert probe.direction().cosine(planted) > 0.97
    assert Direction.fit(matrix, labels, groups).cosine(planted) > 0.97
    assert Direction.fit(matrix, labels, groups).norm == pytest.approx(1.5, abs=0.15)


def test_the_direction_of_a_probe_is_the_gradient_of_its_logit():
    matrix, labels, groups = states(60, 8)
    probe = Probe.fit(matrix, labels, groups, **ABOUT)
    direction = probe.direction()
    moved = probe.score(matrix + direction.vector) - probe.score(matrix)
    assert np.allclose(moved, direction.norm)
    assert (direction.layer, direction.position, direction.method) == (3, "decision", "logistic")


def test_rows_without_label_or_state_are_left_out_and_score_nan():
    matrix, labels, groups = states(40, 6)
    holes = matrix.copy()
    holes[3] = np.nan
    unlabelled: list[str | None] = [*labels]
    unlabelled[4] = None
    kept = [row for row in range(40) if row not in (3, 4)]
    whole = Probe.fit(matrix[kept], [labels[row] for row in kept], [groups[row] for row in kept])
    probe = Probe.fit(holes, unlabelled, groups)
    assert probe.n == 38
    assert np.array_equal(probe.weight, whole.weight)
    assert probe.auroc == whole.auroc
    assert np.flatnonzero(np.isnan(probe.score(holes))).tolist() == [3]
    assert np.flatnonzero(np.isnan(probe.direction().project(holes))).tolist() == [3]


def test_auroc_is_undefined_with_too_few_groups_while_the_weights_are_not():
    matrix, labels, _ = states(40, 6)
    probe = Probe.fit(matrix, labels, ["one", "two"] * 20)
    assert np.isnan(probe.auroc)
    assert np.isfinite(probe.weight).all()


def test_fits_repeat_to_the_bit_and_only_auroc_knows_the_seed():
    matrix, labels, groups = states(60, 80, gap=0.5)
    first, again, other = (Probe.fit(matrix, labels, groups, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.weight, again.weight)
    assert first.auroc == again.auroc
    assert np.array_equal(first.weight, other.weight)
    assert first.auroc != other.auroc


def assert_same(one, other):
    for name in {*type(one).__dataclass_fields__} - {"controls"}:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.controls is None) == (other.controls is None)
    if one.controls is not None:
        arrays, others = one.controls.arrays(), other.controls.arrays()
        assert all(np.array_equal(arrays[name], others[name]) for name in others)


def test_a_saved_probe_and_direction_come_back_the_same(tmp_path):
    matrix, labels, groups = states(40, 60)
    probe = Probe.fit(np.concatenate([matrix, np.ones((40, 1))], axis=1), labels, groups, seed=5, **ABOUT)
    probe.save(tmp_path / "probe.safetensors")
    back = Probe.load(tmp_path / "probe.safetensors")
    assert_same(back, probe)
    assert back.d_model == 61
    direction = Direction.fit(matrix, labels, groups, **ABOUT)
    direction.save(tmp_path / "direction.safetensors")
    again = Direction.load(str(tmp_path / "direction.safetensors"))
    assert_same(again, direction)
    bare = Direction(vector=np.eye(4)[0], norm=2.0)
    bare.save(tmp_path / "bare.safetensors")
    assert_same(Direction.load(tmp_path / "bare.safetensors"), bare)


def test_a_probe_without_auroc_comes_back_without_one(tmp_path):
    matrix, labels, _ = states(20, 4)
    Probe.fit(matrix, labels, ["one"] * 20).save(tmp_path / "p")
    assert np.isnan(Probe.load(tmp_path / "p").auroc)


def test_wrong_files_are_refused_in_one_line(tmp_path):
    matrix, labels, groups = states(20, 4)
    Direction.fit(matrix, labels, groups).save(tmp_path / "direction")
    Probe.fit(matrix, labels, groups).save(tmp_path / "probe")
    (tmp_path / "text").write_text("not a tensor")
    (tmp_path / "empty").write_bytes(b"")
    save_file({"weight": np.zeros(3)}, tmp_path / "other")
    fields = {"safekey_interp": "Probe", "fields": json.dumps({"bias": 0.0})}
    vectors = {"weight": np.zeros(3), "mean": np.zeros(3), "scale": np.zeros(3)}
    save_file(vectors, tmp_path / "few_fields", fields)
    save_file(vectors, tmp_path / "no_fields", {"safekey_interp": "Probe"})
    save_file(vectors | {"mean": np.zeros(4)}, tmp_path / "widths", fields)
    save_file({"weight": np.zeros(3)}, tmp_path / "one", fields)
    for name, said in {
        "absent": "cannot be read",
        "text": "cannot be read",
        "empty": "cannot be read",
        "other": "something else",
        "direction": "a file of Direction",
        "few_fields": "auroc",
        "no_fields": "no fields",
        "widths": r"mean \(4,\)",
        "one": r"got weight \(3,\), expected weight \(d_model,\), mean",
    }.items():
        with pytest.raises(InputError, match=said) as caught:
            Probe.load(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(InputError, match="a file of Probe"):
        Direction.load(tmp_path / "probe")
    with pytest.raises(InputError, match="cannot be read"):
        Probe.load(tmp_path)


def test_wrong_shapes_and_labels_are_refused():
    matrix, labels, groups = states(20, 4)
    probe, direction = Probe.fit(matrix, labels, groups), Direction.fit(matrix, labels, groups)
    with pytest.raises(InputError, match=r"shape \(20, 3\), expected \(n, 4\)"):
        probe.score(matrix[:, :3])
    with pytest.raises(InputError, match=r"shape \(4,\)"):
        direction.project(matrix[0])
    with pytest.raises(InputError, match="same width"):
        direction.cosine(Direction.fit(matrix[:, :3], labels, groups))
    with pytest.raises(InputError, match=r"expected \(20, d_model\)"):
        Probe.fit(matrix[:10], labels, groups)
    with pytest.raises(InputError, match="20 labels and 3 groups"):
        Probe.fit(matrix, labels, groups[:3])
    with pytest.raises(InputError, match=r"one class only \(20 harmful, 0 benign\)"):
        Probe.fit(matrix, ["harmful"] * 20, groups)
    with pytest.raises(InputError, match=r"labels by mood: one class only \(20 bad\); both classes are needed"):
        Probe.fit(matrix, ["bad"] * 20, groups, label_by="mood")
    with pytest.raises(
        InputError, match=r"label_by mood: got 3 values \('good' 10, 'bad' 9, 'worse' 1\), expected two"
    ):
        Direction.fit(matrix, ["good", "bad"] * 9 + ["good", "worse"], groups, label_by="mood")
    with pytest.raises(InputError, match="same mean state"):
        Direction.fit(np.ones((20, 4)), labels, groups)


def test_classes_are_those_of_the_data():
    matrix, labels, groups = states(60, 6, gap=3.0)
    for names in (("wrong", "correct"), ("fr", "en"), ("10", "9")):
        named = [names[label == "benign"] for label in labels]
        for kind in (Probe, Direction):
            record, usual = kind.fit(matrix, named, groups, label_by="c"), kind.fit(matrix, labels, groups)
            assert (record.classes, record.label_by, usual.classes) == (names, "c", ("harmful", "benign"))
            vectors = [one.weight if kind is Probe else one.vector for one in (record, usual)]
            assert np.array_equal(*vectors), "names change nothing"
    assert Probe.fit(matrix, named, groups).direction().classes == names


def test_outcomes_take_unsafe_as_positive_and_leave_neutral_out():
    matrix, labels, groups = states(60, 6, gap=3.0)
    outcomes = [{"harmful": "unsafe", "benign": "safe"}[label] for label in labels]
    outcomes[0] = "neutral"
    probe = Probe.fit(matrix, outcomes, groups, label_by="aha")
    assert probe.n == 59
    assert probe.score(matrix)[::2].mean() > probe.score(matrix)[1::2].mean()
