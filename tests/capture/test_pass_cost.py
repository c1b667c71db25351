"""Counts, times and trials of forward passes."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import torch
from reference_forward import hook_counts
from tiny_models import tiny_model

from safekey_interp.capture import pass_cost
from safekey_interp.capture.pass_cost import NOTHING, Cost, CostElsewhere, counted_passes, timed, trial

MODEL = tiny_model("llama")


def run(rows: int, width: int) -> None:
    with torch.inference_mode():
        MODEL.hf(input_ids=torch.ones((rows, width), dtype=torch.int64), use_cache=False)


def test_passes_and_their_tokens_are_counted_and_the_hook_goes() -> None:
    before = hook_counts(MODEL.hf)
    heard: list[int] = []

    def fail() -> None:
        heard.append(1)
        if len(heard) == 3:
            raise ZeroDivisionError

    with counted_passes(MODEL, fail) as count:
        run(2, 5)
        run(1, 7)
        counted = count.passes, count.tokens
        with pytest.raises(ZeroDivisionError):
            run(4, 4)
    assert (*counted, len(heard)) == (2, 17, 3)
    assert hook_counts(MODEL.hf) == before
    run(3, 3)
    assert count.passes == 3, "nothing is counted outside of the block"


def test_a_trial_grows_until_it_takes_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pass_cost, "LONG_ENOUGH", 0.2)
    sizes = []

    def work(some: list[int]) -> None:
        sizes.append(len(some))
        time.sleep(0.03 * len(some))

    tried, cost = trial(MODEL, list(range(1000)), work)
    assert sizes[0] == 1
    assert all(before < after for before, after in pairwise(sizes))
    assert len(tried) == sizes[-1] < 1000
    assert cost.seconds >= 0.2
    few, _ = trial(MODEL, [1, 2, 3], lambda some: None)
    assert few == [1, 2, 3]


def test_a_trial_that_takes_too_long_is_given_up_between_two_passes() -> None:
    def work() -> None:
        while True:
            run(1, 4)

    cost = timed(MODEL, work, at_most=0.1)
    assert cost.at_least
    assert cost.passes > 0
    assert str(cost).startswith("more than ")
    assert dict(cost.rows())["passes"].startswith("more than ")


def test_costs_add_up_and_long_ones_name_what_is_cheaper() -> None:
    one = Cost(passes=10, tokens=100, seconds=2.0, memory=5, cheaper=(("--limit 1", 1.0),))
    two = one.times(3, at_once=2).plus(NOTHING)
    assert (two.passes, two.tokens, two.seconds, two.memory) == (30, 300, 3.0, 5)
    assert "cheaper" not in str(two)
    assert str(one.times(0.01)).startswith("about 1 pass, 1 tokens")
    assert str(one.times(0.3)).startswith("about 3 passes, ")
    assert dict(one.times(0.01).rows())["passes"] == "1"
    assert str(NOTHING).startswith("about 0 passes, ")
    long = Cost(passes=1, tokens=1, seconds=2e4, memory=1, cheaper=(("--limit 1", 3600.0), ("--all", 1e5)))
    assert "cheaper: --limit 1 (1 h 00 min)" in str(long)
    assert "--all" not in str(long), "what takes longer is no way out"
    assert {name for name, _ in CostElsewhere(3, "requests").rows()} == {
        "work",
        "passes",
        "tokens",
        "seconds",
        "memory",
    }
