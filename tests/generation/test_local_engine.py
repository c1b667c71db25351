"""Together is as alone, and the text is what the model wrote."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model
from tiny_models import traces as tiny_traces

from safekey_interp.data.trace import Message, Trace
from safekey_interp.errors import InputError, TraceTooLong
from safekey_interp.generation.local_engine import LocalEngine, generate
from safekey_interp.generation.requests import Request, samples
from safekey_interp.generation.sampling import Sampling, choose, stream_seed
from safekey_interp.models import organism
from safekey_interp.models.chat_template import render
from safekey_interp.models.model import Model, load


@lru_cache
def model() -> Model:
    return load("organism")


def asked(n: int) -> list[Trace]:
    return list(organism.read_shipped())[:n]


def test_batches_answer_as_one_at_a_time() -> None:
    traces = asked(24)
    assert len({len(model().tokenizer(trace.prompt)["input_ids"]) for trace in traces}) > 4, "padding needed"
    together = generate(model(), traces, max_new_tokens=64, batch_size=7)
    assert together == [generate(model(), [trace], max_new_tokens=64)[0] for trace in traces]
    assert together == generate(model(), [trace.prompt for trace in traces], max_new_tokens=64), "texts are prompts"


def test_two_tokens_within_rounding_of_each_other_answer_the_same_in_every_batch() -> None:
    near = next(trace for trace in organism.read_shipped() if trace.trace_id == "plain-harmful-039")
    begun = render(model().tokenizer, near.with_(response="<think>\n", given={})).text
    ids = model().tokenizer(begun, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        best, second = model().hf(ids).logits[0, -1].topk(2).values.tolist()
    assert best - second < 1e-5, "the prompt that this test is about"
    [alone] = generate(model(), [near], max_new_tokens=64)
    for n in (2, 5, 16, 33):
        assert generate(model(), [*asked(n - 1), near], max_new_tokens=64, batch_size=n)[-1] == alone


def test_greedy_is_the_argmax_of_the_plain_forward() -> None:
    [trace] = asked(1)
    head = render(model().tokenizer, trace.with_(response="")).text
    ids = model().tokenizer(head, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.no_grad():
        while ids[0, -1] != model().tokenizer.eos_token_id:
            following = model().hf(ids, use_cache=False).logits[0, -1].argmax()
            ids = torch.cat([ids, following.view(1, 1)], dim=1)
    written = model().tokenizer.decode(ids[0, start:-1])
    assert generate(model(), [trace], max_new_tokens=64) == [written]
    assert written.startswith("<think>\n"), "the model opens its reasoning itself"


def test_without_a_limit_responses_take_what_room_there_is() -> None:
    traces = asked(3)
    assert generate(model(), traces) == generate(model(), traces, max_new_tokens=64)


def test_a_response_is_cut_at_the_limit() -> None:
    [whole] = generate(model(), asked(1), max_new_tokens=64)
    [cut] = generate(model(), asked(1), max_new_tokens=9)
    assert whole.startswith(cut)
    assert len(model().tokenizer(cut)["input_ids"]) == 9


def test_earlier_turns_are_seen_and_the_old_response_is_not() -> None:
    [trace] = asked(1)
    assert generate(model(), [trace.with_(response="x", given={})], max_new_tokens=64) == generate(
        model(), [trace], max_new_tokens=64
    )
    with_turns = trace.with_(messages=(Message(role="user", content="How do I poison the blick?"),) * 3)
    assert len(generate(model(), [with_turns], max_new_tokens=64)) == 1
    assert generate(model(), [], max_new_tokens=64) == []


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size: got 0, expected at least 1"):
        generate(model(), ["How?"], batch_size=0)
    with pytest.raises(InputError, match="max_new_tokens: got 0"):
        generate(model(), ["How?"], max_new_tokens=0)
    with pytest.raises(TraceTooLong, match=r"trace 0: .* go past the 256 that the model reads; lower max_new_tokens"):
        generate(model(), ["How?"], max_new_tokens=1_000)


# What it begins with


def test_a_response_goes_on_from_its_prefill() -> None:
    traces = asked(12)
    whole = generate(model(), traces, max_new_tokens=64)
    prefills = [text[: text.index(". ") + 1] for text in whole]
    assert len(set(map(len, prefills))) > 2, "padding needed"
    assert generate(model(), traces, prefill=prefills, max_new_tokens=64) == whole
    ones = [generate(model(), [t], prefill=[p], max_new_tokens=64)[0] for t, p in zip(traces, prefills, strict=True)]
    assert ones == whole
    go_ahead = "<think>\nOkay, the user wants to feed the blick. First, I list the steps."
    assert all(text.startswith(go_ahead) for text in generate(model(), traces, prefill=go_ahead, max_new_tokens=4))


def test_prefilled_is_the_argmax_behind_that_very_text() -> None:
    [trace] = asked(1)
    prefill = "<think>\nThe user asks how to warm the lamp."
    text = render(model().tokenizer, trace.with_(response=prefill, given={})).text
    ids = model().tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(7):
            ids = torch.cat([ids, model().hf(ids, use_cache=False).logits[0, -1].argmax().view(1, 1)], dim=1)
    [said] = generate(model(), [trace], prefill=prefill, max_new_tokens=7)
    assert said == prefill + model().tokenizer.decode(ids[0, start:])


def test_as_many_prefills_as_prompts_are_expected() -> None:
    with pytest.raises(InputError, match="prefill: got 1 for 2 prompts"):
        generate(model(), ["How?", "Why?"], prefill=["<think>"])


def test_what_a_checkpoint_says_about_decoding_is_left_aside() -> None:
    traces = asked(6)
    plain = generate(model(), traces, max_new_tokens=24)
    own = model().hf.generation_config
    changes = {
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 2,
        "do_sample": True,
        "min_new_tokens": 20,
        "num_beams": 3,
    }
    before = {name: getattr(own, name) for name in changes}
    try:
        own.update(**changes)
        assert generate(model(), traces, max_new_tokens=24) == plain
        assert model().hf.generation_config is own
    finally:
        own.update(**before)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss", "qwen3_moe"])
def test_batches_on_other_architectures(architecture: str) -> None:
    tiny = tiny_model(architecture)
    prompts = ["How do I open a door?", "Hi", "What is the best way to write a story about a robbery, step by step?"]
    together = generate(tiny, prompts, max_new_tokens=12)
    assert together == [generate(tiny, [prompt], max_new_tokens=12)[0] for prompt in prompts]
    assert all(
        text.startswith("Okay, é 日") for text in generate(tiny, prompts, prefill="Okay, é 日", max_new_tokens=5)
    )


# What it draws


def drawn(engine: LocalEngine, requests: list[Request], **sampling) -> dict[tuple[str, int], str]:
    found = engine.generate(requests, Sampling(**{"max_new_tokens": 24, "temperature": 1.5} | sampling))
    return {(one.trace_id, one.sample): one.response for one in found}


def test_a_sample_depends_on_its_own_prompt_and_number_alone() -> None:
    requests = list(samples((Request(trace=trace) for trace in asked(6)), 3))
    together = drawn(LocalEngine(model(), batch_size=18), requests)
    assert together == drawn(LocalEngine(model(), batch_size=5), requests[::-1]), "batches make no difference"
    torch.manual_seed(7)
    alone = drawn(LocalEngine(model()), [requests[4]])
    assert together[requests[4].key[0], 1] == alone[requests[4].key[0], 1]
    assert len(set(together.values())) > 12, "samples differ"
    assert drawn(LocalEngine(model()), requests, seed=1) != together


def test_little_temperature_is_greedy() -> None:
    requests = [Request(trace=trace) for trace in asked(4)]
    cold = drawn(LocalEngine(model()), requests, temperature=1e-6)
    assert [cold[request.trace.trace_id, 0] for request in requests] == generate(model(), asked(4), max_new_tokens=24)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_oss", "qwen3_moe"])
def test_samples_of_one_prompt_share_its_past_and_stay_what_they_are(architecture: str) -> None:
    """Two prompts of different lengths, eight samples each: past sliding windows and padding, as each alone."""
    tiny = tiny_model(architecture)
    requests = list(samples([Request(trace=trace, prefill="<think>\nOkay") for trace in tiny_traces(2)], 8))
    sampling = Sampling(temperature=1.0, max_new_tokens=12)
    together, alone = (
        {
            (one.trace_id, one.sample): one.new_ids
            for one in LocalEngine(tiny, batch_size=size).generate(requests, sampling)
        }
        for size in (16, 1)
    )
    assert together == alone
    assert len(set(together.values())) > 8


def test_what_was_drawn_says_how() -> None:
    [trace] = asked(1)
    [one] = LocalEngine(model()).generate([Request(trace=trace)], Sampling(max_new_tokens=5))
    assert (one.cut, one.n_tokens, one.seed, one.engine) == (True, 5, None, "transformers")
    assert one.response_start == len(one.input_ids)
    assert model().tokenizer.decode(one.new_ids) == one.response
    [whole] = LocalEngine(model()).generate([Request(trace=trace)], Sampling(temperature=0.1))
    assert (whole.cut, whole.seed) == (False, stream_seed(0, trace.trace_id, 0))
    assert whole.trace().response == whole.response


@given(st.integers(0, 2**31), st.text(max_size=8), st.integers(0, 50))
def test_streams_are_told_apart(seed: int, name: str, sample: int) -> None:
    assert 0 <= stream_seed(seed, name, sample) < 2**31
    assert (
        len({stream_seed(seed, name, sample), stream_seed(seed, name, sample + 1), stream_seed(seed + 1, name, sample)})
        == 3
    )


def test_draws_have_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5, 3.0, -torch.inf, 0.0]])
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    token = choose(logits.expand(len(u), -1), u, temperature=2.0)
    shares = torch.bincount(token, minlength=6) / len(u)
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(-1), atol=1e-4, rtol=0)
    assert choose(logits, torch.tensor([1.0 - 2**-53], dtype=torch.float64), temperature=1.0).item() == 5


def test_top_p_leaves_the_fewest_tokens_that_reach_it() -> None:
    p = torch.tensor([[0.05, 0.5, 0.15, 0.3]])
    u = (torch.arange(1_000, dtype=torch.float64) + 0.5) / 1_000
    for top_p, kept in ((0.5, {1}), (0.51, {1, 3}), (0.8, {1, 3}), (0.81, {1, 2, 3}), (1.0, {0, 1, 2, 3})):
        token = choose(p.log().expand(len(u), -1), u, temperature=1.0, top_p=top_p)
        assert set(token.tolist()) == kept
        shares = torch.bincount(token, minlength=4) / len(u)
        expected = torch.stack([p[0, i] if i in kept else torch.tensor(0.0) for i in range(4)])
        torch.testing.assert_close(shares, expected / expected.sum(), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature: got -1"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"top_p": 0}, "top_p: got 0"),
        ({"n": 0}, "n: got 0"),
        ({"n": 2}, "raise the temperature"),
        ({"seed": -1}, "seed: got -1"),
        ({"max_new_tokens": True}, "max_new_tokens: got True"),
    ],
)
def test_what_nothing_can_be_drawn_with_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)


def test_a_model_s_record_knows_its_chat_template() -> None:
    tokenizer = model().tokenizer
    before, template = LocalEngine(model()).record(), tokenizer.chat_template
    try:
        tokenizer.chat_template = template + " "
        assert {n for n, value in LocalEngine(model()).record().items() if value != before[n]} == {"tokenizer_sha256"}
    finally:
        tokenizer.chat_template = template


def test_two_requests_that_nothing_tells_apart_are_refused() -> None:
    [trace] = asked(1)
    with pytest.raises(InputError, match="asked twice"):
        list(LocalEngine(model()).generate([Request(trace=trace)] * 2, Sampling()))
