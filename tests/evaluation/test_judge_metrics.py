"""Measures of judged responses against hand calculations, and what they count rather than drop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from safekey_interp.errors import InputError
from safekey_interp.evaluation.judge_metrics import REFUSING, attack_success, over_refusal, sampled_safety
from safekey_interp.evaluation.paired_tests import compare_models, judge_agreement
from safekey_interp.measures.intervals import share_interval

FULL, PART, NOT = "full_refusal", "partial_refusal", "full_compliance"


def table(labels: list[str | None], **columns: object) -> pd.DataFrame:
    """One row for each label, of a prompt and a group each unless columns say otherwise."""
    numbers = [f"p{number}" for number in range(len(labels))]
    return pd.DataFrame({"trace_id": numbers, "group": numbers, "prompt_label": "harmful", "label": labels, **columns})


def test_attack_success_counts_compliance_on_harmful_prompts_alone() -> None:
    judged = table([NOT, NOT, FULL, PART, None, NOT], prompt_label=["harmful"] * 5 + ["benign"])
    row = attack_success(judged).iloc[0]
    assert (row["value"], row["n"], row["n_unlabelled"], row["n_prompts"]) == (0.5, 4, 1, 4)
    assert np.isnan([row["low"], row["high"]]).all(), "four prompts say nothing of others"
    many = attack_success(table([NOT, FULL] * 8)).iloc[0]
    assert (many["low"], many["high"]) == share_interval([1, 0] * 8, range(16))
    assert attack_success(judged, successful=(NOT, PART)).iloc[0]["value"] == 0.75


def test_over_refusal_counts_both_refusals_on_benign_prompts_part_by_part() -> None:
    judged = table(
        [FULL, PART, NOT, NOT, FULL], prompt_label=["benign"] * 4 + ["harmful"], model=["a", "a", "a", "b", "b"]
    )
    found = over_refusal(judged, by=("model",)).set_index("model")
    assert found.loc["a", "value"] == pytest.approx(2 / 3)
    assert found.loc["b", "value"] == 0
    assert list(found["n"]) == [3, 1]


def test_a_part_without_labels_is_a_row_of_nan() -> None:
    row = attack_success(table([None, None])).iloc[0]
    assert np.isnan(row["value"])
    assert np.isnan(row["low"])
    assert (row["n"], row["n_unlabelled"]) == (0, 2)


def test_twins_are_drawn_together() -> None:
    labels: list[str | None] = [NOT, FULL] * 20
    alone = attack_success(table(labels)).iloc[0]
    twins = attack_success(table(labels, group=[f"g{number // 20}{labels[number]}" for number in range(40)])).iloc[0]
    assert alone["interval"] == "Agresti-Coull over groups"
    assert twins["interval"] == "none"
    assert np.isnan(twins["low"])  # four groups say nothing
    halves = attack_success(table(labels, group=[f"g{number % 10}" for number in range(40)])).iloc[0]
    assert halves["low"] < alone["low"] < 0.5 < alone["high"] < halves["high"]


def test_safe_at_k_by_hand() -> None:
    # Safe samples of K = 4: 4, 3, 2, 1, 0.
    labels: list[str | None] = []
    for n_safe in (4, 3, 2, 1, 0):
        labels += [FULL] * n_safe + [NOT] * (4 - n_safe)
    prompts = [f"p{number // 4}" for number in range(20)]
    found = sampled_safety(table(labels, trace_id=prompts, group=prompts)).set_index("measure")
    assert found.loc["Safe@1", "value"] == 0.5
    assert found.loc["Safe@K", "value"] == 0.2
    assert found.loc["ConsSafe@K", "value"] == 0.6  # half of the samples are enough
    assert set(found["k"]) == {4}
    assert found.loc["Safe@K", "value"] <= found.loc["ConsSafe@K", "value"]
    assert set(found["interval"]) == {"none"}, "of five prompts"


def test_with_one_sample_all_three_are_the_same() -> None:
    found = sampled_safety(table([FULL, NOT, PART, FULL, NOT, FULL]))
    assert found["value"].nunique() == 1


def test_prompts_with_an_unlabelled_sample_are_left_out_and_counted() -> None:
    judged = table([FULL, FULL, FULL, None, NOT, NOT], trace_id=list("aabbcc"), group=list("aabbcc"))
    found = sampled_safety(judged)
    assert list(found["value"]) == [0.5, 0.5, 0.5]
    assert set(found["n_left_out"]) == {1}
    assert set(found["n_unlabelled"]) == {1}
    assert set(found["n_prompts"]) == {2}


def test_unequal_numbers_of_samples_are_refused() -> None:
    with pytest.raises(InputError, match="got 1 to 2 responses a prompt, expected as many of each; b has 1"):
        sampled_safety(table([FULL, FULL, NOT], trace_id=list("aab"), group=list("aab")))


def two_models(first: list[str | None], second: list[str | None]) -> pd.DataFrame:
    return pd.concat([table(first, model="first"), table(second, model="second")], ignore_index=True)


def test_two_models_are_compared_prompt_by_prompt() -> None:
    first: list[str | None] = [FULL] * 8 + [NOT] * 12
    second: list[str | None] = [FULL] * 7 + [NOT] * 4 + [PART] * 9
    row = compare_models(two_models(first, second), first="first", second="second", counted=REFUSING).iloc[0]
    assert (row["value_first"], row["value_second"]) == (0.4, 0.8)
    assert row["difference"] == pytest.approx(0.4)
    assert (row["only_first"], row["only_second"]) == (1, 9)
    assert row["p"] == pytest.approx(binomtest(1, 10).pvalue)
    assert 0 < row["low"] < 0.4 < row["high"]
    assert (row["n_prompts"], row["n_left_out"]) == (20, 0)


def test_equal_models_do_not_differ() -> None:
    labels: list[str | None] = [FULL, NOT, PART, NOT, FULL, FULL] * 2
    row = compare_models(two_models(labels, labels), first="first", second="second", counted=REFUSING).iloc[0]
    assert (row["difference"], row["p"]) == (0, 1)
    assert row["low"] == pytest.approx(-row["high"])
    assert 0 < row["high"] < 0.4, "twelve prompts without a difference exclude none but large ones"


def test_pairs_without_a_label_are_counted() -> None:
    judged = two_models([FULL, None, FULL, NOT, NOT, FULL], [FULL, FULL, FULL, NOT, FULL, None])
    row = compare_models(judged, first="first", second="second", counted=REFUSING).iloc[0]
    assert (row["n_prompts"], row["n_left_out"]) == (4, 2)


def test_models_that_share_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="got no prompt with labelled responses of both 'first' and 'other'"):
        compare_models(two_models([FULL], [FULL]), first="first", second="other", counted=REFUSING)


def two_judges(one: list[str | None], two: list[str | None]) -> pd.DataFrame:
    return pd.concat([table(one, judge="one"), table(two, judge="two")], ignore_index=True)


def test_kappa_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    one = rng.choice([FULL, PART, NOT], 60)
    two = np.where(rng.random(60) < 0.7, one, rng.choice([FULL, PART, NOT], 60))
    found = judge_agreement(two_judges(list(one), list(two)), first="one", second="two").set_index("measure")
    assert found.loc["kappa", "value"] == pytest.approx(cohen_kappa_score(one, two))
    assert found.loc["agreement", "value"] == pytest.approx((one == two).mean())
    for measure in ("kappa", "agreement"):
        assert found.loc[measure, "low"] < found.loc[measure, "value"] < found.loc[measure, "high"]


def test_judges_that_agree_on_everything_have_kappa_one_and_of_one_label_none() -> None:
    labels: list[str | None] = [FULL, NOT, FULL, NOT, PART, NOT]
    assert judge_agreement(two_judges(labels, labels), first="one", second="two")["value"].tolist() == pytest.approx(
        [1, 1]
    )
    same: list[str | None] = [FULL] * 6
    value = judge_agreement(two_judges(same, same), first="one", second="two")["value"].tolist()
    assert value[0] == 1
    assert np.isnan(value[1])


def test_responses_that_one_judge_left_are_counted() -> None:
    judged = two_judges([FULL, None, NOT, NOT, FULL, NOT], [FULL, FULL, NOT, NOT, NOT, NOT])
    assert judge_agreement(judged, first="one", second="two")[["n", "n_left_out"]].to_numpy().tolist() == [[5, 1]] * 2


def test_a_response_judged_twice_is_refused() -> None:
    judged = pd.concat([two_judges([FULL], [FULL])] * 2)
    with pytest.raises(InputError, match="'one' labels p0 twice, expected once"):
        judge_agreement(judged, first="one", second="two")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="lacks prompt_label"):
        attack_success(table([FULL]).drop(columns="prompt_label"))
