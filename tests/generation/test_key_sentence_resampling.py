"""Key sentences from the model itself: counted as drawn, gone on from token for token, and judged by what follows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd
import pytest
from tiny_models import shipped, tiny_model, traces

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError
from safekey_interp.evaluation.refusal_judge import judge_refusal
from safekey_interp.generation.key_sentence_resampling import resample_key_sentences, summarise_rates
from safekey_interp.generation.local_engine import LocalEngine, generate
from safekey_interp.generation.prefill import ORGANISM_SWAPS, summarise_outcomes
from safekey_interp.generation.prefill_depth import before_key
from safekey_interp.generation.requests import Request, samples
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.segmentation.segmenter import segment
from safekey_interp.segmentation.sentence_classes import classify_aha

CONDITIONS = ["safe", "go_ahead", "neutral"]
ON_POLICY = Sampling(temperature=1.0, seed=3)


@lru_cache
def harmful() -> list[Trace]:
    """In wrappers, where the organism may decide either way."""
    some = [t for t in organism.read_shipped() if t.label == "harmful" and t.source == "wrapped"]
    return [t.with_(given={}) for t in some[::8] if segment(t).key_sentence]


@lru_cache
def drawn() -> Any:
    return resample_key_sentences(
        load("organism"),
        harmful(),
        judge=judge_refusal,
        n_tries=24,
        key_tokens=36,
        sampling=ON_POLICY,
        sentences=ORGANISM_SWAPS,
    )


def test_rates_are_counts_over_tries() -> None:
    own = drawn()[drawn()["on_policy"]]
    assert len(own) == 3 * len(harmful())
    for _, part in own.groupby("trace_id"):
        assert list(part["condition"]) == CONDITIONS
        assert part["n_of_kind"].sum() + part["n_no_key"].iloc[0] == 24
        assert (part["rate"] * part["n_tries"] == part["n_of_kind"]).all()
        assert ((part["rate_low"] <= part["rate"] + 1e-9) & (part["rate"] <= part["rate_high"] + 1e-9)).all()
        came = part["n_of_kind"] > 0
        assert (part["tries"].notna() == came).all()
        assert (part["tries"].dropna() <= 25 - part.loc[came, "n_of_kind"]).all(), "the first of so many"
        assert (part["key_sentence"].notna() == came).all()
    missing = own[own["n_of_kind"] == 0]
    assert len(missing)
    assert missing["judged"].isna().all()
    assert missing["reason"].str.contains("none of 24 draws was").all()
    rates = summarise_rates(drawn()).set_index("condition")
    assert rates["rate"].sum() == pytest.approx(1), "every draw is of a kind, or no K"
    assert rates.loc["go_ahead", "n_never"] == (missing["condition"] == "go_ahead").sum()


def test_draws_are_the_model_s_own_samples() -> None:
    """The counts are those of plain samples behind the same tokens, read by the same finder."""
    model = load("organism")
    trace = harmful()[0]
    found = segment(trace)
    begun = before_key(model.tokenizer, trace, found)
    request = begun.request(trace, len(begun.ends), share=1, condition="")
    answers = LocalEngine(model).generate(
        list(samples([request], 24)), Sampling(temperature=1.0, seed=3, max_new_tokens=60)
    )
    kinds = []
    for one in sorted(answers, key=lambda one: one.sample):
        again = segment(one.trace())
        kinds.append(again.aha if again.understanding == found.understanding else None)
    rows = drawn()[(drawn()["trace_id"] == trace.trace_id) & drawn()["on_policy"]].set_index("condition")
    for condition, aha in zip(CONDITIONS, ("safe", "unsafe", "neutral"), strict=True):
        assert rows.loc[condition, "n_of_kind"] == kinds.count(aha)
        if aha in kinds:
            assert rows.loc[condition, "tries"] == kinds.index(aha) + 1


def test_k_is_of_the_wanted_kind_and_the_judge_reads_what_follows_it() -> None:
    by_id = {trace.trace_id: trace for trace in harmful()}
    seen = set()
    for row in drawn().dropna(subset=["key_sentence"]).itertuples():
        trace = by_id[str(row.trace_id)]
        found = segment(trace)
        assert found.key_sentence is not None
        before = trace.response[: found.key_sentence.start]
        assert row.prefill.rstrip().endswith(row.key_sentence)
        assert row.prefill.startswith(before.rstrip())
        assert row.response == row.prefill + row.continuation
        if row.on_policy:
            aha = classify_aha(row.key_sentence, found.understanding_text, trace.prompt)
            assert {"unsafe": "go_ahead"}.get(aha, aha) == row.condition
        behind = f"<think>{row.continuation}"
        assert judge_refusal(None, behind).label == (None if pd.isna(row.judged) else row.judged)
        seen.add(row.on_policy)
    assert seen == {True, False}


def test_one_s_own_k_goes_on_as_it_did() -> None:
    """A K that the model writes greedily is followed by its greedy answer."""
    model = load("organism")
    some = harmful()[:6]
    whole = dict(zip([t.trace_id for t in some], generate(model, some, max_new_tokens=64), strict=True))
    table = resample_key_sentences(
        model, [t.with_(response=whole[t.trace_id]) for t in some], n_tries=2, sampling=Sampling(temperature=1e-6)
    )
    came = table.dropna(subset=["response"])
    assert len(came) >= 5
    assert (came["n_of_kind"] == 2).all()
    assert all(whole[row.trace_id].startswith(row.response) for row in came.itertuples())


@pytest.mark.slow
def test_draws_depend_on_seed_and_trace_alone() -> None:
    model = load("organism")
    options: dict[str, Any] = {"n_tries": 6, "key_tokens": 30, "judge": judge_refusal}
    some = harmful()[:4]
    whole = resample_key_sentences(model, some, sampling=ON_POLICY, **options)
    for part, size in ((some[::-1], 5), (some[2:], 64)):
        again = resample_key_sentences(model, part, sampling=ON_POLICY, batch_size=size, **options)
        for trace in part:
            mine, other = (t[t["trace_id"] == trace.trace_id].reset_index(drop=True) for t in (whole, again))
            pd.testing.assert_frame_equal(mine, other)
    more = resample_key_sentences(model, some, sampling=ON_POLICY, **(options | {"n_tries": 9}))
    known = whole["tries"].notna()
    assert (more.loc[known.to_numpy(), "tries"].to_numpy() == whole.loc[known, "tries"].to_numpy()).all()
    other_seed = resample_key_sentences(model, some, sampling=Sampling(temperature=1.0, seed=4), **options)
    assert not other_seed["n_of_kind"].equals(whole["n_of_kind"])


def test_planted_k_decides_on_policy() -> None:
    """The organism's K decides its answer: a safe one that it wrote itself is followed by a refusal, a go-ahead of its
    own that it writes often by compliance."""
    table = drawn()[drawn()["on_policy"] & (drawn()["n_of_kind"] >= 4)].dropna(subset=["judged"])
    refused = table["judged"].str.contains("refusal").groupby(table["condition"]).agg(["mean", "size"])
    assert refused.loc["safe", "mean"] > 0.9
    assert refused.loc["go_ahead", "mean"] < 0.1
    assert refused["size"].min() >= 4


@pytest.mark.slow
def test_planted_null_two_draws_of_a_kind_do_not_differ() -> None:
    """The second draw of a kind against the first: whatever is found between kinds is not found within one."""
    some = [t for t in organism.read_shipped() if t.label == "harmful"][::14]
    table = resample_key_sentences(
        load("organism"), some, judge=judge_refusal, n_tries=16, per_kind=2, key_tokens=36, sampling=ON_POLICY
    )
    both = table[(table["n_of_kind"] >= 4) & (table["condition"] != "neutral")].dropna(subset=["judged"])
    refused = both.assign(refused=both["judged"].str.contains("refusal"))
    assert set(both["sample"]) == {0, 1}
    second = refused.assign(
        condition="draw " + refused["sample"].astype(str), trace_id=both["trace_id"] + both["condition"]
    )
    found = summarise_outcomes(second.assign(sample=0), "refused", baseline="draw 0").set_index("condition")
    row = found.loc["draw 1"]
    assert row["n_pairs"] >= 15
    assert abs(row["difference"]) <= 0.1
    assert row["difference_low"] <= 0 <= row["difference_high"]


def test_several_of_a_kind_are_the_first_ones_in_order() -> None:
    table = resample_key_sentences(
        load("organism"), harmful()[:3], n_tries=8, per_kind=3, key_tokens=30, sampling=ON_POLICY
    )
    assert table["judged"].isna().all()
    for _, part in table.dropna(subset=["tries"]).groupby(["trace_id", "condition"]):
        assert len(part) == min(3, part["n_of_kind"].iloc[0])
        assert list(part["sample"]) == list(range(len(part)))
        assert list(part["tries"]) == sorted(part["tries"])


def test_what_cannot_be_resampled_says_why() -> None:
    model = load("organism")
    [trace] = shipped(1)
    bare = trace.with_(trace_id="bare", response="", given={})
    long = trace.with_(trace_id="long", prompt=trace.prompt * 40, given={})
    table = resample_key_sentences(model, [bare, trace, long], n_tries=2, key_tokens=20)
    assert set(table["trace_id"]) == {trace.trace_id}
    left_out = table.attrs["left_out"]
    assert "no key sentence" in left_out["bare"]
    assert "lower key_tokens" in left_out["long"]
    with pytest.raises(InputError, match="no trace whose key sentence can be resampled; trace bare: no key sentence"):
        resample_key_sentences(model, [bare])
    for wrong, message in (
        ({"n_tries": 0}, "n_tries: got 0"),
        ({"per_kind": 0}, "per_kind: got 0"),
        ({"sampling": Sampling()}, "temperature 0"),
        ({"finder": "given"}, "finder: got 'given'"),
    ):
        with pytest.raises(InputError, match=message):
            resample_key_sentences(model, [trace], **wrong)
    with pytest.raises(InputError, match="given twice"):
        resample_key_sentences(model, [trace, trace])


def test_a_model_of_random_weights_writes_no_k_and_says_so() -> None:
    """Noise is no sentence behind U: counted, never a kind by accident of being cut."""
    table = resample_key_sentences(tiny_model("llama"), traces(2), n_tries=4, key_tokens=6)
    assert (table["n_no_key"] >= 3).all()
    assert table.loc[table["n_of_kind"] == 0, "continuation"].isna().all()


def test_requests_of_one_text_are_told_apart_by_what_they_are() -> None:
    assert Request(trace=shipped(1)[0], share=0.5).content == Request(trace=shipped(1)[0]).content
