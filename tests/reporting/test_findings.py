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
            "p_value_over_all": p,
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
            "p_value_over_all": p if (fitted, tested) == ("plain", "wrapped") else 1.0,
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


def facts(found: dict[str, Any], question: str) -> list[dict[str, Any]]:
    return [finding["facts"] for finding in found["findings"] if finding["question"] == question]


def of(share: Interval | Estimate, value: float, n: int) -> list[Any]:
    """A share as ``facts`` have it."""
    return [value, pytest.approx(share.low), pytest.approx(share.high), n]


def test_where_it_decides(tmp_path: Path) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 6 + ["unsafe"] * 3 + ["neutral", None, None])))
    [finding] = found["findings"][:1]
    assert (finding["question"], finding["value"], finding["n"]) == ("where", 0.6, 10)
    assert finding["facts"] == {"shares": {"all": of(sure(6, 10), 0.6, 10)}}
    assert "10 of 12" in found["headline"]
    assert finding["short"] in found["headline"]
    assert found["left_out"] == [{"what": "traces t10, t11", "why": "no key sentence: why", "n": 2}]


def test_both_labels_stand_in_one_sentence_and_no_label_says_what_k_does(tmp_path: Path) -> None:
    labels = ["harmful", "benign"] * 10
    found = find(write(tmp_path, traces=traces(["safe", "neutral"] * 10, label=labels)))
    [where] = facts(found, "where")
    assert where["shares"] == {"harmful": of(sure(10, 10), 1.0, 10), "benign": of(sure(0, 10), 0.0, 10)}
    found = find(write(tmp_path, traces=traces(["safe", "unsafe"] * 6, label=[None] * 12)))
    [where] = facts(found, "where")
    assert where["shares"] == {"all": of(sure(6, 12), 0.5, 12)}
    assert where["complies"] == of(sure(6, 12), 0.5, 12)[:3]
    assert texts(found, "knew") == []


def test_the_dormant_signal_counts_harmful_prompts_that_do_not_turn_safe(tmp_path: Path) -> None:
    labels = ["harmful"] * 20 + ["benign"] * 10
    outcomes: list[str | None] = [*["unsafe"] * 16, *["safe"] * 4, *["neutral"] * 10]
    hint = [True] * 12 + [False] * 4 + [True] * 4 + [True] * 2 + [False] * 8
    found = find(write(tmp_path, traces=traces(outcomes, label=labels, hint=hint)))
    [dormant] = [finding for finding in found["findings"] if finding["question"] == "knew"]
    assert dormant["facts"] == {"shares": {"all": of(sure(12, 16), 0.75, 16)}}
    assert (dormant["n"], dormant["value"]) == (16, 0.75)
    false = sure(2, 10)
    assert f"20% [{false.low:.0%}, {false.high:.0%}] of 10" in dormant["control"]
    assert dormant["short"] in found["headline"]
    few = find(write(tmp_path, traces=traces(["unsafe"] * 4, hint=[True] * 4)))
    [dormant] = [finding for finding in few["findings"] if finding["question"] == "knew"]
    assert dormant["facts"]["shares"] == {"all": [1.0, None, None, 4]}
    assert dormant["short"] == ""


def test_conditions_stand_apart_where_it_decides(tmp_path: Path) -> None:
    outcomes: list[str | None] = [*["safe"] * 10, *["unsafe"] * 10, "safe"]
    named = {"condition": ["plain"] * 10 + ["wrapped"] * 11, "hint": [True] * 21}
    found = find(write(tmp_path, TOLD, traces=traces(outcomes, **named)))
    [where], [knew] = facts(found, "where"), facts(found, "knew")
    assert where["shares"] == {"plain": of(sure(10, 10), 1.0, 10), "wrapped": of(sure(1, 11), 1 / 11, 11)}
    assert knew["shares"] == {"wrapped": of(sure(10, 10), 1.0, 10)}
    alike = traces(["safe", "unsafe"] * 10, condition=["plain", "plain", "wrapped", "wrapped"] * 5)
    assert "no clear difference" in texts(find(write(tmp_path, TOLD, traces=alike)), "where")[0]


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
    [what] = facts(found, "what")
    place = {"row": "K", "subset": "all", "layer": 3, "is_last_layer": True}
    assert what == place | {"more_to": "X", "U": [0.1, 0.09, 0.11], "X": [0.35, 0.32, 0.38]}
    finding = next(f for f in found["findings"] if f["question"] == "what")
    assert "25% on U and 25% on X" in finding["control"]
    assert (finding["value"], finding["low"], finding["high"], finding["n"]) == (0.1, 0.09, 0.11, 20)
    assert finding["short"] in found["headline"]
    [chance] = facts(found, "chance")
    above = {"X": {"all": (1, 4, None)}, "U": {"all": (1, 4, None)}}
    assert chance == {"row": "K", "layers_above": above}, "above both in layer 3 alone"


