"""Prefills by depth: the first tokens exactly, never a character of K, and as many of a control's."""

from __future__ import annotations

import pytest
from tiny_models import shipped, tiny_model, traces

from safekey_interp.data.trace import Trace
from safekey_interp.errors import InputError, TraceError
from safekey_interp.generation.local_engine import LocalEngine, generate
from safekey_interp.generation.prefill_depth import SHARES, before_key, depth_requests, depths, same_length
from safekey_interp.generation.requests import responses_table
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models import organism
from safekey_interp.models.model import Model, load
from safekey_interp.segmentation.segmenter import segment


def of(architecture: str) -> tuple[Model, list[Trace]]:
    if architecture == "organism":
        return load("organism"), [trace.with_(given={}) for trace in shipped(12) if segment(trace).key_sentence]
    return tiny_model(architecture), traces(4)


@pytest.mark.parametrize("architecture", ["organism", "llama"])
def test_depths_are_the_first_tokens_exactly_and_never_those_of_k(architecture: str) -> None:
    model, some = of(architecture)
    for trace in some:
        found = segment(trace)
        assert found.key_sentence is not None
        encoding = model.encode(trace, found)
        whole, start = encoding.input_ids.tolist(), encoding.response_start
        most = encoding.positions("key_sentence")[0] - start
        requests = depths(model.tokenizer, trace, range(200), found)
        assert [one.depth for one in requests] == list(range(most + 1)), "up to K, and no further"
        assert (requests[0].input_ids, requests[0].prefill) == (None, "")
        for one in requests[1:]:
            assert one.depth is not None
            assert one.input_ids == tuple(whole[: start + one.depth])
            assert trace.response.startswith(one.prefill)
            assert len(one.prefill) <= found.key_sentence.start
            assert one.share == pytest.approx(one.depth / most)
        by_share = depths(model.tokenizer, trace, [], found, shares=SHARES)
        assert [one.share for one in by_share] == list(SHARES)
        assert by_share[-1].input_ids == requests[-1].input_ids
        assert all((one.depth or 0) >= (one.share or 0) * most for one in by_share), "rounded up"
    few = depths(model.tokenizer, some[0], [0, 1, 3], segment(some[0]))
    found_again = list(LocalEngine(model).generate(few, Sampling(max_new_tokens=4)))
    assert all(one.response.startswith(one.request.prefill) for one in found_again)
    [plain] = [one for one in found_again if one.request.depth == 0]
    assert [plain.response] == generate(model, [some[0]], max_new_tokens=4)
    table = responses_table(found_again)
    assert sorted(table["share"]) == sorted(one.share or 0.0 for one in few)
    for row in table.itertuples():
        assert row.new_text.removeprefix("<think>") == row.response[len(row.prefill) :].removeprefix("<think>")


def test_a_token_that_ends_within_a_character_is_no_half_character_of_the_prefill() -> None:
    model = tiny_model("llama")
    trace = Trace(trace_id="a", prompt="How?", response="<think>é日🙂 is asked. Hmm, that is dangerous. Go.</think>No.")
    found = segment(trace)
    requests = depths(model.tokenizer, trace, range(1, 30), found)
    assert len({one.prefill for one in requests}) < len(requests), "several tokens a character"
    assert all("\ufffd" not in one.prefill and trace.response.startswith(one.prefill) for one in requests)
    for one in LocalEngine(model).generate(requests, Sampling(max_new_tokens=3)):
        assert one.response.startswith(one.request.prefill)


def test_what_holds_k_with_what_is_before_it_is_refused() -> None:
    tokenizer = tiny_model("llama").tokenizer
    trace = Trace(trace_id="a", prompt="How?", response="<think>Okay, the user asks how.Hmm, bad.</think>No.")
    found = segment(trace.with_(response=trace.response.replace(".Hmm", ". Hmm")))
    assert found.key_sentence is not None
    at = trace.response.index("Hmm")
    before = before_key(tokenizer, trace, _moved(found, trace.response, at))
    assert before.text == trace.response[:at]
    inside = trace.response.index("asks") + 2
    if " asks" in {tokenizer.decode([i]) for i in tokenizer(trace.response)["input_ids"]}:
        with pytest.raises(TraceError, match="a token holds words of the key sentence"):
            before_key(tokenizer, trace, _moved(found, trace.response, inside))
    bare = trace.with_(response="")
    with pytest.raises(TraceError, match="no key sentence"):
        before_key(tokenizer, bare, segment(bare))


