"""Edges cut head by head equal a knockout, all heads together equal one of all, and a planted head is found first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import reference_forward
import tiny_models
from paired_traces import SMALL
from slow_turns import mostly_slow

from safekey_interp.capture.pass_cost import counted_passes
from safekey_interp.errors import InputError, NothingMeasured
from safekey_interp.generation.key_sentence_bank import KeySentences
from safekey_interp.interventions.attention_knockout import knockout
from safekey_interp.interventions.edge_cuts import SingleCuts
from safekey_interp.interventions.edge_knockout import cut_edges, cut_single_heads, summarise_edges
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load


def edges(model: Model, n: int = 4, **options: object) -> pd.DataFrame:
    settings = {"bank": SMALL, "finder": "given", "n_random": 3}
    return cut_edges(model, reference_forward.with_spans(n), **(settings | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "architecture", mostly_slow(["llama", "gemma3_text", "qwen3", "gpt_oss"], quick=("llama", "gemma3_text"))
)
def test_single_heads_and_all_heads_are_those_of_a_knockout(architecture: str) -> None:
    model = tiny_models.tiny_model(architecture)
    table = edges(model)
    options = {"bank": SMALL, "finder": "given", "controls": ()}
    traces = reference_forward.with_spans(4)
    by_head = knockout(model, traces, "decision", "understanding", by="head", **options)
    keys = ["trace_id", "layer", "head", "metric"]
    ours = table[table["cut"] == "head"].set_index(keys)["effect"].sort_index()
    assert ours.abs().max() > 1e-4
    np.testing.assert_allclose(ours, by_head.set_index(keys)["effect"].loc[ours.index], atol=1e-4)
    together = knockout(model, traces, "decision", "understanding", **options).set_index(["trace_id", "metric"])
    whole = table[table["cut"] == "all"].set_index(["trace_id", "metric"])["effect"]
    np.testing.assert_allclose(whole, together["effect"].loc[whole.index], atol=1e-4)


def test_a_set_of_all_heads_is_the_whole_and_one_of_one_head_is_that_head() -> None:
    model = tiny_models.tiny_model("llama")
    n = model.n_layers * model.n_heads
    table = edges(model, top=[1, n])
    top = table[table["cut"] == "top"]
    np.testing.assert_allclose(top.loc[top["n_heads"] == n, "effect"], top.loc[top["n_heads"] == n, "whole"], atol=1e-5)
    first = top[(top["n_heads"] == 1) & (top["control"] == "none")].set_index(["trace_id", "heads", "metric"])["effect"]
    single = table[table["cut"] == "head"].set_index(["trace_id", "heads", "metric"])["effect"]
    np.testing.assert_allclose(first, single.loc[first.index], atol=1e-5)
    summary = summarise_edges(table)
    shares = summary[(summary["cut"] == "all") & (summary["measure"] == "share")]
    np.testing.assert_allclose(shares["value"], 1)


@pytest.mark.parametrize("to_span", ["understanding", "decision"])
def test_sentences_share_a_sequence_also_where_the_query_loses_its_own_key(
    monkeypatch: pytest.MonkeyPatch, to_span: str
) -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(2)
    short = KeySentences(safe=("No, I won't.", "No, never."), go_ahead=("Sure, I will.", "Sure, now."))
    tables, tokens = [], []
    for name in ("together", "apart"):
        if name == "apart":
            monkeypatch.setattr("safekey_interp.interventions.knockout_passes._merged", lambda *_: None)
        with counted_passes(model) as count:
            tables.append(cut_single_heads(model, traces, "decision", to_span, bank=short, finder="given"))
        tokens.append(count.tokens)
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], atol=1e-5)
    effects = tables[0].groupby(["trace_id", "metric"])["value"].transform("first") - tables[0]["value"]
    assert effects.abs().max() > 1e-4
    assert tokens[0] < 0.9 * tokens[1]


def test_heads_are_ranked_on_other_requests() -> None:
    """The first head is that with the furthest mean effect, the way of the whole, over all the others."""
    table = edges(tiny_models.tiny_model("llama"))
    own = table[table["metric"] == "difference"]
    single = own[own["cut"] == "head"].pivot_table(index="trace_id", columns="heads", values="effect")
    whole = own[own["cut"] == "all"].set_index("trace_id")["effect"]
    first = own[(own["cut"] == "top") & (own["n_heads"] == 1) & (own["control"] == "none")].set_index("trace_id")[
        "heads"
    ]
    for name in single.index:
        others = single.index != name
        mean = single[others].mean() * np.sign(whole[others].mean())
        assert mean[first[name]] == pytest.approx(mean.max())


def test_pieces_with_the_same_ranking_give_the_same_rows() -> None:
    model, traces = tiny_models.tiny_model("llama"), reference_forward.with_spans(4)
    settings = {"bank": SMALL, "finder": "given"}
    others = pd.concat([cut_single_heads(model, traces[i : i + 2], n_random=3, **settings) for i in (0, 2)])
    pieces = [cut_edges(model, [trace], others=others, n_random=3, **settings) for trace in traces]
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), edges(model), rtol=1e-4, atol=1e-5)


def test_cuts_in_single_heads_are_what_their_rows_say() -> None:
    rng = np.random.default_rng(0)
    cuts = [SingleCuts(f"t{10 - i}", "g", rng.normal(size=(13, 2))) for i in range(3)]
    cuts[1].values[4, 0] = np.nan
    again = SingleCuts.of_rows(pd.concat([each.rows() for each in cuts]))
    for before, after in zip(cuts, again, strict=True):
        assert before[:2] == after[:2]
        np.testing.assert_array_equal(before.values, after.values)


def test_random_heads_are_the_same_for_every_trace() -> None:
    table = edges(tiny_models.tiny_model("llama"))
    drawn = table[table["control"] == "random_heads"]
    assert (drawn.groupby(["n_heads", "draw"])["heads"].nunique() == 1).all()
    assert (drawn["heads"].str.split().str.len() == drawn["n_heads"]).all()


@pytest.mark.slow
def test_few_heads_of_the_organism_carry_what_u_says_to_the_decision() -> None:
    traces = [trace for trace in organism.read_shipped() if trace.label == "harmful" and trace.source == "plain"][:16]
    table = cut_edges(load("organism"), traces, top=[4], n_random=20, finder="given")
    summary = summarise_edges(table)
    rows = summary[(summary["metric"] == "difference") & (summary["subset"] == "all") & (summary["cut"] == "top")]
    share = rows[rows["measure"] == "share"].iloc[0]
    assert share["low"] > share["control_high"]


def test_any_spans_and_metrics() -> None:
    model = tiny_models.tiny_model("llama")
    table = edges(model, from_span="key_sentence", to_span="prompt", metric=["key_sentence"], top=[2], layers=[1, 2])
    assert set(table["unit"]) == {"nats per token"}
    assert set(table["metric"]) == {"key_sentence"}
    assert set(table["layer"]) == {-1, 1, 2}


def test_what_cannot_be_cut_is_refused_or_left_out() -> None:
    model = tiny_models.tiny_model("llama")
    for options, says in (
        ({"top": [99]}, "top: got 99, expected at most 12"),
        ({"top": [0]}, "top: got 0"),
        ({"to_span": "nowhere"}, "nowhere"),
        ({"layers": [9]}, "layers: got"),
    ):
        with pytest.raises(InputError, match=says):
            edges(model, **options)
    with pytest.raises(NothingMeasured, match="no other request"):
        edges(model, n=1)
    with pytest.raises(NothingMeasured, match="could see"):
        edges(model, from_span="first(prompt)")
