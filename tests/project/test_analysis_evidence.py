"""The evidence behind the verdicts, over training runs and of margins: each finds what is planted, and no more."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.paper import questions, runs_evidence
from analysis.paper.default_prompts import default_prompts
from analysis.paper.models import Bench, of_many_groups
from analysis.paper.representation_claims import margin_change, margins
from analysis.real_model.real_study_wrappers import wrappers_of
from safekey_interp.data.trace import Trace
from safekey_interp.experiments.compare_probes import Scores
from safekey_interp.progress import Progress


def shipped(folder, change: float, *, seed: int = 0, spread: float = 0.02):
    """Tables of eight seeds on two bases, in which both losses multiply the ratio of every layer by e to the change."""
    rng = np.random.default_rng(seed)
    rows = []
    for base in (1, 2):
        for run in range(8):
            own = rng.normal(0, 0.1)
            for variant in ("SFT", "both"):
                apart = own + rng.normal(0, spread) + (change if variant == "both" else 0)
                for layer, mass in enumerate((0.4, 0.2, 0.3)):
                    about = {"variant": variant, "base": base, "seed": run, "layer": layer, "swapped": False}
                    rows.append(about | {"what": "understanding, mass", "value": mass})
                    rows.append(about | {"what": "understanding, over_distance", "value": 0.8 * np.exp(apart)})
                    rows.append(about | {"what": "decision, plain to wrapped", "value": 0.9 + apart / 10})
    columns = ["variant", "base", "seed", "verb", "noun", "response"]
    pd.DataFrame([["SFT", 1, 0, "grow", "flug", ""]], columns=columns).to_parquet(folder / "part1-answers.parquet")
    pd.DataFrame(rows).to_parquet(folder / "part1-mechanism.parquet")
    return folder


def test_a_change_of_every_run_is_found_with_its_size(tmp_path):
    found = runs_evidence.mechanism("3b", shipped(tmp_path, 0.2))
    assert found.verdict == "supports"
    assert found.value == pytest.approx(0.2, abs=0.02)
    assert found.low < found.value < found.high
    assert "above 0 in 16 of 16 pairs" in found.note
    assert found.n_groups == 16
    assert runs_evidence.mechanism("4a", tmp_path).value == pytest.approx(0.02, abs=0.002)
    assert runs_evidence.mechanism("3b", shipped(tmp_path, -0.2)).verdict == "contradicts"


def test_runs_that_do_not_differ_have_no_effect_of_interest(tmp_path):
    verdicts = [runs_evidence.mechanism("3b", shipped(tmp_path, 0.0, seed=seed)).verdict for seed in range(20)]
    assert set(verdicts) <= {"no effect of interest", "cannot tell"}
    assert verdicts.count("no effect of interest") >= 18


def test_without_tables_the_reason_is_said(tmp_path):
    assert "no table" in runs_evidence.mechanism("3b", tmp_path).note
    assert {one.verdict for one in runs_evidence.ablations(tmp_path)} == {"cannot tell"}


def test_an_answer_is_made_anew_where_the_runs_that_it_reads_have_changed(tmp_path, monkeypatch):
    (tmp_path / "replication").mkdir()
    file = tmp_path / "replication" / "results.parquet"
    file.write_bytes(b"13 bases")
    monkeypatch.setattr(questions, "ANALYSIS", tmp_path)
    asked = {question.name: question for question in questions.QUESTIONS}
    before = {name: questions._identity(question, {"models": []}) for name, question in asked.items()}
    file.write_bytes(b"24 bases")
    changed = {
        name for name, question in asked.items() if questions._identity(question, {"models": []}) != before[name]
    }
    assert changed == {"ablations"}
    before = questions._identity(asked["ablations"], {})
    (tmp_path / "replication" / "toy_study_chosen.json").write_text("{}")
    assert questions._identity(asked["ablations"], {}) != before


def test_a_table_that_was_made_is_not_made_again(tmp_path):
    bench = Bench(tmp_path, ["m"], None)
    about = {"model": {"weights_sha256": "w"}, "data": {"traces_sha256": "t"}}
    bench.__dict__["probes"] = {"m": SimpleNamespace(manifest=about)}
    made = pd.DataFrame({"layer": [0, 1], "effect": [0.5, np.nan]})
    heard = []
    bench.progress = Heard(heard)

    def make(done):
        done(5)
        return made

    about = {"stage": "knockout", "total": 5}
    pd.testing.assert_frame_equal(bench.kept("m", ["aha", 3], make, **about), made)
    assert heard == [("m: knockout", 5), 5]
    again = bench.kept("m", ["aha", 3], lambda done: pytest.fail("made again"), **about)
    pd.testing.assert_frame_equal(again, made)
    with pytest.raises(pytest.fail.Exception, match="made again"):
        bench.kept("m", ["aha", 4], lambda done: pytest.fail("made again"), **about)


class Heard(Progress):
    def __init__(self, heard):
        super().__init__(is_hidden=True)
        self.heard = heard

    def stage(self, name, total, passes=None):
        self.heard.append((name, total))

    def advance(self, n):
        self.heard.append(n)


def test_traces_of_an_experiment_are_of_as_many_groups_as_there_are():
    traces = [
        Trace(trace_id=f"{group} {form}", group=f"{group}", source=form, prompt="p", response="r", label="harmful")
        for group in range(6)
        for form in ("plain", "wrapped")
    ]
    few, all_groups, more = (of_many_groups(traces, n) for n in (3, 6, 8))
    assert [len({trace.group for trace in some}) for some in (few, all_groups, more)] == [3, 6, 6]
    assert [len(some) for some in (few, all_groups, more)] == [3, 6, 8]
    assert {trace.source for trace in all_groups} == {"plain", "wrapped"}, "not each group's first form"
    assert sorted(of_many_groups(traces, 99), key=str) == sorted(traces, key=str)


def test_the_default_prompts_are_pairs_in_plain_and_wrapped_forms():
    asked = default_prompts()
    assert {trace.label for trace in asked} == {"harmful", "benign"}
    assert {trace.source for trace in asked} == {"plain", "wrapped"}
    assert not any(trace.response for trace in asked)
    assert len({trace.trace_id for trace in asked}) == len(asked)
    for trace in asked:
        [plain] = [one for one in asked if one.trace_id == trace.trace_id.split(" ")[0]]
        assert trace.group == plain.group
        form = next((form for form in wrappers_of("test") if form.name == trace.meta["wrapper"]), None)
        assert trace.prompt == (form.around(plain.prompt) if form else plain.prompt)
        assert (trace.source == "wrapped") == (form is not None)


def scores(shift: float, n: int = 400, layers: int = 3, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 2 == 0
    values = rng.normal(0, 1, (n, layers)) + shift * positive[:, None]
    ids = [f"t{number}" for number in range(n)]
    return Scores(ids, [f"g{number // 4}" for number in range(n)], positive, np.zeros(n, int), values)


def test_the_margin_is_the_distance_in_standard_deviations_whatever_the_scale():
    for shift in (0.0, 1.0, 3.0):
        one = scores(shift)
        assert margins(one, np.ones((1, 400)))[0] == pytest.approx(shift, abs=0.25)
        assert margins(one._replace(values=one.values * 7 + 2), np.ones((1, 400)))[0] == pytest.approx(
            margins(one, np.ones((1, 400)))[0]
        )


def test_a_margin_that_grows_is_found_also_where_the_auroc_has_no_room():
    one, two, interval = margin_change(scores(8.0), scores(10.0, seed=1))
    assert two - one == pytest.approx(2, abs=0.5)
    assert interval.low > 0.5
    assert interval.high < 3.5


def test_the_interval_of_a_margin_holds_no_change_in_about_95_of_100():
    holds = [
        interval.low <= 0 <= interval.high
        for seed in range(200)
        for _, _, interval in [margin_change(scores(2.0, 80, 2, seed), scores(2.0, 80, 2, seed + 1000))]
    ]
    assert 0.9 <= np.mean(holds) <= 0.99


def test_a_part_without_a_class_has_no_margin_and_few_groups_no_interval():
    one = scores(1.0, n=20)
    _, parts = margins(one, np.vstack([one.positive, np.ones(20)]).astype(float))
    assert np.isnan(parts[0])
    assert np.isfinite(parts[1])
    assert np.isnan(margin_change(scores(1.0, 12), scores(1.0, 12))[2].low)
