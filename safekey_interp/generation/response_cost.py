"""Cost of responses, estimated by a trial: a batch of prompts of the usual length, decoded for as long as it may take.

    seconds of a batch ≈ seconds of its first n tokens + (seconds a token) · (tokens that follow)

A batch whose responses all end within the trial takes as long as the trial; of any other, one response at least is
taken to go on to the largest number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safekey_interp.capture.pass_cost import NOTHING, Cost, timed
from safekey_interp.generation.local_engine import LocalEngine
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.sampling import Sampling

_FIRST, _FACTOR = 8, 4
"""New tokens of the first trial, and how many times as many the next has."""
_ENOUGH = 10.0
"""Seconds after which no longer trial follows."""
_LONG = 3600.0


def response_cost(engine: LocalEngine, requests: Sequence[Request], sampling: Sampling) -> Cost:
    """What it costs to answer requests.

    Args:
        engine: who answers.
        requests: what is asked and not answered yet.
        sampling: how responses are drawn, with their largest number of tokens.
    """
    if not requests:
        return NOTHING
    most, size = sampling.max_new_tokens or engine.usual_limit(requests), engine.batch_size
    engine.check(requests, most)
    ordered = sorted(requests, key=lambda request: len(request.trace.prompt) + len(request.prefill))
    middle = max(0, (len(ordered) - size) // 2)
    some = ordered[middle : middle + size]
    batch = _cost_of_batch(engine, some, sampling, most)
    whole = batch.times(max(1.0, len(requests) / size))
    if whole.seconds < _LONG:
        return whole
    fewer = max(1, int(len(requests) * _LONG / whole.seconds))
    cheaper = [(f"{fewer} prompts", whole.seconds * fewer / len(requests))]
    if batch.tokens and most > _FIRST:
        shorter = max(_FIRST, most // 4)
        cheaper.append((f"--max-new-tokens {shorter}", whole.seconds * shorter / most))
    return replace(whole, cheaper=tuple(cheaper))


def _cost_of_batch(engine: LocalEngine, some: Sequence[Request], sampling: Sampling, most: int) -> Cost:
    """The cost of a batch of requests until its last response ends."""
    answers: list[Generated] = []

    def decode(n: int) -> Cost:
        def work() -> None:
            answers[:] = engine.generate(some, replace(sampling, max_new_tokens=n))

        return timed(engine.model, work)

    decode(1)  # a model's first passes are slower
    short, n = decode(1), 1
    while True:
        longer = min(most, _FIRST if n == 1 else n * _FACTOR)
        last, n = decode(longer), longer
        is_over = not any(answer.cut for answer in answers)
        if last.at_least or is_over or n == most or last.seconds >= _ENOUGH:
            break
    if is_over or n == most or last.at_least:
        return last
    steps = (most - n) / max(1, n - 1)
    return replace(
        last,
        passes=last.passes + steps * (last.passes - short.passes),
        tokens=last.tokens + steps * (last.tokens - short.tokens),
        seconds=last.seconds + steps * max(0.0, last.seconds - short.seconds),
    )