def test_a_second_reference_that_disagrees_is_said(tmp_path: Path) -> None:
    ratios = [Estimate(2.0, 1.5, 2.5)] * 4
    table = attention(Estimate(0.1, 0.09, 0.11), Estimate(0.35, 0.32, 0.38), ratios)
    other = table[table["measure"] == "lift_over_matched"].assign(measure="lift_over_matched_other")
    safe = traces(["safe"] * 20)
    agrees = find(write(_made(tmp_path / "a"), traces=safe, attention_by_layer=pd.concat([table, other])))
    assert facts(agrees, "chance")[0]["layers_above"] == {"X": {"all": (3, 4, None)}, "U": {"all": (3, 4, None)}}
    below = other.assign(low=other["low"].where((other["layer"] > 1) | (other["to_span"] == "prompt"), 0.5))
    found = find(write(_made(tmp_path / "b"), traces=safe, attention_by_layer=pd.concat([table, below])))
    assert facts(found, "chance")[0]["layers_above"] == {"X": {"all": (3, 4, None)}, "U": {"all": (3, 4, 2)}}


def test_the_row_that_decides_comes_before_k(tmp_path: Path) -> None:
    table = attention(Estimate(0.1, 0.09, 0.11), Estimate(0.35, 0.32, 0.38), [])
    both = pd.concat([table, table.assign(from_span="decision")])
    found = find(write(tmp_path, traces=traces(["safe"] * 20), attention_by_layer=both))
    assert [what["row"] for what in facts(found, "what")] == ["the token before K", "K"]
    shorts = [finding["short"] for finding in found["findings"] if finding["question"] == "what"]
    assert shorts[0] in found["headline"]
    assert shorts[1] == "", "the headline has the row that decides alone"


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
    subsets = [(what["subset"], what["more_to"]) for what in facts(found, "what")]
    assert subsets == [("source=plain, harmful", "X"), ("source=wrapped, harmful", "U")]
    [chance] = facts(found, "chance")
    assert chance["layers_above"]["X"] == {"plain": (0, 1, None), "wrapped": (0, 1, None)}
    assert texts(found, "chance")[0].count("0 of 1 layer") == 2, "once for X, once for U"
    few = [attention(low, high, [], subset=name, n_groups=FEW - 1) for name in ("source=plain", "source=wrapped")]
    found = find(write(tmp_path, TOLD, attention_by_layer=pd.concat([tables[0], *few])))
    assert facts(found, "what")[0]["subset"] == "all", "too few: all together"


def test_intervals_that_overlap_decide_nothing(tmp_path: Path) -> None:
    table = attention(Estimate(0.2, 0.1, 0.3), Estimate(0.25, 0.15, 0.35), [])
    found = find(write(tmp_path, traces=traces(["safe"] * 20), attention_by_layer=table))
    assert facts(found, "what")[0]["more_to"] == "unclear"


def test_a_layer_that_is_not_the_models_last_is_named_so(tmp_path: Path) -> None:
    table = attention(Estimate(0.2, 0.1, 0.3), Estimate(0.25, 0.15, 0.35), [])
    run = write(tmp_path, {"model": {"n_layers": 30}}, traces=traces(["safe"] * 20), attention_by_layer=table)
    [what] = facts(find(run), "what")
    assert (what["layer"], what["is_last_layer"]) == (3, False)


