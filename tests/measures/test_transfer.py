"""Laws of transfer: the same folds for every pair, no group on both sides, chance where there is nothing to carry."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_separability import Arrays, labels_of
from tiny_models import tiny_model, traces

from safekey_interp import measure_transfer
from safekey_interp.data.class_labels import HARM
from safekey_interp.data.conditions import Conditions
from safekey_interp.errors import InputError
from safekey_interp.measures.condition_pairs import Designer, pairs_of
from safekey_interp.measures.layer_scores import auroc_figures, ranked_of, score_states
from safekey_interp.measures.transfer import COLUMNS, transfer_table

FAST = {"n_permutations": 40}
SIZES = {"n_folds": 5, "n_permutations": 40, "max_rows": None}
BOTH = Conditions(by="source", names=("plain", "wrapped"))


class Design:
    """Requests of one label, each plain and wrapped, and states that hold a signal in one direction for each."""

    def __init__(self, n_groups=60, d=20, *, plain=2.0, wrapped=2.0, seed=0, n_layers=1):
        rng = np.random.default_rng(seed)
        harmful = rng.permutation(n_groups) < n_groups // 2
        self.groups = np.repeat(np.arange(n_groups), 2).astype(str).tolist()
        self.positive = np.repeat(harmful, 2)
        self.labels = labels_of(self.positive)
        self.condition = ["plain", "wrapped"] * n_groups
        self.states = rng.normal(size=(n_layers, 2 * n_groups, d))
        is_plain = np.array(self.condition) == "plain"
        self.states[:, :, 0] += np.where(is_plain, plain, wrapped) * self.positive

    def table(self, texts=None, **options):
        conditions = options.pop("conditions", BOTH)
        states = Arrays(decision=options.pop("states", self.states))
        return transfer_table(
            states, self.labels, self.groups, self.condition, texts or {}, conditions=conditions, **(FAST | options)
        )


def pair(table, fitted, tested, method="logistic"):
    rows = table[(table.fitted_on == fitted) & (table.tested_on == tested) & (table.method == method)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_what_one_condition_shares_with_another_carries_over():
    table = Design(n_groups=200).table().table
    assert tuple(table.columns) == COLUMNS
    for fitted in ("plain", "wrapped"):
        for tested in ("plain", "wrapped"):
            row = pair(table, fitted, tested)
            assert row.auroc == pytest.approx(0.9, abs=0.06)
            assert row.auroc_low <= row.auroc <= row.auroc_high
            assert row.p_value_over_layers == pytest.approx(1 / 41)
            assert (row.n_fitted, row.n_groups_fitted, row.n, row.n_groups) == (200, 200, 200, 200)
            assert (row.n_harmful, row.n_benign, row.n_folds, row.seed, row.by) == (100, 100, 5, 0, "source")


def test_a_direction_that_flips_is_below_one_half():
    table = Design(plain=2.5, wrapped=-2.5).table().table
    for condition, other in (("plain", "wrapped"), ("wrapped", "plain")):
        assert pair(table, condition, condition).auroc > 0.85
        flipped = pair(table, condition, other)
        assert flipped.auroc_high < 0.35
        assert flipped.p_value_over_layers == 1.0


def test_fitted_and_tested_on_one_condition_is_separability_on_the_same_folds():
    design = Design(n_groups=40, plain=1.0, wrapped=0.3)
    designer = Designer(
        design.positive.astype(float), design.groups, design.condition, names=BOTH.names, classes=HARM, seed=0,
        sizes=SIZES,
    )  # fmt: skip
    whole = designer.design(designer.eligible)
    table = design.table(max_rows=None).table
    for name in BOTH.names:
        part = whole.part[name]
        scored = score_states(design.states[0][part.rows], part)["logistic"]
        alone = auroc_figures(scored, ranked_of(scored, part))
        row = pair(table, name, name)
        assert {key: row[key] for key in alone} == pytest.approx(alone, abs=1e-12)


def test_groups_folds_and_shuffles_stay_whole_in_every_condition():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 2), (2, 0), (0, 1)] * 15
    groups = np.repeat(np.arange(60), [sum(size) for size in sizes])
    condition = [name for size in sizes for name in ["wrapped"] * size[1] + ["plain"] * size[0]]
    positive = (rng.permutation(60) < 30)[groups].astype(float)
    mixed = groups >= 50  # some groups hold both classes
    positive[mixed] = np.arange(mixed.sum()) % 2
    designer = Designer(
        positive, groups.astype(str).tolist(), condition, names=BOTH.names, classes=HARM, seed=0, sizes=SIZES
    )
    plan, rows_of, parts, reasons = designer.design(designer.eligible)
    assert plan is not None
    assert not reasons
    for group in range(60):
        assert len(set(plan.fold[groups == group])) == 1
    for name, rows in rows_of.items():
        assert (parts[name].rows == plan.rows[rows]).all()
        for fold in range(plan.n_folds):
            here = rows & (plan.fold == fold)
            assert 0 < plan.positive[here].sum() < here.sum(), "both classes of each condition in every fold"
            assert (plan.shuffled[here].sum(0) == plan.positive[here].sum()).all()
        for group in np.unique(groups[parts[name].rows]):
            assert len(set(parts[name].codes[groups[parts[name].rows] == group])) == 1, "rows of a group count together"


def test_states_that_only_know_their_group_carry_nothing_over():
    """Plain and wrapped forms of a request are copies of one row: a probe that saw one would know the other."""
    design = Design(n_groups=80, d=300)
    rng = np.random.default_rng(1)
    copies = np.repeat(rng.normal(size=(80, 300)), 2, axis=0) + 0.01 * rng.normal(size=(160, 300))
    honest = design.table(states=copies[None]).table
    design.groups = [str(row) for row in range(160)]
    leaky = design.table(states=copies[None]).table
    for fitted, tested in (("plain", "wrapped"), ("wrapped", "plain")):
        assert pair(leaky, fitted, tested).auroc > 0.9, "split by row, the other form gives the label away"
        assert abs(pair(honest, fitted, tested).auroc - 0.5) < 0.2
        assert pair(honest, fitted, tested).p_value > 0.05


@pytest.mark.slow
def test_labels_that_mean_nothing_give_one_half_and_honest_p_values():
    found, p_values, nulls = [], [], []
    for seed in range(40):
        table = Design(n_groups=40, d=60, plain=0.0, wrapped=0.0, seed=seed).table(seed=seed).table
        row = pair(table, "plain", "wrapped")
        found.append(row.auroc)
        p_values.append(row.p_value)
        nulls.append(row.null_auroc_mean)
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    assert np.mean(nulls) == pytest.approx(0.5, abs=0.01)
    assert np.mean(np.array(p_values) <= 0.1) <= 0.25
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.15)


def test_words_are_fitted_and_tested_in_the_same_way():
    design = Design(n_groups=40)
    telling = {True: "kill it", False: "bake it"}
    disguised = {True: "read the story of a", False: "read the story of b"}
    texts = [
        (telling if condition == "plain" else disguised)[bool(yes)]
        for condition, yes in zip(design.condition, design.positive, strict=True)
    ]
    table = design.table({"decision": texts}).table
    assert pair(table, "plain", "plain", "text_tfidf").auroc == 1.0
    assert pair(table, "plain", "wrapped", "text_tfidf").auroc == 0.5, "words that plain prompts never use"
    assert pair(table, "wrapped", "wrapped", "text_tfidf").auroc == 1.0
    assert set(table[table.method == "text_tfidf"].layer) == {-1}


def test_pairs_are_all_of_three_and_those_with_the_most_frequent_beyond():
    assert len(pairs_of("abc")) == 9
    assert pairs_of("abcd") == [
        ("a", "a"), ("a", "b"), ("a", "c"), ("a", "d"), ("b", "a"), ("b", "b"), ("c", "a"), ("c", "c"), ("d", "a"),
        ("d", "d"),
    ]  # fmt: skip


def test_a_condition_that_cannot_be_probed_is_named_once_and_the_others_go_on():
    design = Design(n_groups=60, n_layers=2)
    third = Conditions(by="source", names=("plain", "wrapped", "odd"))
    condition = np.array(design.condition)
    odd = np.flatnonzero(design.positive & (condition == "plain"))[:8]
    condition[odd] = "odd"
    design.condition = condition.tolist()
    result = design.table(conditions=third)
    assert [str(reason) for reason in result.left_out] == [
        "transfer of odd left out: one class only (8 harmful, 0 benign)"
    ]
    assert set(result.table.fitted_on) == {"plain", "wrapped"}


def test_fewer_than_two_conditions_leave_nothing_to_compare():
    design = Design()
    nothing = design.table(conditions=Conditions())
    assert nothing.table.empty
    assert not nothing.left_out
    alone = [name if name == "plain" else None for name in design.condition]
    design.condition = alone
    result = design.table()
    assert result.table.empty
    assert tuple(result.table.columns) == COLUMNS
    assert [reason.what for reason in result.left_out] == ["transfer of wrapped"]


def test_states_that_are_missing_are_left_out_of_their_cell_alone():
    design = Design(n_groups=60, n_layers=2)
    states = design.states.copy()
    states[1, np.array(design.condition) == "wrapped"] = np.nan
    result = design.table(states=states)
    assert set(result.table.layer) == {0}
    assert [str(reason) for reason in result.left_out] == [
        "transfer of wrapped at decision, layer 1 left out: no labelled rows (0 harmful, 0 benign)"
    ]


def test_runs_repeat_to_the_bit_whatever_the_number_of_workers():
    design = Design(n_groups=40, n_layers=3)
    one, two = (design.table({"decision": design.labels}, n_workers=n).table for n in (1, 4))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert not one.auroc.equals(design.table(seed=1).table.auroc)


def test_the_best_of_many_layers_pays_for_the_choice():
    table = Design(n_groups=40, plain=0.0, wrapped=0.0, n_layers=8).table().table
    assert (table.p_value_over_layers >= table.p_value).all()
    assert table.p_value_over_layers.min() > table.p_value.min()


def test_a_model_is_measured_from_traces_to_table():
    data = [
        trace.with_(trace_id=f"{name}-{trace.trace_id}", group=str(i), source=name, meta={"wrapper": name})
        for i, trace in enumerate(traces(12))
        for name in ("plain", "wrapped")
    ]
    table = measure_transfer(tiny_model("llama"), data, layers=[1], positions=["decision"])
    assert tuple(table.columns) == COLUMNS
    assert set(zip(table.fitted_on, table.tested_on, strict=True)) == set(pairs_of(BOTH.names))
    assert (table.n == 12).all()
    named = measure_transfer(tiny_model("llama"), data, by="wrapper", layers=[1], positions=["decision"])
    pd.testing.assert_frame_equal(table.drop(columns="by"), named.drop(columns="by"))
    nothing = measure_transfer(tiny_model("llama"), data, by="mood", layers=[1], positions=["decision"])
    assert nothing.empty
    assert nothing.attrs["left_out"] == [
        "conditions by mood left out: no trace has such a field, so nothing is told apart by it"
    ]
    with pytest.raises(
        InputError, match="label_by: no trace has the column 'x'; expected one of label, aha, source, wrapper"
    ):
        measure_transfer(tiny_model("llama"), data, label_by="x")
