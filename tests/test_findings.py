"""Sentences about tables: true of them, and no more than that."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from safekey_interp.claims import FEW, Estimate, estimate, share
from safekey_interp.findings import find
from safekey_interp.runs import Run
from safekey_interp.stats import wilson

MODEL = {"model": {"n_layers": 4}}


def write(folder: Path, manifest: dict[str, Any] = MODEL, **tables: pd.DataFrame) -> Run:
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    return Run(folder, manifest)


def traces(outcomes: list[str | None], **changes: Any) -> pd.DataFrame:
    n = len(outcomes)
    columns = {
        "trace_id": [f"t{i}" for i in range(n)],
        "group": [f"g{i}" for i in range(n)],
        "label": ["harmful"] * n,
        "key_sentence": [None if outcome is None else "Hmm." for outcome in outcomes],
        "aha": outcomes,
        "hint": [None if outcome is None else i % 2 == 0 for i, outcome in enumerate(outcomes)],
        "status": ["left out" if outcome is None else "measured" for outcome in outcomes],
        "left_out": ["no key sentence: why" if outcome is None else None for outcome in outcomes],
        "n_straddling": pd.array([0] * n, "Int64"),
    }
    return pd.DataFrame(columns | changes)


def attention(u: Estimate, x: Estimate, ratios: list[Estimate], n_groups: int = 20) -> pd.DataFrame:
    rows = []

    def add(span: str, layer: int, measure: str, value: Estimate, n: int = 20) -> None:
        place = {"subset": "all", "from_span": "key_sentence", "to_span": span, "layer": layer, "measure": measure}
        rows.append(place | value._asdict() | {"n": n, "n_groups": n_groups})

    for span, mass in (("understanding", u), ("prompt", x)):
        add(span, 3, "mass", mass)
        add(span, 3, "uniform_mass", Estimate(0.25, 0.2, 0.3))
        for layer, ratio in enumerate(ratios):
            add(span, layer, "lift_over_matched", ratio)
    return pd.DataFrame(rows)


def separability(auroc: float, p: float, words: float | None = 0.6, n_groups: int = 40, **changes: Any) -> pd.DataFrame:
    def row(position: str, layer: int, method: str, value: float) -> dict[str, Any]:
        return {
            "position": position,
            "after_the_fact": position == "key_sentence",
            "layer": layer,
            "site": "text" if layer < 0 else "ln_final" if layer == 4 else "resid_post",
            "method": method,
            "auroc": value,
            "auroc_low": value - 0.05,
            "auroc_high": value + 0.05,
            "null_auroc_low": 0.4,
            "null_auroc_high": 0.6,
            "p_value_over_layers": p,
            "n": 40,
            "n_groups": n_groups,
            "label_by": "label",
        } | changes

    rows = []
    for position in ("prompt", "decision", "key_sentence"):
        rows += [row(position, layer, "logistic", auroc - 0.01 * layer) for layer in range(5)]
        rows += [] if words is None else [row(position, -1, "text_tfidf", words)]
    return pd.DataFrame(rows)


def texts(found: dict[str, Any], question: str) -> list[str]:
    return [finding["text"] for finding in found["findings"] if finding["question"] == question]


def test_where_it_decides(tmp_path: Path) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 6 + ["unsafe"] * 3 + ["neutral", None, None])))
    safe, ahead = wilson(6, 10), wilson(3, 10)
    assert texts(found, "where") == [
        f"The key sentence turns safe in 6 of 10 traces, 60% [{safe.low:.0%}, {safe.high:.0%}]; it goes ahead in 3, "
        f"30% [{ahead.low:.0%}, {ahead.high:.0%}], and does neither in 1.",
        "Of 4 traces on harmful prompts that state an understanding and do not turn safe, the understanding names the "
        "harm in 2, 50% [too few prompts for an interval].",
    ]
    assert found["headline"].startswith("10 of 12 traces measured. The key sentence turns safe in 6 of 10 traces")
    assert found["left_out"] == [{"what": "traces t10, t11", "why": "no key sentence: why", "n": 2}]


def test_several_traces_of_one_prompt_are_no_more_sure_than_their_prompts() -> None:
    flags, groups = pd.Series([True, True, False, False] * 10), pd.Series([f"g{i // 4}" for i in range(40)])
    assert share(flags, groups).value == 0.5
    clustered = pd.Series([i < 20 for i in range(40)])
    tied, free = share(clustered, groups), share(clustered, pd.Series(range(40)))
    assert tied.high - tied.low > 1.5 * (free.high - free.low)
    assert share(pd.Series([True] * 40), groups).low == wilson(10, 10).low, "ten prompts, not forty traces"
    assert not share(flags[:8], groups[:8]).is_sure


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 8), (1, 1000)])
def test_an_interval_holds_its_share(k: int, n: int) -> None:
    number = share(pd.Series([i < k for i in range(n)]), pd.Series(range(n)))
    assert number.low <= number.value <= number.high
    assert number.value == k / n


def test_what_it_looks_at(tmp_path: Path) -> None:
    ratios = [Estimate(2.0, 1.5, 2.5), Estimate(0.5, 0.4, 0.9), Estimate(1.2, 0.9, 1.5), Estimate(3.0, 2.0, 4.0)]
    table = attention(Estimate(0.1, 0.09, 0.11), Estimate(0.3, 0.25, 0.35), ratios)
    found = find(write(tmp_path, traces=traces(["safe"] * 20), attention_by_layer=table))
    assert (
        "In the last layer (3) the key sentence gives 0.100 [0.090, 0.110] of its attention to U and 0.300 "
        "[0.250, 0.350] to X, mean over heads: more to X."
    ) in texts(found, "what")
    counted = "2 of 4 layers, less in 1, undecided in 1; the ratio furthest from 1 is 3.00 [2.00, 4.00], at layer 3."
    assert sum("the prompt X" in text and text.endswith(counted) for text in texts(found, "what")) == 1
    finding = next(f for f in found["findings"] if "last layer" in f["text"])
    assert finding["control"] == "even attention would give 0.250 to U and 0.250 to X; this is the paper's measure"
    assert (finding["value"], finding["low"], finding["high"], finding["n"]) == (0.1, 0.09, 0.11, 20)


def test_intervals_that_overlap_decide_nothing(tmp_path: Path) -> None:
    table = attention(Estimate(0.2, 0.1, 0.3), Estimate(0.25, 0.15, 0.35), [])
    found = find(write(tmp_path, traces=traces(["safe"] * 20), attention_by_layer=table))
    assert texts(found, "what")[0].endswith("mean over heads: the intervals overlap, so neither clearly gets more.")


def test_a_layer_that_is_not_the_models_last_is_named_so(tmp_path: Path) -> None:
    table = attention(Estimate(0.2, 0.1, 0.3), Estimate(0.25, 0.15, 0.35), [])
    run = write(tmp_path, {"model": {"n_layers": 30}}, traces=traces(["safe"] * 20), attention_by_layer=table)
    assert texts(find(run), "what")[0].startswith("In layer 3, the last that was measured, the key sentence")


def test_few_prompts_give_no_verdict(tmp_path: Path) -> None:
    table = attention(Estimate(0.1, 0.1, 0.1), Estimate(0.3, 0.3, 0.3), [Estimate(2.0, 2.0, 2.0)], n_groups=FEW - 1)
    found = find(write(tmp_path, traces=traces(["safe"] * 4), attention_by_layer=table))
    what = " ".join(texts(found, "what"))
    assert "fewer than 5 prompts, so this says nothing about others" in what
    assert "in 0 of 1 layer, less in 0, undecided in 1" in what
    assert all(finding["low"] is None or np.isnan(finding["low"]) for finding in found["findings"])


def test_what_it_knew(tmp_path: Path) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(0.9, 0.005)))
    assert texts(found, "knew") == [
        f"{place}, a linear probe tells harmful from benign prompts: AUROC 0.90 [0.85, 0.95] at layer 0, the best of "
        "5; the words alone reach 0.60 [0.55, 0.65]."
        for place in ("Over the prompt", "At the token before the key sentence")
    ]
    assert texts(found, "chance")[0] == (
        "Over the prompt, the states tell more than the words they were read from: AUROC 0.90 [0.85, 0.95] against "
        "0.60 [0.55, 0.65]."
    )
    control = "shuffled labels give 0.40 to 0.60; p = 0.005 over 5 layers, shown from 0.025 down"
    assert {f["control"] for f in found["findings"] if f["question"] == "knew"} == {control}


@pytest.mark.parametrize(
    ("auroc", "p", "groups"), [(0.7, 0.03, 40), (0.3, 1.0, 40), (0.9, float("nan"), 40), (0.99, 0.005, FEW - 1)]
)
def test_a_probe_that_is_not_shown_is_called_so(tmp_path: Path, auroc: float, p: float, groups: int) -> None:
    """p = 0.03 would pass alone, but there are two positions."""
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(auroc, p, n_groups=groups)))
    assert texts(found, "knew") == [
        "Nowhere before the key sentence is a linear probe shown to tell harmful from benign prompts."
    ]
    assert all("a linear probe is not shown to tell" in text for text in texts(found, "chance"))
    assert "not shown" not in found["headline"]


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (0.95, "the states tell no more than the words"),
        (0.85, "the states do not clearly tell more than the words"),
        (0.6, "the states tell more than the words"),
    ],
)
def test_states_are_held_against_words(tmp_path: Path, words: float, verdict: str) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(0.9, 0.005, words)))
    assert all(verdict in text for text in texts(found, "chance"))


def test_outcomes_are_named_as_such(tmp_path: Path) -> None:
    table = separability(0.9, 0.005, words=None, label_by="aha")
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=table))
    assert all("tells traces that go ahead from traces that turn safe" in text for text in texts(found, "knew"))
    assert texts(found, "chance") == []


def test_after_the_fact_is_never_a_finding(tmp_path: Path) -> None:
    table = separability(0.9, 0.005)
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=table[table["position"] == "key_sentence"]))
    assert texts(found, "knew") == texts(found, "chance") == []


def test_nothing_measured_says_nothing(tmp_path: Path) -> None:
    assert find(Run(tmp_path, {})) == {"headline": "", "findings": [], "left_out": []}
    found = find(write(tmp_path, {}, traces=traces([None, None])))
    assert found["headline"] == "0 of 2 traces measured."
    assert found["findings"] == []


def test_what_was_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    reasons = [f"key sentence ends at token {n}, past 400 tokens; raise --max-length" for n in (401, 500, 612, 999)]
    table = traces(
        [None] * 5, left_out=[*reasons, "the model's states are not finite (first at resid_post of layer 0)"]
    )
    manifest = MODEL | {
        "layers_without_pattern": [0, 2],
        "separability_left_out": [{"what": "separability", "why": "needs two classes", "n": 3}],
    }
    assert find(write(tmp_path, manifest, traces=table))["left_out"] == [
        {"what": "traces t0, t1, t2 …", "why": "key sentence ends past the longest length", "n": 4},
        {"what": "trace t4", "why": "the model's states are not finite (first at resid_post of layer 0)", "n": 1},
        {"what": "separability", "why": "needs two classes", "n": 3},
        {"what": "attention of layers 0, 2", "why": "n/a: they have no attention pattern", "n": 2},
    ]


def test_every_sentence_ends_and_every_finding_has_its_n_and_control(tmp_path: Path) -> None:
    combinations = itertools.product([0.3, 0.9], [0.005, 1.0, float("nan")], [0.5, 0.95, None])
    for i, (auroc, p, words) in enumerate(combinations):
        folder = tmp_path / str(i)
        folder.mkdir()
        table = attention(Estimate(0.2, 0.1, 0.3), Estimate(0.25, 0.15, 0.35), [Estimate(0.0, 0.0, 0.0)])
        tables = {"attention_by_layer": table, "separability": separability(auroc, p, words)}
        for finding in find(write(folder, traces=traces(["safe", "unsafe"] * 20), **tables))["findings"]:
            assert finding["text"][0].isupper()
            assert finding["text"].endswith(".")
            assert finding["n"] > 0
            assert finding["control"]
            assert "nan" not in finding["text"] + finding["control"]


def test_an_estimate_without_enough_prompts_has_no_interval() -> None:
    row = {"value": 0.5, "low": 0.4, "high": 0.6, "n_groups": FEW}
    assert estimate(row).text(".1f") == "0.5 [0.4, 0.6]"
    assert estimate(row | {"n_groups": FEW - 1}).text(".1f") == "0.5 [too few prompts for an interval]"
