"""Together is as alone, and the text is what the model wrote."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from safekey_interp import organism
from safekey_interp.errors import InputError, TraceTooLong
from safekey_interp.generation import generate
from safekey_interp.models import Model, load
from safekey_interp.rendering import render
from safekey_interp.trace import Message, Trace


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
