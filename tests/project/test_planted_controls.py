"""Runs that measure the controls: shuffled labels mean nothing, planted effects are there, a killed script goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.validation import planted_controls as controls
from analysis.validation import planted_experiments as experiments
from analysis.validation import planted_traces as made
from safekey_interp.data.conditions import FEW
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.donors import RESAMPLING
from safekey_interp.measures.intervals import ratio_of_means
from safekey_interp.reporting.findings.finding import Estimate


def test_labels_are_drawn_anew_in_each_run_over_whole_groups() -> None:
    true = {trace.group: trace.label for trace in made.shipped()}
    labels = []
    for run in range(30):
        traces = made.shuffled(run, sources=("plain", "wrapped"))
        of_group: dict[str, set[Any]] = {}
        for trace in traces:
            of_group.setdefault(trace.group, set()).add(trace.label)
        assert all(len(kinds) == 1 for kinds in of_group.values())
        given = [next(iter(kinds)) for kinds in of_group.values()]
        assert given.count("harmful") == given.count("benign") >= FEW
        labels.append(np.mean([label == true[group] for group, (label,) in of_group.items()]))
    assert len(set(labels)) > 1
    assert abs(np.mean(labels) - 0.5) < 0.08, "as often right as wrong"
    first, second = (made.shuffled(run) for run in (0, 1))
    assert {trace.trace_id for trace in first} != {trace.trace_id for trace in second}
    assert first == made.shuffled(0)


def test_what_copies_u_says_what_u_said() -> None:
    traces = made.copied(made.shuffled(0), 0)
    for trace in traces:
        said = trace.given["key_sentence"].text(trace.response)
        assert said == (made.BANK.safe if trace.label == "harmful" else made.BANK.go_ahead)[0]
        assert said.rstrip(".").split(maxsplit=1)[1] in trace.given["understanding"].text(trace.response)


@pytest.mark.parametrize("name", ["separability", "transfer", "trajectory", "doses"])
def test_a_planted_effect_is_found(name: str) -> None:
    found = [shown for run in range(2) for shown in experiments.EXPERIMENTS[name].run(run, True).values()]
    assert all(found)


@pytest.mark.slow
def test_a_planted_null_is_seldom_found() -> None:
    found = [shown for run in range(20) for shown in experiments.separability(run, False).values()]
    assert None not in found
    assert sum(map(bool, found)) <= 4, "more than 4 of 20 happen in .3 % of cases at a level of .05"


def test_a_script_that_was_killed_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = controls.measure(["separability"], 4, tmp_path / "whole")
    assert set(zip(whole["planted"], whole["number"], strict=True)) == {(False, n) for n in range(4)} | {(True, 0)}
    controls.measure(["separability"], 2, tmp_path / "cut")
    file = tmp_path / "cut" / "separability.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[0][:20]]))
    capsys.readouterr()
    again = controls.measure(["separability"], 4, tmp_path / "cut")
    assert "2 of 5 runs to make" in capsys.readouterr().out
    order = ["planted", "number"]
    pd.testing.assert_frame_equal(
        whole.sort_values(order, ignore_index=True), again.sort_values(order, ignore_index=True)
    )
    assert len([json.loads(line) for line in (tmp_path / "whole" / "separability.jsonl").open()]) == 5


def test_the_table_counts_what_is_shown() -> None:
    shown = [True] * 3 + [False] * 17
    rows = [
        {"name": "separability", "planted": planted, "number": number, "statement": "s", "shown": value}
        for planted, values in ((False, shown), (True, [True, None]))
        for number, value in enumerate(values)
    ]
    [row] = controls.tabulate(pd.DataFrame(rows)).to_dict("records")
    assert row["false"].startswith("0.150 [0.03, 0.38] (3 of 20)")
    assert row["found"].startswith("0.500")
    assert "1 without interval" in row["found"]
    assert row["bar"] == "missed"


def test_the_interval_of_the_largest_of_many_places_leaves_the_truth_out_as_seldom_as_that_of_one() -> None:
    rng = np.random.default_rng(3)
    groups = np.arange(12)
    outside: dict[bool, list[bool]] = {False: [], True: []}
    for _ in range(600):
        values = rng.normal(size=(12, 6))
        figure = ratio_of_means(values, np.ones_like(values), groups)
        at = int(np.abs(figure.value).argmax())
        one = Estimate(float(figure.value[at]), float(figure.low[at]), float(figure.high[at]))
        for is_adjusted in (False, True):
            told = one.of_largest(6, 12) if is_adjusted else one
            outside[is_adjusted].append(bool(told.lies(Estimate(0.0, np.nan, np.nan))))
    assert np.mean(outside[False]) > 0.15, "one place's interval is no interval of the largest"
    assert np.mean(outside[True]) <= 0.07


def test_relabelled_donors_are_those_that_the_knockout_chooses() -> None:
    few = made.pool(10)
    assert {trace.label for trace in few} == {"harmful"}, "so that every other trace is of the same label"
    traces = made.shuffled(3, of=few, per_class=4)
    spans = ("understanding",)
    options: dict[str, Any] = {"bank": made.BANK, "n_donors": experiments.N_DONORS, "seed": 3, "finder": "given"}
    own = knockout(made.toy(), traces, to_span=spans, controls=RESAMPLING, **options)
    again = experiments.relabelled(traces, few, "together", spans, 3)
    names = ["trace_id", "control", "draw", "donor", "metric"]
    both = own.merge(again, on=names)
    assert len(both) == len(own) == len(again)
    np.testing.assert_allclose(both["effect_x"], both["effect_y"], atol=1e-4)
