"""First words: exactly those of the trace, one sentence apart, and counted with their intervals."""

from __future__ import annotations

import pandas as pd
import pytest
from tiny_models import tiny_model, traces

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.generation.key_sentence_bank import unspelled
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.prefill import (
    GENERAL_SWAPS,
    ORGANISM_SWAPS,
    beginnings,
    summarise_outcomes,
    swap_sentences_for,
    swaps,
)
from safekey_interp.generation.requests import Request, responses_table
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.models.organism.language import REFUSAL
from safekey_interp.segmentation.segmenter import segment


def test_beginnings_are_nothing_u_and_u_with_k() -> None:
    for trace in traces(4):
        found = segment(trace)
        assert found.understanding is not None
        assert found.key_sentence is not None
        nothing, u, k = beginnings(trace, found)
        assert [one.condition for one in (nothing, u, k)] == ["nothing", "understanding", "key_sentence"]
        assert nothing.prefill == ""
        assert u.prefill == trace.response[: found.understanding.end]
        assert k.prefill == trace.response[: found.key_sentence.end]
    bare = Trace(trace_id="b", prompt="Hi", response="")
    assert [one.condition for one in beginnings(bare, segment(bare))] == ["nothing"]


def test_swaps_differ_in_the_key_sentence_alone() -> None:
    for trace in traces(5):
        found = segment(trace)
        assert found.key_sentence is not None
        own, *others = swaps(trace, found)
        before = trace.response[: found.key_sentence.start]
        assert own.prefill == before + found.key_sentence_text
        assert [one.condition for one in others] == ["safe", "go_ahead", "neutral"]
        placed = [one.prefill.removeprefix(before) for one in others]
        numbers = {
            GENERAL_SWAPS.of(one.condition).index(sentence) for one, sentence in zip(others, placed, strict=True)
        }
        assert len(numbers) == 1, "the sentences of a trace have one number in every kind, and begin alike"
        assert swaps(trace, found) == [own, *others]
    drawn = {swaps(trace, segment(trace), seed=seed)[1].prefill for trace in traces(1) for seed in range(30)}
    assert len(drawn) > 4


def test_sentences_of_one_number_begin_alike_in_every_kind() -> None:
    kinds = [GENERAL_SWAPS.of(kind) for kind in ("safe", "go_ahead", "neutral")]
    assert len(set(map(len, kinds))) == 1
    for sentences in zip(*kinds, strict=True):
        assert len({sentence.split()[0].rstrip(",") for sentence in sentences}) == 1, sentences
    assert len({sentence for kind in kinds for sentence in kind}) == sum(map(len, kinds))


def test_the_organism_can_spell_its_own() -> None:
    tokenizer = load("organism").tokenizer
    assert swap_sentences_for(tokenizer) is ORGANISM_SWAPS
    assert swap_sentences_for(tiny_model("llama").tokenizer) is GENERAL_SWAPS
    unknown = tokenizer.unk_token_id
    for sentence in ORGANISM_SWAPS.neutral:
        assert unknown not in tokenizer(f". {sentence}", add_special_tokens=False)["input_ids"], sentence
    assert unspelled(tokenizer, ORGANISM_SWAPS.bank) is None


def test_a_safe_key_sentence_turns_the_organism_and_a_go_ahead_turns_it_back() -> None:
    model = load("organism")
    refused = [t for t in organism.read_shipped() if t.label == "harmful" and t.meta["outcome"] == "refused"][:10]
    requests = [one for trace in refused for one in swaps(trace, segment(trace, finder="given"), ORGANISM_SWAPS)]
    table = responses_table(LocalEngine(model).generate(requests, Sampling(max_new_tokens=64)))
    table["refused"] = table["response"].str.contains(REFUSAL)
    rates = summarise_outcomes(table, "refused", baseline="own").set_index("condition")
    assert rates.loc["own", "rate"] == 1
    assert rates.loc["safe", "rate"] > rates.loc["go_ahead", "rate"]
    assert rates.loc["own", "difference"] == 0
    assert rates.loc["go_ahead", "n_pairs"] == 10


def test_outcomes_are_counted_with_their_intervals() -> None:
    rows = [
        {
            "trace_id": f"t{i}",
            "group": f"g{i}",
            "label": "harmful",
            "condition": c,
            "depth": None,
            "sample": 0,
            "bad": bad,
        }
        for i in range(10)
        for c, bad in (("nothing", i < 2), ("understanding", i < 8))
    ]
    rows.append(rows[0] | {"trace_id": "unjudged", "bad": None})
    table = pd.DataFrame(rows).astype({"depth": "Int64"})
    nothing, given = summarise_outcomes(table, "bad", baseline="nothing").to_dict("records")
    assert (nothing["rate"], nothing["n"], nothing["difference"]) == (0.2, 10, 0.0)
    assert nothing["low"] < 0.2 < nothing["high"]
    assert (given["rate"], given["n_pairs"]) == (0.8, 10)
    assert given["difference"] == pytest.approx(0.6)
    assert 0 < given["difference_low"] < 0.6 < given["difference_high"] < 1
    twice = pd.concat([table, table.assign(sample=1)])
    [again, _] = summarise_outcomes(twice, "bad").to_dict("records")
    assert again["n"] == 20
    assert again["n_groups"] == 10
    assert again["high"] - again["low"] > 0.3, "samples of a prompt are no prompts of their own"
    few = summarise_outcomes(twice[twice["group"].isin(["g0", "g1"])], "bad")
    assert few[["low", "high"]].isna().all(axis=None)
    for wrong in ({"outcome": "good"}, {"outcome": "bad", "baseline": "own"}):
        with pytest.raises(InputError, match="outcomes: no"):
            summarise_outcomes(table, **wrong)
    assert summarise_outcomes(table, "bad")["depth"].isna().all()


def test_depths_are_paired_with_the_baseline_s_at_the_same_depth() -> None:
    rows = [
        {"trace_id": f"t{i}", "group": f"g{i}", "label": "harmful", "condition": c, "depth": 4 * k, "share": k / 2}
        | {"sample": 0, "bad": c == "depth" and k == 2}
        for i in range(6)
        for c in ("depth", "benign")
        for k in range(3)
    ]
    table = pd.DataFrame(rows)
    found = summarise_outcomes(table, "bad", by="share", baseline="benign").set_index(["condition", "share"])
    assert found.loc[("depth", 1.0), "difference"] == 1
    assert found.loc[("depth", 0.5), "difference"] == 0
    assert (found["n_pairs"] == 6).all()
    by_depth = summarise_outcomes(table, "bad", baseline="benign").set_index(["condition", "depth"])
    assert by_depth.loc[("depth", 8), "difference"] == 1


def test_the_table_holds_what_a_judge_needs() -> None:
    model = load("organism")
    [trace] = list(organism.read_shipped())[:1]
    found = list(LocalEngine(model).generate([Request(trace=trace)], Sampling(max_new_tokens=3)))
    table = responses_table(found)
    assert table.loc[0, "response"] == found[0].response
    assert table.loc[0, ["trace_id", "label", "group"]].tolist() == [trace.trace_id, trace.label, trace.group]
    assert table.loc[0, "cut"]
    assert list(responses_table([]).columns) == list(table.columns)
