"""Sentences about tables: true of them, and no more than that."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from safekey_interp.data.conditions import FEW
from safekey_interp.measures.intervals import Interval, share_interval
from safekey_interp.reporting.findings.finding import Estimate, estimate, share
from safekey_interp.reporting.findings.probe_run_findings import find
from safekey_interp.runs.run_folder import Run

MODEL = {"model": {"n_layers": 4}}
TOLD = MODEL | {"conditions": {"by": "source", "names": ["plain", "wrapped"], "left_out": []}}


def write(folder: Path, manifest: dict[str, Any] = MODEL, **tables: pd.DataFrame) -> Run:
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    return Run(folder, manifest)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


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
        "condition": [None] * n,
    }
    return pd.DataFrame(columns | changes)


def attention(
    u: Estimate, x: Estimate, ratios: list[Estimate], n_groups: int = 20, subset: str = "all"
) -> pd.DataFrame:
    rows = []

    def add(span: str, layer: int, measure: str, value: Estimate, n: int = 20) -> None:
        place = {"subset": subset, "from_span": "key_sentence", "to_span": span, "layer": layer, "measure": measure}
        rows.append(place | value._asdict() | {"n": n, "n_groups": n_groups})

    for span, mass in (("understanding", u), ("prompt", x)):
        add(span, 3, "mass", mass)
        add(span, 3, "uniform_mass", Estimate(0.25, 0.2, 0.3))
        for layer, ratio in enumerate(ratios):
            add(span, layer, "lift_over_matched", ratio)
            add(span, layer, "lift", Estimate(2.0, 1.1, 3.0) if layer else Estimate(0.5, 0.4, 0.6))
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
            "auroc_low_over_layers": value - 0.05,
            "auroc_high_over_layers": value + 0.05,
            "null_auroc_mean": 0.5,
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


def transfer(carried: float, p: float, back: float = 0.5, words: float = 0.55) -> pd.DataFrame:
    """From plain to wrapped ``carried``, the other way ``back``, at home 0.95."""

    def row(fitted: str, tested: str, layer: int, value: float) -> dict[str, Any]:
        return {
            "position": "decision",
            "after_the_fact": False,
            "layer": layer,
            "site": "text" if layer < 0 else "resid_post",
            "method": "text_tfidf" if layer < 0 else "logistic",
            "fitted_on": fitted,
            "tested_on": tested,
            "auroc": value,
            "auroc_low": value - 0.05,
            "auroc_high": value + 0.05,
            "auroc_low_over_layers": value - 0.05,
            "auroc_high_over_layers": value + 0.05,
            "null_auroc_mean": 0.5,
            "null_auroc_low": 0.4,
            "null_auroc_high": 0.6,
            "p_value_over_layers": p if (fitted, tested) == ("plain", "wrapped") else 1.0,
            "n_fitted": 30,
            "n": 40,
            "n_groups": 40,
            "label_by": "label",
        }

    rows = []
    for fitted, tested in itertools.product(("plain", "wrapped"), repeat=2):
        value = 0.95 if fitted == tested else carried if fitted == "plain" else back
        rows += [row(fitted, tested, layer, value - 0.01 * layer) for layer in range(3)]
        rows.append(row(fitted, tested, -1, words))
    return pd.DataFrame(rows)


def sure(k: int, n: int) -> Interval:
    return share_interval([i < k for i in range(n)], range(n))


def texts(found: dict[str, Any], question: str) -> list[str]:
    return [finding["text"] for finding in found["findings"] if finding["question"] == question]


def test_where_it_decides(tmp_path: Path) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 6 + ["unsafe"] * 3 + ["neutral", None, None])))
    share = sure(6, 10)
    assert texts(found, "where") == [
        f"On harmful prompts the key sentence K turns safe in 60% [{share.low:.0%}, {share.high:.0%}] of 10 traces."
    ]
    assert found["headline"] == "10 of 12 traces measured. On harmful prompts K turns safe in 60% of traces."
    assert found["left_out"] == [{"what": "traces t10, t11", "why": "no key sentence: why", "n": 2}]


def test_both_labels_stand_in_one_sentence_and_no_label_says_what_k_does(tmp_path: Path) -> None:
    labels, every, none, half = ["harmful", "benign"] * 10, sure(10, 10), sure(0, 10), sure(6, 12)
    found = find(write(tmp_path, traces=traces(["safe", "neutral"] * 10, label=labels)))
    said = f"turns safe in 100% [{every.low:.0%}, 100%] of 10 traces on harmful prompts"
    assert f"{said}, and in 0% [0%, {none.high:.0%}] of 10 on benign ones" in texts(found, "where")[0]
    found = find(write(tmp_path, traces=traces(["safe", "unsafe"] * 6, label=[None] * 12)))
    said = f"50% [{half.low:.0%}, {half.high:.0%}]"
    assert f"K turns safe in {said} of 12 traces; it complies in {said}." in texts(found, "where")[0]
    assert texts(found, "knew") == []


def test_the_dormant_signal_counts_harmful_prompts_that_do_not_turn_safe(tmp_path: Path) -> None:
    labels = ["harmful"] * 20 + ["benign"] * 10
    outcomes: list[str | None] = [*["unsafe"] * 16, *["safe"] * 4, *["neutral"] * 10]
    hint = [True] * 12 + [False] * 4 + [True] * 4 + [True] * 2 + [False] * 8
    found = find(write(tmp_path, traces=traces(outcomes, label=labels, hint=hint)))
    share, false = sure(12, 16), sure(2, 10)
    assert texts(found, "knew") == [
        f"Where K does not turn safe on a harmful prompt, U names the harm in 75% [{share.low:.0%}, {share.high:.0%}] "
        "of 16 traces."
    ]
    dormant = next(finding for finding in found["findings"] if finding["question"] == "knew")
    said = f"on benign prompts the finder reads harm into U in 20% [{false.low:.0%}, {false.high:.0%}] of 10"
    assert (dormant["n"], dormant["control"]) == (16, said)
    assert "U names the harm in 75% of traces." in found["headline"]
    few = find(write(tmp_path, traces=traces(["unsafe"] * 4, hint=[True] * 4)))
    assert "100% [too few prompts for an interval] of 4 traces" in texts(few, "knew")[0]
    assert "names the harm" not in few["headline"]


def test_conditions_stand_apart_where_it_decides(tmp_path: Path) -> None:
    outcomes: list[str | None] = [*["safe"] * 10, *["unsafe"] * 10, "safe"]
    named = {"condition": ["plain"] * 10 + ["wrapped"] * 11, "hint": [True] * 21}
    found = find(write(tmp_path, TOLD, traces=traces(outcomes, **named)))
    plain, wrapped, harm = sure(10, 10), sure(1, 11), sure(10, 10)
    assert texts(found, "where") == [
        f"On harmful prompts the key sentence K turns safe in 100% [{plain.low:.0%}, {plain.high:.0%}] of 10 plain "
        f"traces and 9% [{wrapped.low:.0%}, {wrapped.high:.0%}] of 11 wrapped traces."
    ]
    assert texts(found, "knew") == [
        f"Where K does not turn safe on a harmful prompt, U names the harm in 100% [{harm.low:.0%}, {harm.high:.0%}] "
        "of 10 wrapped traces."
    ]
    alike = traces(["safe", "unsafe"] * 10, condition=["plain", "plain", "wrapped", "wrapped"] * 5)
    assert texts(find(write(tmp_path, TOLD, traces=alike)), "where")[0].endswith("(no clear difference).")


def test_many_conditions_are_told_by_their_ends(tmp_path: Path) -> None:
    names = [f"c{k}" for k in range(5)]
    manifest = MODEL | {"conditions": {"by": "wrapper", "names": names}}
    table = traces(
        [("safe" if i < k * 2 else "unsafe") for k in range(5) for i in range(10)],
        condition=[name for name in names for _ in range(10)],
    )
    text = texts(find(write(tmp_path, manifest, traces=table)), "where")[0]
    assert "of 10 c4 traces (the most of 5 conditions) and 0%" in text
    assert text.endswith("of 10 c0 traces (the least).")


def test_several_traces_of_one_prompt_are_no_more_sure_than_their_prompts() -> None:
    flags, groups = pd.Series([True, True, False, False] * 10), pd.Series([f"g{i // 4}" for i in range(40)])
    assert share(flags, groups).value == 0.5
    clustered = pd.Series([i < 20 for i in range(40)])
    tied, free = share(clustered, groups), share(clustered, pd.Series(range(40)))
    assert tied.high - tied.low > 1.5 * (free.high - free.low)
    assert share(pd.Series([True] * 40), groups).low == sure(10, 10).low, "ten prompts, not forty traces"
    assert not share(flags[:8], groups[:8]).is_sure


@pytest.mark.parametrize(("k", "n"), [(0, 10), (12, 12), (3, 14), (1, 1000)])
def test_an_interval_holds_its_share(k: int, n: int) -> None:
    number = share(pd.Series([i < k for i in range(n)]), pd.Series(range(n)))
    assert number.low <= number.value <= number.high
    assert number.value == k / n


def test_what_it_looks_at(tmp_path: Path) -> None:
    ratios = [Estimate(0.5, 0.4, 0.9), Estimate(0.5, 0.4, 0.9), Estimate(1.2, 0.9, 1.5), Estimate(3.0, 2.0, 4.0)]
    table = attention(Estimate(0.1, 0.09, 0.11), Estimate(0.35, 0.32, 0.38), ratios)
    found = find(write(tmp_path, traces=traces(["safe"] * 20), attention_by_layer=table))
    assert texts(found, "what") == [
        "In the last layer (3) K gives 10% [9%, 11%] of its attention to U and 35% [32%, 38%] to X: more to X."
    ]
    finding = next(f for f in found["findings"] if f["question"] == "what")
    assert finding["control"] == "uniform baseline 25% on U and 25% on X; mean over heads, as in the paper"
    assert (finding["value"], finding["low"], finding["high"], finding["n"]) == (0.1, 0.09, 0.11, 20)
    assert "K looks more at X than at U: 35% against 10% of its attention." in found["headline"]
    assert texts(found, "chance") == [
        "Above the uniform and the distance-matched baseline: K’s attention on X in 1 of 4 layers, on U in 1 of 4 "
        "layers."
    ], "above both in layer 3 alone"


def test_a_second_reference_that_disagrees_is_said(tmp_path: Path) -> None:
    ratios = [Estimate(2.0, 1.5, 2.5)] * 4
    table = attention(Estimate(0.1, 0.09, 0.11), Estimate(0.35, 0.32, 0.38), ratios)
    other = table[table["measure"] == "lift_over_matched"].assign(measure="lift_over_matched_other")
    safe = traces(["safe"] * 20)
    agrees = find(write(_made(tmp_path / "a"), traces=safe, attention_by_layer=pd.concat([table, other])))
    assert "reference" not in texts(agrees, "chance")[0]
    below = other.assign(low=other["low"].where((other["layer"] > 1) | (other["to_span"] == "prompt"), 0.5))
    found = find(write(_made(tmp_path / "b"), traces=safe, attention_by_layer=pd.concat([table, below])))
    assert texts(found, "chance") == [
        "Above the uniform and the distance-matched baseline: K’s attention on X in 3 of 4 layers, on U in 3 of 4 "
        "layers (2 with rows of X as reference)."
    ]


def test_the_row_that_decides_comes_before_k(tmp_path: Path) -> None:
    table = attention(Estimate(0.1, 0.09, 0.11), Estimate(0.35, 0.32, 0.38), [])
    found = find(
        write(
            tmp_path,
            traces=traces(["safe"] * 20),
            attention_by_layer=pd.concat([table, table.assign(from_span="decision")]),
        )
    )
    assert [text.partition(" gives")[0] for text in texts(found, "what")] == [
        "In the last layer (3) the token before K",
        "In the last layer (3) K",
    ]
    assert "The token before K looks more at X than at U: 35% against 10% of its attention." in found["headline"]
    assert "K looks" not in found["headline"].replace("before K looks", "")


def test_conditions_look_apart_and_what_they_share_is_said_once(tmp_path: Path) -> None:
    low, high = Estimate(0.1, 0.09, 0.11), Estimate(0.35, 0.32, 0.38)
    tables = [
        attention(*pair, [Estimate(2.0, 1.5, 2.5)], subset=subset)
        for subset, pair in {
            "all": (low, low),
            "source=plain": (low, low),
            "source=wrapped": (low, low),
            "source=plain, harmful": (low, high),
            "source=wrapped, harmful": (high, low),
        }.items()
    ]
    found = find(write(tmp_path, TOLD, traces=traces(["safe"] * 20), attention_by_layer=pd.concat(tables)))
    plain, wrapped = texts(found, "what")
    assert plain.startswith("On harmful prompts (plain), in the last layer (3) K gives 10%")
    assert plain.endswith("more to X.")
    assert wrapped.startswith("On harmful prompts (wrapped), in")
    assert wrapped.endswith("more to U.")
    (chance,) = texts(found, "chance")
    assert "K’s attention on X in 0 of 1 layer (plain and wrapped), on U in 0" in chance
    few = [attention(low, high, [], subset=name, n_groups=FEW - 1) for name in ("source=plain", "source=wrapped")]
    found = find(write(tmp_path, TOLD, attention_by_layer=pd.concat([tables[0], *few])))
    assert texts(found, "what")[0].startswith("In the last layer (3) K gives"), "too few: all together"


def test_intervals_that_overlap_decide_nothing(tmp_path: Path) -> None:
    table = attention(Estimate(0.2, 0.1, 0.3), Estimate(0.25, 0.15, 0.35), [])
    found = find(write(tmp_path, traces=traces(["safe"] * 20), attention_by_layer=table))
    assert texts(found, "what")[0].endswith("to X: neither clearly gets more.")


def test_a_layer_that_is_not_the_models_last_is_named_so(tmp_path: Path) -> None:
    table = attention(Estimate(0.2, 0.1, 0.3), Estimate(0.25, 0.15, 0.35), [])
    run = write(tmp_path, {"model": {"n_layers": 30}}, traces=traces(["safe"] * 20), attention_by_layer=table)
    assert texts(find(run), "what")[0].startswith("In layer 3, the last that was measured, K gives")


def test_few_prompts_give_no_verdict(tmp_path: Path) -> None:
    table = attention(Estimate(0.1, 0.1, 0.1), Estimate(0.3, 0.3, 0.3), [Estimate(2.0, 2.0, 2.0)], n_groups=FEW - 1)
    found = find(write(tmp_path, traces=traces(["safe"] * 4), attention_by_layer=table))
    assert f"fewer than {FEW} prompts, so this says nothing about others" in texts(found, "what")[0]
    assert texts(found, "chance") == []
    assert all(finding["low"] is None or np.isnan(finding["low"]) for finding in found["findings"])


def test_what_it_knew(tmp_path: Path) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(0.9, 0.005)))
    assert texts(found, "knew") == [
        "At the token before K a linear probe tells harmful from benign prompts: AUROC 0.90 [0.85, 0.95] (layer 0, the "
        "best of 5); the words alone reach 0.60 [0.55, 0.65].",
        "Elsewhere before K, probes tell them at 1 of 1 positions; best over the prompt: AUROC 0.90 [0.85, 0.95] "
        "(layer 0, the best of 5).",
    ]
    assert texts(found, "chance") == [
        "Shuffled labels: the probe at the token before K does better than these, which reach 0.40 to 0.60; so do "
        "those at 1 of the 1 other positions.",
        "Words alone: at the token before K the states tell more than the words that were read: 0.90 [0.85, 0.95] "
        "against 0.60 [0.55, 0.65]; they clearly tell more at 1 of the 1 other positions.",
    ]
    control = "shuffled labels give 0.40 to 0.60; p = 0.005 over 5 layers, 0.025 needed"
    assert {f["control"] for f in found["findings"] if f["question"] == "knew"} == {control}
    assert "a linear probe already tells harmful from benign prompts (AUROC 0.90)." in found["headline"]


def test_labels_that_the_design_gives_away_are_named(tmp_path: Path) -> None:
    table = separability(0.9, 0.005, null_auroc_mean=0.7)
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=table))
    assert "as the sizes of groups give labels away" in next(
        finding["control"] for finding in found["findings"] if finding["question"] == "knew"
    )


@pytest.mark.parametrize(
    ("auroc", "p", "groups"), [(0.7, 0.03, 40), (0.3, 1.0, 40), (0.9, float("nan"), 40), (0.99, 0.005, FEW - 1)]
)
def test_a_probe_that_is_not_shown_is_called_so(tmp_path: Path, auroc: float, p: float, groups: int) -> None:
    """p = 0.03 would pass alone, but there are two positions."""
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(auroc, p, n_groups=groups)))
    (text,) = texts(found, "knew")
    assert text.startswith("Nowhere before K is a linear probe shown to tell harmful from benign prompts")
    assert not any("does better" in text for text in texts(found, "chance"))
    assert "probe" not in found["headline"]


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (1.1, "the states tell less than the words"),
        (0.85, "the states do not clearly tell more than the words"),
        (0.6, "the states tell more than the words"),
    ],
)
def test_states_are_held_against_words(tmp_path: Path, words: float, verdict: str) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(0.9, 0.005, words)))
    assert verdict in texts(found, "chance")[-1]


def test_outcomes_are_named_as_such(tmp_path: Path) -> None:
    table = separability(0.9, 0.005, words=None, label_by="aha")
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=table))
    assert "tells traces that comply from traces that turn safe" in texts(found, "knew")[0]
    assert len(texts(found, "chance")) == 1


def test_a_probe_that_carries_over_is_told_with_its_words_and_its_home(tmp_path: Path) -> None:
    found = find(write(tmp_path, TOLD, traces=traces(["safe"] * 40), transfer=transfer(0.9, 0.005)))
    there, back = texts(found, "knew")
    assert there == (
        "At the token before K, a probe fitted on plain traces alone tells harmful from benign prompts among wrapped "
        "traces: AUROC 0.90 [0.85, 0.95] (layer 0, the best of 3); fitted on wrapped traces there, 0.95 [0.90, 1.00]; "
        "the words alone reach 0.55 [0.50, 0.60]."
    )
    assert "fitted on wrapped traces alone is not shown to tell" in back
    finding = next(f for f in found["findings"] if f["text"] == there)
    assert (finding["value"], finding["n"]) == (0.9, 40)
    assert finding["control"] == (
        "shuffled labels give 0.40 to 0.60; p = 0.005 over 3 layers, 0.025 needed; 30 fitted; no prompt is on "
        "both sides"
    )
    assert "(AUROC 0.90)" in found["headline"]
    (words,) = texts(found, "chance")
    assert "from plain to wrapped the states tell more (0.90 against 0.55" in words
    assert "from wrapped to plain the states do not clearly tell more" in words


def test_a_direction_that_flips_is_said(tmp_path: Path) -> None:
    found = find(write(tmp_path, TOLD, traces=traces(["safe"] * 40), transfer=transfer(0.3, 1.0, back=0.9)))
    assert "takes harmful from benign prompts the wrong way round among wrapped traces" in texts(found, "knew")[0]
    assert "is not shown to tell" in texts(found, "knew")[1], "p = 1"
    assert "probe" not in found["headline"]


def test_many_pairs_are_told_by_their_ends(tmp_path: Path) -> None:
    one = transfer(0.9, 0.005)
    more = [one.replace({"wrapped": name}) for name in ("story", "film")]
    table = pd.concat([one, *more]).drop_duplicates(["fitted_on", "tested_on", "layer", "method"])
    manifest = MODEL | {"conditions": {"by": "source", "names": ["plain", "wrapped", "story", "film"]}}
    found = find(write(tmp_path, manifest, traces=traces(["safe"] * 40), transfer=table))
    (text,) = texts(found, "knew")
    assert "another in 3 of 6 pairs; best from plain to " in text
    assert ", worst from wrapped to plain 0.50 [0.45, 0.55] (AUROC)." in text
    assert texts(found, "chance") == ["Words alone, across conditions: the states clearly tell more in 3 of 6 pairs."]


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
        "conditions": {"left_out": [{"what": "conditions by mood", "why": "no trace has such a field", "n": 5}]},
        "layers_without_pattern": [0, 2],
        "separability_left_out": [{"what": "separability", "why": "needs two classes", "n": 3}],
    }
    assert find(write(tmp_path, manifest, traces=table))["left_out"] == [
        {"what": "traces t0, t1, t2 …", "why": "key sentence ends past the longest length", "n": 4},
        {"what": "trace t4", "why": "the model's states are not finite (first at resid_post of layer 0)", "n": 1},
        {"what": "conditions by mood", "why": "no trace has such a field", "n": 5},
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
        tables |= {"transfer": transfer(auroc, p), "traces": traces(["safe", "unsafe"] * 20, condition=["plain"] * 40)}
        for finding in find(write(folder, TOLD, **tables))["findings"]:
            assert finding["text"][0].isupper()
            assert finding["text"].endswith(".")
            assert finding["n"] > 0
            assert finding["control"]
            assert "nan" not in finding["text"] + finding["control"]


def test_an_estimate_without_enough_prompts_has_no_interval() -> None:
    row = {"value": 0.5, "low": 0.4, "high": 0.6, "n_groups": FEW}
    assert estimate(row).text(".1f") == "0.5 [0.4, 0.6]"
    assert estimate(row | {"n_groups": FEW - 1}).text(".1f") == "0.5 [too few prompts for an interval]"