def test_few_prompts_give_no_verdict(tmp_path: Path) -> None:
    table = attention(Estimate(0.1, 0.1, 0.1), Estimate(0.3, 0.3, 0.3), [Estimate(2.0, 2.0, 2.0)], n_groups=FEW - 1)
    found = find(write(tmp_path, traces=traces(["safe"] * 4), attention_by_layer=table))
    assert facts(found, "what")[0]["more_to"] == "too few"
    assert texts(found, "chance") == []
    assert all(finding["low"] is None or np.isnan(finding["low"]) for finding in found["findings"])


def test_what_it_knew(tmp_path: Path) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(0.9, 0.005)))
    knew = [finding for finding in found["findings"] if finding["question"] == "knew"]
    assert [finding["facts"]["position"] for finding in knew] == ["decision", "prompt"]
    assert all(finding["is_shown"] for finding in knew)
    assert [finding["value"] for finding in knew] == [0.9, 0.9]
    words = [pytest.approx(number) for number in (0.6, 0.55, 0.65)]
    assert knew[0]["facts"] == {"position": "decision", "layer": 0, "n_layers": 5, "words": words}
    shuffled, alone = (finding for finding in found["findings"] if finding["question"] == "chance")
    assert shuffled["is_shown"]
    assert shuffled["facts"] == {"control": "shuffled labels", "n_shown": 2, "n_positions": 2}
    assert alone["facts"]["states_lie"] == "above"
    assert (alone["facts"]["words"], alone["facts"]["n_others_above"]) == (words, 1)
    assert alone["value"] == pytest.approx(0.3)
    assert {f["control"].partition(";")[0] for f in knew} == {"shuffled labels give 0.40 to 0.60"}
    assert knew[0]["short"] in found["headline"]


def test_labels_that_the_design_gives_away_are_named(tmp_path: Path) -> None:
    table = separability(0.9, 0.005, null_auroc_mean=0.7)
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=table))
    assert "as the sizes of groups give labels away" in next(
        finding["control"] for finding in found["findings"] if finding["question"] == "knew"
    )


@pytest.mark.parametrize(
    ("auroc", "p", "groups"), [(0.7, 0.06, 40), (0.3, 1.0, 40), (0.9, float("nan"), 40), (0.99, 0.005, FEW - 1)]
)
def test_a_probe_that_is_not_shown_is_called_so(tmp_path: Path, auroc: float, p: float, groups: int) -> None:
    """p is that of the layers of all positions: 0.03 over its own would pass, 0.06 over all does not."""
    found = find(
        write(
            tmp_path,
            traces=traces(["safe"] * 40),
            separability=separability(auroc, p, n_groups=groups, p_value_over_layers=0.03),
        )
    )
    [knew] = [finding for finding in found["findings"] if finding["question"] == "knew"]
    assert (knew["is_shown"], knew["short"]) == (False, "")
    shuffled = [about for about in facts(found, "chance") if about["control"] == "shuffled labels"]
    assert all(about["n_shown"] == 0 for about in shuffled)
    assert "probe" not in found["headline"]


@pytest.mark.parametrize("n", [4, 40])
def test_a_probe_that_is_not_shown_stands_in_the_summary_beside_what_u_names(tmp_path: Path, n: int) -> None:
    """With few traces what U names has no interval and so no headline; that there is no probe is told all the same."""
    table = separability(0.7, 0.06, n_groups=40, p_value_over_layers=0.03)
    found = find(write(tmp_path, traces=traces(["unsafe"] * n), separability=table))
    [line] = [line["text"] for line in found["summary"] if line["label"] == "Knows"]
    assert "U names the harm" in line
    assert "Nowhere before K is a linear probe shown" in line
    assert line.index("U names the harm") < line.index("Nowhere")


@pytest.mark.parametrize(("words", "lie"), [(1.1, "below"), (0.85, "unclear"), (0.6, "above")])
def test_states_are_compared_with_words(tmp_path: Path, words: float, lie: str) -> None:
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=separability(0.9, 0.005, words)))
    assert facts(found, "chance")[-1]["states_lie"] == lie


def test_outcomes_are_named_as_such(tmp_path: Path) -> None:
    table = separability(0.9, 0.005, words=None, label_by="aha")
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=table))
    assert "tells traces that comply from traces that turn safe" in texts(found, "knew")[0]
    assert len(texts(found, "chance")) == 1


