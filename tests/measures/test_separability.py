"""Laws of the separability table: planted signals are found, noise is not, what is undefined is NaN."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from safekey_interp.errors import InputError
from safekey_interp.measures.folds import make_plan
from safekey_interp.measures.layer_scores import describe, measure_states, score_states, score_texts
from safekey_interp.measures.linear_probes import PRIOR_LOGIT_VARIANCE
from safekey_interp.measures.separability import COLUMNS, COORDINATE_COLUMNS, separability_table

SHARED = Path(__file__).parents[3] / "shared" / "data"
FAST = {"n_permutations": 40}


class Site(NamedTuple):
    layer: int
    site: str


class Arrays:
    """States held in memory: position -> (layer, n, d_model)."""

    def __init__(self, **arrays):
        self.arrays = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
        n_layers, n, _ = next(iter(self.arrays.values())).shape
        self.layers = tuple(Site(layer, "resid_post") for layer in range(n_layers))
        self.positions = tuple(self.arrays)
        self.trace_ids = tuple(f"t{row}" for row in range(n))

    def matrix(self, layer_index, position):
        return self.arrays[position][layer_index]


def labels_of(positive, names=("harmful", "benign")):
    return [names[0] if yes else names[1] for yes in positive]


def alone(n):
    return [str(row) for row in range(n)]


def planted(n, d, gap, *, seed=0, n_layers=1):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    states = rng.normal(size=(n_layers, n, d))
    states[:, :, 0] += gap * positive
    return states, labels_of(positive)


def row_of(result, method="logistic", **where):
    table = result.table[result.table.method == method]
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_a_planted_direction_is_found_at_the_theoretical_auroc():
    states, labels = planted(1_600, 8, 1.5)
    result = separability_table(Arrays(prompt=states), labels, alone(1_600), {}, max_rows=None, **FAST)
    for method in ("logistic", "diff_of_means"):
        row = row_of(result, method)
        assert row.auroc == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.02)
        assert row.auroc_low < norm.cdf(1.5 / np.sqrt(2)) < row.auroc_high
        assert row.tpr_at_1fpr == pytest.approx(norm.sf(norm.isf(0.01) - 1.5), abs=0.08)
        assert row.tpr_low <= row.tpr_at_1fpr <= row.tpr_high
        assert row.fisher_ratio == pytest.approx(1.5**2 / 2, rel=0.15)
        assert row.p_value == pytest.approx(1 / 41)
        assert abs(row.null_auroc_mean - 0.5) < 0.02
    assert row_of(result).silhouette > 0


@pytest.mark.slow
def test_labels_that_mean_nothing_give_auroc_one_half_and_honest_p_values():
    aurocs, p_values, covered, nulls = [], [], [], []
    for seed in range(60):
        states, labels = planted(60, 90, 0.0, seed=seed)
        row = row_of(separability_table(Arrays(prompt=states), labels, alone(60), {}, seed=seed, **FAST))
        aurocs.append(row.auroc)
        p_values.append(row.p_value)
        covered.append(row.null_auroc_low <= row.auroc <= row.null_auroc_high)
        nulls.append(row.null_auroc_mean)
    assert np.mean(aurocs) == pytest.approx(0.5, abs=0.03)  # standard error 0.01
    assert np.mean(nulls) == pytest.approx(0.5, abs=0.01)
    assert np.mean(covered) >= 0.85
    assert np.mean(np.array(p_values) <= 0.1) <= 0.22
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.12)


def test_the_null_is_an_explicit_loop_of_ridge_on_permuted_labels():
    states, labels = planted(70, 90, 0.7)
    positive = np.array([label == "harmful" for label in labels])
    plan = make_plan(np.arange(70), positive.astype(float), alone(70), seed=0, n_permutations=6)
    scored = score_states(states[0], plan)
    for number in range(7):
        truth = positive if number == 0 else plan.shuffled[:, number - 1]
        wins = pairs = 0
        for fold in range(plan.n_folds):
            test = plan.fold == fold
            train = (states[0][~test] - states[0][~test].mean(0)) / states[0][~test].std(0)
            rows = (states[0][test] - states[0][~test].mean(0)) / states[0][~test].std(0)
            model = Ridge(alpha=4 * 90 / PRIOR_LOGIT_VARIANCE).fit(train, 2.0 * truth[~test] - 1)
            here = truth[test].sum() * (~truth[test]).sum()
            wins += here * roc_auc_score(truth[test], rows @ model.coef_)
            pairs += here
        found = scored["logistic"].observed if number == 0 else scored["logistic"].null[number - 1]
        assert found == pytest.approx(wins / pairs, abs=1e-9)


def test_states_that_only_know_their_group_are_at_chance():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    noise = rng.normal(size=(40, 200))[groups] + 0.01 * rng.normal(size=(240, 200))
    labels = labels_of((rng.permutation(40) < 20)[groups])
    grouped = row_of(separability_table(Arrays(prompt=noise[None]), labels, groups.astype(str).tolist(), {}, **FAST))
    leaky = row_of(separability_table(Arrays(prompt=noise[None]), labels, alone(240), {}, **FAST))
    assert leaky.auroc > 0.95, "split by row, copies of a row give its label away"
    assert abs(grouped.auroc - 0.5) < 0.2
    assert grouped.p_value > 0.05
    assert (grouped.n, grouped.n_groups) == (240, 40)


def test_copies_of_rows_in_their_group_do_not_narrow_the_interval():
    states, labels = planted(80, 5, 1.0)
    once = row_of(separability_table(Arrays(prompt=states), labels, alone(80), {}, n_permutations=20))
    copied = Arrays(prompt=np.repeat(states, 5, axis=1))
    many = row_of(separability_table(copied, np.repeat(labels, 5).tolist(), np.repeat(alone(80), 5).tolist(), {}))
    assert many.auroc == pytest.approx(once.auroc, abs=0.05)
    assert many.auroc_high - many.auroc_low == pytest.approx(once.auroc_high - once.auroc_low, rel=0.25)


def test_twins_with_both_labels_get_a_null_of_their_own():
    rng = np.random.default_rng(0)
    topic = np.repeat(rng.normal(size=(60, 30)) * 3, 2, axis=0)
    states = topic + rng.normal(size=(120, 30))
    labels, groups = labels_of(np.arange(120) % 2 == 0), np.repeat(alone(60), 2).tolist()
    nothing = row_of(separability_table(Arrays(prompt=states[None]), labels, groups, {}, **FAST))
    assert nothing.p_value > 0.05
    assert nothing.null_auroc_mean == pytest.approx(0.5, abs=0.03)
    states[::2, 3] += 4
    something = row_of(separability_table(Arrays(prompt=states[None]), labels, groups, {}, **FAST))
    assert something.p_value == pytest.approx(1 / 41)
    assert something.n_groups == 60


def test_states_that_are_all_the_same_are_at_chance_and_have_no_geometry():
    labels = labels_of(np.arange(40) % 2 == 0)
    result = separability_table(Arrays(prompt=np.full((1, 40, 6), 3.3)), labels, alone(40), {}, **FAST)
    row = row_of(result)
    assert (row.auroc, row.p_value) == (0.5, 1.0)
    assert np.isnan([row.fisher_ratio, row.silhouette]).all()
    assert result.coordinates[["pc1", "pc2"]].isna().all(axis=None)


def test_tpr_is_undefined_below_a_hundred_benign_rows_and_says_so():
    states, labels = planted(60, 4, 1.0)
    row = row_of(separability_table(Arrays(prompt=states), labels, alone(60), {}, **FAST))
    assert np.isnan([row.tpr_at_1fpr, row.tpr_low, row.tpr_high]).all()
    assert f"100 negative rows, got {row.n_benign}" in row.note


def test_rows_without_a_state_are_left_out_of_their_cell_alone():
    states, labels = planted(60, 4, 1.0, n_layers=2)
    holes = states.copy()
    holes[:, :7] = np.nan
    holes[1, 7:10] = np.inf
    result = separability_table(
        Arrays(prompt=states, decision=holes), labels, alone(60), {"decision": ["a b"] * 60}, **FAST
    )
    n = result.table[result.table.method != "diff_of_means"].set_index(["position", "layer"]).n
    assert n.to_dict() == {
        ("prompt", 0): 60,
        ("prompt", 1): 60,
        ("decision", 0): 53,
        ("decision", 1): 50,
        ("decision", -1): 53,
    }
    assert not result.left_out
    assert len(result.coordinates) == 60 + 60 + 53 + 50


def test_a_position_that_no_trace_has_and_a_layer_without_states_are_left_out_with_a_reason():
    states, labels = planted(60, 4, 1.0, n_layers=2)
    absent, broken = np.full_like(states, np.nan), states.copy()
    broken[1, 3:] = np.nan
    result = separability_table(Arrays(prompt=broken, understanding=absent), labels, alone(60), {}, **FAST)
    assert set(zip(result.table.position, result.table.layer, strict=True)) == {("prompt", 0)}
    said = [str(reason) for reason in result.left_out]
    assert said[0].startswith("separability at prompt, layer 1 left out: ")
    assert said[1] == "separability at understanding left out: no labelled rows (0 harmful, 0 benign)"


@pytest.mark.parametrize(
    ("labels", "groups", "why"),
    [
        (["harmful"] * 30, alone(30), "separability left out: one class only (30 harmful, 0 benign)"),
        ([None] * 30, alone(30), "separability left out: no labelled rows (0 harmful, 0 benign)"),
        (
            ["harmful", "benign"] * 15,
            [str(row % 2 * 9 + row // 10) for row in range(30)],
            "separability left out: too few groups: 3 harmful groups, at least 5 needed",
        ),
    ],
)
def test_what_cannot_be_probed_is_left_out_as_a_whole(labels, groups, why):
    states, _ = planted(30, 4, 1.0)
    result = separability_table(Arrays(prompt=states), labels, groups, {}, **FAST)
    assert [str(reason) for reason in result.left_out] == [why]
    assert (len(result.table), tuple(result.table.columns)) == (0, COLUMNS)
    assert (len(result.coordinates), tuple(result.coordinates.columns)) == (0, COORDINATE_COLUMNS)


def test_rows_that_no_split_can_serve_are_nan_with_a_note():
    positive = np.array([1.0, 0.0] * 4 + [1.0])
    plan = make_plan(np.arange(9), positive, ["one"] * 8 + ["two"], seed=0, n_permutations=5)
    states = np.random.default_rng(0).normal(size=(9, 4))
    cells, coordinates = measure_states(states, plan, {"position": "prompt"})
    for cell in [*cells, describe({"estimator": "logistic"}, score_texts(["a a"] * 9, plan), plan)]:
        kinds = ("auroc", "tpr", "p_value", "brier")
        numbers = {
            name: value for name, value in cell.row.items() if name == "ece" or any(kind in name for kind in kinds)
        }
        assert len(numbers) == 17
        assert np.isnan(list(numbers.values())).all()
        assert np.isnan(cell.row["fisher_ratio"])
        assert cell.row["note"] == "no split gives every fold both classes"
    assert np.isnan(coordinates["lda"]).all()
    assert np.isfinite(coordinates["pc1"]).all(), "components need no labels"


def test_the_words_baseline_stands_beside_the_states_on_the_same_folds():
    rng = np.random.default_rng(0)
    positive = rng.random(80) < 0.5
    states = rng.normal(size=(1, 80, 6))
    telling = [f"how do i {'kill' if yes else 'bake'} this word{row % 3}" for row, yes in enumerate(positive)]
    texts = {"prompt": telling, "decision": ["the same words"] * 80}
    result = separability_table(Arrays(prompt=states, decision=states), labels_of(positive), alone(80), texts, **FAST)
    row = row_of(result, "text_tfidf", position="prompt")
    assert (row.auroc, row.layer, row.site, row.p_value) == (1.0, -1, "text", pytest.approx(1 / 41))
    assert np.isnan(row.silhouette)
    assert (row.n_folds, row.n_groups) == (5, 80)
    silent = row_of(result, "text_tfidf", position="decision")
    assert (silent.auroc, silent.p_value) == (0.5, 1.0)


def test_outcomes_are_probed_before_the_key_sentence_only():
    states, labels = planted(90, 4, 2.0)
    outcomes = [{"harmful": "unsafe", "benign": "safe"}[label] for label in labels]
    outcomes[:10] = ["neutral"] * 5 + [None] * 5
    arrays = Arrays(decision=states, key_sentence=states)
    done = []
    result = separability_table(
        arrays, outcomes, alone(90), {}, label_by="aha", progress=lambda *step: done.append(step), **FAST
    )
    assert set(result.table.position) == {"decision"}
    assert [str(reason) for reason in result.left_out] == [
        "separability at key_sentence left out: "
        "its words define the outcome; only positions before it can be probed for it"
    ]
    assert row_of(result).n == 80
    assert row_of(result).n_harmful == outcomes.count("unsafe")
    assert row_of(result).auroc > 0.8, "unsafe is the positive class"
    assert done == [(1, 1)]
    by_label = separability_table(arrays, labels, alone(90), {}, **FAST)
    marked = by_label.table.drop_duplicates("position").set_index("position").after_the_fact
    assert marked.to_dict() == {"decision": False, "key_sentence": True}


def test_the_best_of_many_layers_pays_for_the_choice():
    states, labels = planted(60, 10, 0.0, n_layers=12)
    table = separability_table(Arrays(prompt=states), labels, alone(60), {}, **FAST).table
    assert (table.p_value_over_layers >= table.p_value).all()
    logistic = table[table.method == "logistic"]
    assert logistic.p_value.min() < 0.3
    assert logistic.p_value_over_layers.min() > 2 * logistic.p_value.min()


def test_coordinates_are_out_of_fold_and_named():
    states, labels = planted(200, 300, 0.0)
    result = separability_table(Arrays(prompt=states), labels, alone(200), {}, **FAST)
    frame = result.coordinates
    assert tuple(frame.columns) == COORDINATE_COLUMNS
    assert frame.trace_id.tolist() == [f"t{row}" for row in range(200)]
    assert frame.label.tolist() == labels
    assert abs(roc_auc_score([label == "harmful" for label in labels], frame.lda) - 0.5) < 0.15, (
        "in-fold LDA would give 1"
    )
    assert frame.lda.std(ddof=0) == pytest.approx(1, abs=1e-6)
    assert frame.pc1.std() > frame.pc2.std() > 0


def test_beyond_max_rows_whole_groups_are_drawn_and_said():
    states, labels = planted(400, 4, 1.0)
    result = separability_table(Arrays(prompt=states), labels, alone(400), {}, max_rows=150, **FAST)
    assert row_of(result).n == 150
    assert "150 of 400 rows" in row_of(result).note
    assert len(result.coordinates) == 150


def test_runs_repeat_to_the_bit_and_the_seed_decides():
    states, labels = planted(60, 90, 0.5, n_layers=2)
    run = [
        separability_table(Arrays(prompt=states), labels, alone(60), {"prompt": labels}, seed=seed, **FAST)
        for seed in (0, 0, 1)
    ]
    pd.testing.assert_frame_equal(run[0].table, run[1].table, check_exact=True)
    alone_at_it = separability_table(Arrays(prompt=states), labels, alone(60), {"prompt": labels}, n_workers=1, **FAST)
    pd.testing.assert_frame_equal(run[0].table, alone_at_it.table, check_exact=True)
    pd.testing.assert_frame_equal(run[0].coordinates, run[1].coordinates, check_exact=True)
    assert not run[0].table.auroc.equals(run[2].table.auroc)
    assert tuple(run[0].table.columns) == COLUMNS
    assert set(run[2].table.seed) == {1}


def test_layers_and_positions_are_chosen_and_checked():
    states, labels = planted(40, 4, 1.0, n_layers=3)
    arrays = Arrays(prompt=states, decision=states)
    table = separability_table(arrays, labels, alone(40), {}, layers=[2], positions=["decision"], **FAST).table
    assert set(zip(table.layer, table.position, strict=True)) == {(2, "decision")}
    for options, said in (
        ({"layers": [7]}, r"layers: got 7, expected some of \[0, 1, 2\]"),
        ({"positions": ["end"]}, "positions: got 'end', expected some of prompt, decision"),
        ({"n_permutations": -1}, "n_permutations: got -1, expected 0 or more"),
    ):
        with pytest.raises(InputError, match=said):
            separability_table(arrays, labels, alone(40), {}, **options)
    with pytest.raises(InputError, match="groups: got 3, expected 40"):
        separability_table(arrays, labels, alone(3), {})
    with pytest.raises(InputError, match="texts of prompt: got 0"):
        separability_table(arrays, labels, alone(40), {"prompt": []})
    with pytest.raises(InputError, match="label_by mood: got 3 values"):
        separability_table(arrays, ["a", "b", "c", None] * 10, alone(40), {}, label_by="mood")


def test_any_two_values_are_classes():
    states, labels = planted(60, 4, 1.0)
    usual = separability_table(Arrays(prompt=states), labels, alone(60), {}, **FAST).table
    named = [{"harmful": "wrong", "benign": "correct"}[label] for label in labels]
    result = separability_table(Arrays(prompt=states), named, alone(60), {}, label_by="meta.grade", **FAST)
    assert set(result.coordinates.label) == {"wrong", "correct"}
    assert set(result.table.positive_class) == {"wrong"}
    assert set(result.table.negative_class) == {"correct"}
    assert set(usual.positive_class + usual.negative_class) == {"harmfulbenign"}
    names = ["label_by", "positive_class", "negative_class"]
    pd.testing.assert_frame_equal(result.table.drop(columns=names), usual.drop(columns=names))
    one = separability_table(Arrays(prompt=states), ["wrong"] * 60, alone(60), {}, label_by="meta.grade", **FAST)
    assert one.table.empty
    assert [str(reason) for reason in one.left_out] == ["separability left out: one class only (60 wrong)"]


@pytest.mark.skipif(not SHARED.exists(), reason="XSTest is not here")
def test_xstest_twins_stay_together_and_their_words_tell_much():
    rows = [json.loads(line) for line in (SHARED / "xstest_prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    states = np.random.default_rng(0).normal(size=(1, len(rows), 16))
    labels, groups = [row["label"] for row in rows], [row["group"] for row in rows]
    texts = {"prompt": [row["prompt"] for row in rows]}
    result = separability_table(Arrays(prompt=states), labels, groups, texts, **FAST)
    words, noise = row_of(result, "text_tfidf"), row_of(result)
    assert (words.n, words.n_groups, words.n_folds) == (450, 200, 5)
    assert 0.8 < words.auroc < 0.92
    assert "AUROC 0.575" in words.note, "two topics come in threes with one harmful prompt each"
    assert words.null_auroc_mean < 0.575
    assert noise.auroc < 0.6
    assert noise.p_value > 0.01


def test_a_model_is_measured_from_traces_to_table():
    from tiny_models import tiny_model, traces

    from safekey_interp import measure_separability

    table = measure_separability(
        tiny_model("llama"), traces(20), layers=[0, 1], positions=["prompt", "decision", "key_sentence"]
    )
    assert tuple(table.columns) == COLUMNS
    assert set(table.position) == {"prompt", "decision", "key_sentence"}
    assert set(table.layer) == {-1, 0, 1}
    assert (table.n == 20).all()
    assert table.auroc.between(0, 1).all()
    assert table.attrs["left_out"] == []
    alike = [trace.with_(label="harmful") for trace in traces(6)]
    table = measure_separability(tiny_model("llama"), alike, positions=["prompt"])
    assert table.empty
    assert table.attrs["left_out"] == ["separability left out: one class only (6 harmful, 0 benign)"]


@pytest.mark.parametrize("seed", range(4))
def test_the_logistic_probe_is_that_of_scikit_learn_to_the_bit(seed):
    from sklearn.linear_model import LogisticRegression

    from safekey_interp.measures.linear_probes import fit_logistic, logistic_penalty, row_space

    rng = np.random.default_rng(seed)
    rows, positive = rng.normal(size=(60, 20 + 40 * seed)), rng.random(60) < 0.4
    rows += positive[:, None] * rng.normal(size=rows.shape[1])
    space = row_space(rows - rows.mean(0), rows[:5])
    weights, bias = fit_logistic(space.train, positive, space.mean_square)
    theirs = LogisticRegression(C=logistic_penalty(space.mean_square), tol=1e-6, max_iter=2_000)
    theirs.fit(space.train, positive)
    np.testing.assert_array_equal(weights, theirs.coef_[0])
    assert bias == theirs.intercept_[0]


def test_folds_stand_beside_the_scores_that_they_gave():
    rng = np.random.default_rng(0)
    result = separability_table(
        Arrays(prompt=rng.normal(size=(1, 40, 6))), labels_of(np.arange(40) % 2 == 0), alone(40), {}, **FAST
    )
    table = result.coordinates
    assert table["fold"].dtype == "Int64"
    assert set(table["fold"]) == set(range(5))
    for _, part in table.groupby("fold"):
        assert abs(part["lda"].mean()) < 1e-6
