"""The rule of the verdicts, which evidence decides, and what is written of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measured_claims import measured
from scipy import stats

from analysis.paper import claims_page
from analysis.paper.claims import BY_ID, CLAIMS, FILE, read_claims
from analysis.paper.questions import QUESTIONS
from analysis.paper.shipped_claims import kind_of, ship, shipped
from analysis.paper.verdicts import as_table, holm, p_of_interval, unmeasured, verdict_of
from safekey_interp.errors import InputError

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "low", "high", "expects", "verdict"),
    [
        (0.2, 0.1, 0.3, 1, "supports"),
        (-0.2, -0.3, -0.1, 1, "contradicts"),
        (0.2, 0.1, 0.3, -1, "contradicts"),
        (-0.2, -0.3, -0.1, -1, "supports"),
        (0.1, -0.1, 0.3, 1, "cannot tell"),
        (0.1, 0.0, 0.2, 1, "cannot tell"),
        (0.01, -0.04, 0.04, 1, "no effect of interest"),
        (0.02, 0.01, 0.03, 1, "no effect of interest"),
        (0.04, 0.01, 0.07, 1, "cannot tell"),
        (0.04, -0.01, 0.07, 1, "cannot tell"),
        (0.2, NAN, NAN, 1, "cannot tell"),
    ],
)
def test_the_rule_is_the_interval_the_smallest_effect_and_the_claimed_direction(value, low, high, expects, verdict):
    assert verdict_of(value, low, high, smallest=0.05, expects=expects) == verdict


def test_no_interval_has_two_opposite_verdicts_and_turning_the_sign_turns_the_verdict():
    turned = {"supports": "contradicts", "contradicts": "supports"}
    grid = np.linspace(-0.3, 0.3, 13)
    for low, high in itertools.combinations(grid, 2):
        for value in np.linspace(low, high, 5):
            one = verdict_of(value, low, high, smallest=0.05, expects=1)
            assert verdict_of(-value, -high, -low, smallest=0.05, expects=1) == turned.get(one, one)
            assert verdict_of(value, low, high, smallest=0.05, expects=-1) == turned.get(one, one)


def test_p_from_an_interval_is_that_of_the_t_test_which_made_it():
    values = np.random.default_rng(0).normal(0.3, 1, 24)
    found: Any = stats.ttest_1samp(values, 0)
    low, high = found.confidence_interval(0.95)
    assert p_of_interval(float(values.mean()), low, high, 24) == pytest.approx(found.pvalue)
    assert np.isnan(p_of_interval(0.2, NAN, NAN, 24))
    assert p_of_interval(0.2, 0.0, 0.4, 24) == pytest.approx(0.05)


def test_holm_keeps_the_order_and_is_bonferroni_at_its_smallest():
    p = [0.01, 0.04, 0.03, NAN, 0.005]
    adjusted = holm(p)
    assert adjusted[4] == pytest.approx(0.02)
    assert adjusted[0] == pytest.approx(0.03)
    assert adjusted[2] == adjusted[1] == pytest.approx(0.06)
    assert np.isnan(adjusted[3])
    assert holm([0.03])[0] == 0.03
    assert holm([0.9, 0.9]).max() == 1


def test_holm_keeps_false_verdicts_of_a_model_below_five_per_cent():
    """A planted null: eight claims without any effect; how many models get at least one directional verdict?"""
    rng = np.random.default_rng(1)
    ids = [claim.id for claim in CLAIMS if claim.evidence[0].level == "95 %"][:8]
    false, corrected = 0, 0
    for _ in range(200):
        rows = []
        for claim in ids:
            scale = 4 * BY_ID[claim].evidence[0].smallest  # so wide that no interval is within the smallest effect
            values = rng.normal(0, scale, 10)
            found: Any = stats.ttest_1samp(values, 0)
            low, high = found.confidence_interval(0.95)
            rows.append(measured(claim, float(values.mean()), low, high, n_groups=10))
        table = as_table(rows)
        directional = ["supports", "contradicts"]
        false += bool(table["verdict"].isin(directional).any())
        corrected += bool(table["verdict_holm"].isin(directional).any())
    assert false / 200 > 0.15, "the null is no test of a correction"
    assert corrected / 200 <= 0.07


def test_the_strongest_evidence_that_was_measured_decides_and_the_weaker_is_called_so():
    strong = measured("6c", -0.17, -0.47, 0.02, "replication", toy=True)
    weak = measured("6c", -0.16, -0.23, -0.10, "one run", toy=True)
    table = as_table([weak, strong])
    assert list(table["role"]) == ["decides", "weaker"]
    assert list(table["verdict"]) == ["cannot tell", "supports"]
    [shown] = [one for one in claims_page.beside_theirs(table) if len(one.ours)]
    assert shown.verdicts == ["m: cannot tell (toy model)"]
    assert list(shown.ours["verdict"])[1].startswith("weaker evidence: supports")
    alone = as_table([weak, unmeasured("6c", "m", "no table", toy=True, evidence="replication")])
    assert dict(zip(alone["evidence"], alone["role"], strict=True)) == {
        "one run": "decides",
        "replication": "unmeasured",
    }


def test_a_claim_about_a_model_is_judged_for_each_model_by_what_it_has():
    table = as_table([
        unmeasured("1b", "one", "no safe K was ever sampled", toy=True),
        measured("1b", 0.0, -0.02, 0.02, "written K", model="one", toy=True),
        measured("1b", 0.4, 0.2, 0.6, model="two", toy=True),
        measured("1b", 0.9, 0.8, 1.0, "written K", model="two", toy=True),
    ])  # fmt: skip
    roles = dict(zip(zip(table["model"], table["evidence"], strict=True), table["role"], strict=True))
    assert roles == {
        ("one", "resampled K"): "unmeasured",
        ("one", "written K"): "decides",
        ("two", "resampled K"): "decides",
        ("two", "written K"): "weaker",
    }


def test_evidence_from_too_few_groups_leaves_the_verdict_to_the_next(tmp_path):
    strong = measured("1b", 0.4, NAN, NAN, n_groups=6)
    table = as_table([strong, measured("1b", 0.9, 0.8, 1.0, "written K")])
    assert list(table["role"]) == ["unmeasured", "decides"]
    claims_page.write_claims(tmp_path / "CLAIMS.md", table)
    assert "too few groups for an interval |" in (tmp_path / "CLAIMS.md").read_text()
    assert list(as_table([strong])["role"]) == ["decides"]


def test_the_toys_evidence_does_not_judge_other_models():
    table = as_table([
        measured("3b", 0.2, 0.1, 0.3, "runs", toy=True),
        measured("3b", -0.2, -0.3, -0.1, "pair", model="real"),
    ])  # fmt: skip
    assert list(table["role"]) == ["decides", "decides"]
    assert list(table["verdict"]) == ["supports", "contradicts"]


def test_another_reading_never_decides():
    table = as_table([measured("3a", 0.2, 0.1, 0.3, "released script"), measured("3a", -0.2, -0.3, -0.1, "mass")])
    assert dict(zip(table["evidence"], table["role"], strict=True)) == {"mass": "decides", "released script": "beside"}
    assert np.isnan(table.set_index("evidence").loc["released script", "p_holm"])


def test_an_interval_that_its_design_corrects_enters_no_family():
    table = as_table([measured("6a", -0.2, -0.3, -0.1, "replication", p=0.001), measured("1a", 0.2, 0.1, 0.3)])
    by_claim = table.set_index("claim")
    assert by_claim.loc["6a", "verdict_holm"] == "supports"
    assert np.isnan(by_claim.loc["6a", "p_holm"])
    assert by_claim.loc["1a", "p_holm"] == by_claim.loc["1a", "p"]


def test_what_could_not_be_measured_is_no_verdict_and_says_why(tmp_path):
    table = as_table([unmeasured("2b", "m", "too few", toy=True)])
    assert table.loc[0, "verdict"] == "cannot tell"
    claims_page.write_claims(tmp_path / "CLAIMS.md", table)
    text = (tmp_path / "CLAIMS.md").read_text()
    assert "| m | not measured |  | 0 (0 groups) | too few | *cannot tell* (toy model) |" in text


def test_built_in_is_said_of_the_toy_alone():
    table = as_table([measured("1a", 0.9, 0.8, 1.0, toy=True), measured("1a", 0.2, 0.1, 0.3, model="real")])
    [shown] = [one for one in claims_page.beside_theirs(table) if len(one.ours)]
    assert list(shown.ours["verdict"]) == ["supports, built in (toy model)", "supports"]


def test_every_claim_has_a_place_a_question_and_a_command(tmp_path):
    claims_page.write_claims(tmp_path / "CLAIMS.md", as_table([measured("1a", 0.2, 0.1, 0.3)]))
    text = (tmp_path / "CLAIMS.md").read_text()
    for claim in CLAIMS:
        assert f"## {claim.id}. " in text
        assert f"--only {claim.id[0]} " in text
    assert {int(claim.id[0]) for claim in CLAIMS} == {one.number for one in QUESTIONS}
    assert text.count("Not run.") == len(CLAIMS) - 1
    assert "(our claim, not the paper's)" in text


def test_claims_rest_on_both_kinds_of_models_each_written_by_its_own_command(tmp_path: Path) -> None:
    (tmp_path / "paper").mkdir()
    runs = measured("6a", -0.1, -0.2, -0.06, "replication", model="organism, training runs", toy=True)
    toys = [
        runs,
        measured("3a", 0.2, 0.1, 0.3, model="organism:sft", toy=True),
        unmeasured("2b", "organism:sft", "", toy=True),
    ]
    trio = ("smollm2", "smollm2:sft")
    real = [runs, measured("3a", -0.2, -0.3, -0.1, model="smollm2:sft", control_value="NA")]
    for _ in range(2):  # each is written again
        ship(as_table(toys), "organism", tmp_path)
        ship(as_table(real, trio), "smollm2", tmp_path)
        found = shipped(tmp_path)
        assert list(zip(found["claim"], found["model"], strict=True)) == [
            ("2b", "organism:sft"),
            ("3a", "organism:sft"),
            ("3a", "smollm2:sft"),
            ("6a", "organism, training runs"),
        ]
    pd.testing.assert_frame_equal(found.iloc[[1]], as_table(toys).iloc[[1]].set_axis([1]), check_exact=False, rtol=1e-5)
    text = (tmp_path / "CLAIMS.md").read_text()
    assert "organism:sft: *supports* (toy model)<br>smollm2:sft: *contradicts* |" in text
    assert (
        "`python -m analysis --only 3 --out figures`, `python -m analysis --models smollm2 smollm2:sft --only 3" in text
    )
    assert "| NA |" in text
    ship(as_table(toys[:1]), "organism", tmp_path)
    assert list(shipped(tmp_path)["claim"]) == ["3a", "6a"]
    assert kind_of(["smollm2", "smollm2:safekey"]) == "smollm2"
    with pytest.raises(InputError, match="of one kind"):
        kind_of(["organism:sft", "smollm2"])


def test_claims_that_the_toy_cannot_but_show_are_called_built_in():
    assert {claim.id for claim in CLAIMS if claim.built_in} == {"1a", "1b", "2a", "5a"}
    assert [claim.id for claim in CLAIMS if claim.ours] == ["7a"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("smallest: 0.1", "smallest: 0", "smallest effect above 0"),
        ("- id: 1b", "- id: 1a", "twice"),
        ("theirs:", "thiers:", "claim 1a"),
    ],
)
def test_a_mistake_in_the_file_of_claims_is_one_line(tmp_path, old, new, said):
    file = tmp_path / "claims.yaml"
    file.write_text(FILE.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        read_claims(file)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_terminal_says_has_the_size_of_each_verdict() -> None:
    table = as_table([measured("1a", 0.2, 0.1, 0.3, control_value="shuffled 0.01"), measured("1b", 0.01, -0.01, 0.02)])
    lines = claims_page.in_lines(table)
    assert [line.split()[0] for line in lines] == ["1a", "1b"]
    for line, row in zip(lines, table.to_dict("records"), strict=True):
        assert f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" in line
        assert f"smallest effect of interest {row['smallest']:g}" in line
        assert f"n = {row['n']}" in line
    assert "control shuffled 0.01" in lines[0]
    [line] = claims_page.in_lines(as_table([unmeasured("1a", "m", "nothing was run", toy=False)]))
    assert "not measured" in line