def test_a_probe_that_carries_over_is_told_with_its_words_and_its_home(tmp_path: Path) -> None:
    found = find(write(tmp_path, TOLD, traces=traces(["safe"] * 40), transfer=transfer(0.9, 0.005)))
    there, back = (finding for finding in found["findings"] if finding["question"] == "knew")
    assert there["facts"] == {
        "fitted_on": "plain",
        "tested_on": "wrapped",
        "layer": 0,
        "is_reversed": False,
        "at_home": [pytest.approx(number) for number in (0.95, 0.9, 1.0)],
        "words": [pytest.approx(number) for number in (0.55, 0.5, 0.6)],
    }
    assert (there["is_shown"], there["value"], there["n"]) == (True, 0.9, 40)
    assert "p = 0.005 over 3 layers and 2 pairs; 30 fitted" in there["control"]
    assert (back["is_shown"], back["facts"]["fitted_on"]) == (False, "wrapped")
    assert there["short"] in found["headline"]
    [words] = facts(found, "chance")
    assert words["states_lie"] == {"plain → wrapped": "above", "wrapped → plain": "unclear"}


def test_a_direction_that_flips_is_said(tmp_path: Path) -> None:
    found = find(write(tmp_path, TOLD, traces=traces(["safe"] * 40), transfer=transfer(0.3, 1.0, back=0.9)))
    there, back = (finding for finding in found["findings"] if finding["question"] == "knew")
    assert (there["is_shown"], there["facts"]["is_reversed"]) == (False, True)
    assert (back["is_shown"], back["facts"]["is_reversed"]) == (False, False), "p = 1"
    assert "probe" not in found["headline"]


def test_many_pairs_are_told_by_their_ends(tmp_path: Path) -> None:
    one = transfer(0.9, 0.005)
    more = [one.replace({"wrapped": name}) for name in ("story", "film")]
    table = pd.concat([one, *more]).drop_duplicates(["fitted_on", "tested_on", "layer", "method"])
    manifest = MODEL | {"conditions": {"by": "source", "names": ["plain", "wrapped", "story", "film"]}}
    found = find(write(tmp_path, manifest, traces=traces(["safe"] * 40), transfer=table))
    [knew], [chance] = facts(found, "knew"), facts(found, "chance")
    assert (knew["n_shown"], knew["n_pairs"], knew["worst"]) == (3, 6, ["wrapped", "plain"])
    assert knew["best"][0] == "plain"
    assert (chance["n_above"], chance["n_pairs"]) == (3, 6)


def test_after_the_fact_is_never_a_finding(tmp_path: Path) -> None:
    table = separability(0.9, 0.005)
    found = find(write(tmp_path, traces=traces(["safe"] * 40), separability=table[table["position"] == "key_sentence"]))
    assert texts(found, "knew") == texts(found, "chance") == []


def test_nothing_measured_says_nothing(tmp_path: Path) -> None:
    nothing = find(Run(tmp_path, {}))
    assert set(nothing) == {"headline", "summary", "findings", "left_out", "notes"}
    assert not any(nothing.values())
    found = find(write(tmp_path, {}, traces=traces([None, None])))
    assert found["headline"] == "0 of 2 traces measured."
    assert found["findings"] == []


def test_what_was_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    reasons = [f"key sentence ends at token {n}, past 400 tokens; raise --max-length" for n in (999, 500, 401, 612)]
    table = traces(
        [None] * 5, left_out=[*reasons, "the model's states are not finite (first at resid_post of layer 0)"]
    )
    manifest = MODEL | {
        "conditions": {"left_out": [{"what": "conditions by mood", "why": "no trace has such a field", "n": 5}]},
        "layers_without_pattern": [0, 2],
        "separability_left_out": [{"what": "separability", "why": "needs two classes", "n": 3}],
    }
    assert find(write(tmp_path, manifest, traces=table))["left_out"] == [
        {
            "what": "traces t0, t1, t2 …",
            "why": "key sentence ends at token 401 to 999, past 400 tokens; raise --max-length",
            "n": 4,
        },
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