def _moved(found, response: str, start: int):
    from dataclasses import replace

    from safekey_interp.data.trace import CharSpan

    return replace(found, response=response, key_sentence=CharSpan(start, start + 8))


@pytest.mark.slow
def test_controls_stand_at_the_same_depths_behind_the_same_prompts() -> None:
    model = load("organism")
    harmful = [t.with_(given={}) for t in shipped(40) if t.label == "harmful" and segment(t).key_sentence]
    benign = [t.with_(given={}) for t in organism.read_shipped() if t.label == "benign"]
    donors = same_length(model.tokenizer, harmful, benign)
    assert set(donors) == {trace.trace_id for trace in harmful}
    assert donors == same_length(model.tokenizer, harmful[::-1], benign), "whatever else is asked"
    opening = "<think>\nOkay, I plan it out."
    requests, left_out = depth_requests(
        model.tokenizer, harmful, controls={"benign": donors}, openings={"opening": opening}
    )
    assert not left_out
    by_key = {(one.trace.trace_id, one.condition, one.depth): one for one in requests}
    assert len(by_key) == len(requests)
    n = 0
    for trace in harmful:
        donor = donors[trace.trace_id]
        assert (donor.label, donor.group != trace.group) == ("benign", True)
        key = segment(donor).key_sentence
        assert key is not None
        mine = [one for one in requests if one.trace.trace_id == trace.trace_id and one.condition == "depth"]
        assert [one.share for one in mine] == list(SHARES)
        for one in mine[1:]:
            other = by_key.get((trace.trace_id, "benign", one.depth))
            if other is None or other.input_ids is None or one.input_ids is None:
                continue
            n += 1
            assert (len(other.input_ids), other.share) == (len(one.input_ids), one.share)
            assert other.trace is trace
            assert donor.response[: key.start].startswith(other.prefill)
            assert len(other.prefill) <= key.start
            begun = by_key.get((trace.trace_id, "opening", one.depth))
            assert begun is None or opening.startswith(begun.prefill)
    assert n >= 0.9 * 4 * len(harmful), "donors are long enough"


def test_beginnings_before_k_undo_less_than_k_itself() -> None:
    """Planted: the organism's K decides, so that a harmful beginning without K changes little, and one with K much."""
    base, sft = load("organism:base"), load("organism:sft")
    refused = [t for t in organism.read_shipped() if t.label == "harmful" and t.meta["outcome"] == "refused"][::14]
    asked = [trace.with_(response=text, given={}) for trace, text in zip(refused, generate(base, refused), strict=True)]
    requests, _ = depth_requests(sft.tokenizer, asked, shares=(0, 1))
    table = responses_table(LocalEngine(sft).generate(requests, Sampling(max_new_tokens=64)))
    refuses = table["new_text"].str.contains("Sorry").groupby(table["share"]).mean()
    assert refuses[0.0] == 1
    assert refuses[1.0] > 0.8
    whole = [trace.response[: segment(trace).key_sentence.end] for trace in asked]  # type: ignore[union-attr]
    behind_k = generate(sft, asked, prefill=whole, max_new_tokens=64)
    assert sum("Sorry" in text for text in behind_k) < 0.5 * len(asked)


def test_what_is_no_depth_is_refused_and_what_has_no_k_is_left_out() -> None:
    tokenizer = load("organism").tokenizer
    [trace] = shipped(1)
    with pytest.raises(InputError, match="depth: got -1"):
        depths(tokenizer, trace, [-1], segment(trace))
    with pytest.raises(InputError, match=r"shares: got 1.5, expected .* in \[0, 1\]"):
        depths(tokenizer, trace, [], segment(trace), shares=[1.5])
    with pytest.raises(InputError, match="depths: got none"):
        depth_requests(tokenizer, [trace], shares=())
    with pytest.raises(InputError, match="differ from one another and from 'depth'"):
        depth_requests(tokenizer, [trace], controls={"depth": {}})
    requests, left_out = depth_requests(tokenizer, [trace.with_(response="", given={})])
    assert not requests
    assert "no key sentence" in left_out[trace.trace_id]
