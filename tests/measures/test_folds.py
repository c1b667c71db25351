"""Laws of splits and shuffles: groups stay whole, classes stay in every fold, shuffles keep what the design tells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekey_interp.data.class_labels import HARM, ClassPair
from safekey_interp.measures.folds import make_plan, positive_class, why_not

UNSAFE = ClassPair("unsafe", "safe")


def plan_of(positive, groups, **options):
    positive = np.asarray(positive, dtype=float)
    return make_plan(np.arange(len(positive)), positive, [str(group) for group in groups], **({"seed": 0} | options))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["+", "-", "±"])), min_size=10, max_size=40),
    st.integers(0, 9),
)
def test_folds_and_shuffles_keep_groups_whole(design, seed):
    positive, groups = [], []
    for number, (size, kind) in enumerate(design):
        positive += {"+": [1] * size, "-": [0] * size, "±": [k % 2 for k in range(size)]}[kind]
        groups += [number] * size
    if why_not(np.array(positive) == 1, [str(group) for group in groups], HARM):
        return
    plan = plan_of(positive, groups, seed=seed, n_permutations=11)
    codes = np.array(groups)
    for group in range(len(design)):
        assert len(set(plan.fold[codes == group])) == 1, "a group is scored in one fold"
        assert len(set(plan.codes[codes == group])) == 1, "and its rows count together"
    for number in range(plan.n_folds):
        inside = plan.fold == number
        assert 0 < plan.positive[inside].sum() < inside.sum()
        assert (plan.shuffled[inside].sum(0) == plan.positive[inside].sum()).all(), "as stratified as the truth"
    true_blocks = {(size, plan.positive[codes == group].sum()) for group, (size, _) in enumerate(design)}
    for column in plan.shuffled.T:
        held = {(size, column[codes == group].sum()) for group, (size, _) in enumerate(design)}
        assert held <= true_blocks, "blocks only trade places among groups of equal size"


def test_twins_stay_one_of_each_and_trade_labels():
    positive, groups = [1, 0] * 30, np.repeat(np.arange(30), 2)
    plan = plan_of(positive, groups, n_permutations=400)
    pairs = plan.shuffled.reshape(30, 2, 400)
    assert (pairs.sum(1) == 1).all()
    assert np.abs(pairs[:, 0].mean(1) - 0.5).max() < 0.12


def test_every_shuffle_of_a_small_design_is_equally_likely():
    positive, groups = [1] * 5 + [0] * 5, range(10)
    plan = plan_of(positive, groups, n_permutations=6_400)
    seen, counts = np.unique(plan.shuffled, axis=1, return_counts=True)
    assert seen.shape[1] == 2**5, "one of each class in each of five folds"
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)


def test_labels_that_can_hardly_be_shuffled_have_no_null():
    sizes = range(1, 11)
    groups = np.repeat(np.arange(10), sizes)
    plan = plan_of(groups % 2, groups, n_permutations=50)
    assert plan.shuffled.shape == (55, 0)
    assert "no null" in " ".join(plan.notes)


def test_a_note_says_what_the_size_of_a_group_gives_away():
    groups = [*np.repeat(np.arange(20), 2), *np.repeat(np.arange(20, 40), 3)]
    plan = plan_of([1, 0] * 20 + [1, 0, 0] * 20, groups, n_permutations=50)
    # P(pair | +) P(triple | -) + half the ties = 1/2 * 2/3 + (1/2 * 1/3 + 1/2 * 2/3) / 2
    assert any("AUROC 0.583" in note for note in plan.notes)


def test_folds_shrink_to_the_groups_of_the_rarer_class():
    assert plan_of([1] * 7 + [0] * 50, range(57), n_folds=10).n_folds == 7
    assert plan_of([1] * 50 + [0] * 50, range(100), n_folds=10).n_folds == 10


def test_no_split_is_said_and_not_made_up():
    # One group holds nearly everything, so some fold is bound to lack a class at any number of folds.
    positive = [1, 0] * 4 + [1]
    plan = plan_of(positive, [0] * 8 + [1], n_permutations=20)
    assert plan.n_folds == 0
    assert plan.shuffled.shape[1] == 0
    assert plan.notes == ("no split gives every fold both classes",)


@pytest.mark.parametrize(("n_positive", "n_negative"), [(900, 900), (60, 3_000), (3_000, 60), (10, 200)])
def test_beyond_max_rows_whole_groups_are_drawn_and_the_rarer_class_is_kept(n_positive, n_negative):
    positive = np.array([1.0] * n_positive + [0.0] * n_negative)
    groups = [str(row // 2) for row in range(len(positive))]
    plan = make_plan(np.arange(len(positive)), positive, groups, seed=0, max_rows=200)
    assert 195 <= len(plan.rows) <= 201
    rarer = min(n_positive, n_negative, 100)
    assert abs(min(plan.positive.sum(), (~plan.positive).sum()) - rarer) <= 2
    kept = set(plan.rows.tolist())
    assert all(row ^ 1 in kept for row in kept), "both rows of a group or none"
    assert f"of {len(positive):,} rows" in plan.notes[0]
    assert np.array_equal(positive[plan.rows] == 1, plan.positive)


def test_the_seed_decides():
    arguments = ([1, 0] * 40, range(80))
    first, again, other = (plan_of(*arguments, seed=seed, n_permutations=20) for seed in (3, 3, 4))
    for name in ("fold", "shuffled"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize(
    ("positive", "groups", "classes", "why"),
    [
        ([1] * 971, range(971), HARM, "one class only (971 harmful, 0 benign)"),
        ([0] * 1_200, range(1_200), UNSAFE, "one class only (0 unsafe, 1,200 safe)"),
        ([], [], HARM, "no labelled rows (0 harmful, 0 benign)"),
        (
            [1] * 30 + [0] * 30,
            [row // 10 for row in range(60)],
            HARM,
            "too few groups: 3 harmful groups, at least 5 needed",
        ),
        ([1] * 30 + [0] * 4, range(34), UNSAFE, "too few groups: 4 safe groups, at least 5 needed"),
        ([1, 0] * 5, np.repeat(range(5), 2), HARM, None),
        ([1] * 3, range(3), ClassPair("correct", ""), "one class only (3 correct)"),
    ],
)
def test_reasons_are_words(positive, groups, classes, why):
    assert why_not(np.array(positive, dtype=int) == 1, [str(group) for group in groups], classes) == why


def test_rows_of_neither_class_have_no_code():
    assert np.array_equal(positive_class(["harmful", None, "benign"], HARM), [1, np.nan, 0], equal_nan=True)
    codes = positive_class(["unsafe", "neutral", "safe", None], UNSAFE)
    assert np.array_equal(codes, [1, np.nan, 0, np.nan], equal_nan=True)
    assert np.isnan(positive_class([None, "", "x"], ClassPair("a", ""))).all()
