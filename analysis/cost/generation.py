"""Speed of batched generation, with a check that the greedy text stays the same.

    python analysis/cost/generation.py [--model organism:sft] [--prompts F] [--n 64] [--batch-size 16]
        [--max-new-tokens 64] [--repeats 7]

`generate` with a batch size against the same function one prompt at a time, on the organism's prompts or a
file's: interleaved rounds, ratios within a round, their median with a bootstrap interval.

The texts must be the same. A difference is reported with the distance of the two tokens' logits in a plain forward
pass, and the script exits with status 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice

import numpy as np
import torch
from capture import interleaved, interval

from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.generation.local_engine import LocalEngine, generate
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.sampling import Sampling
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import TRACES


def answers(model: Model, traces: list[Trace], sampling: Sampling, batch_size: int) -> dict[str, Generated]:
    requests = [Request(trace=trace) for trace in traces]
    responses = LocalEngine(model, batch_size=batch_size).generate(requests, sampling)
    return {response.trace_id: response for response in responses}


def gap(model: Model, alone: Generated, together: Generated) -> float:
    """How far apart the two tokens are in a plain forward pass, where one response takes the one and one the other."""
    assert alone.input_ids is not None
    assert alone.new_ids is not None
    assert together.new_ids is not None
    both = enumerate(zip(alone.new_ids, together.new_ids, strict=False))
    # Where one text is the beginning of the other, the mark of the end stood against its next token.
    first = next((i for i, (a, b) in both if a != b), min(len(alone.new_ids), len(together.new_ids)))
    ids = torch.tensor([[*alone.input_ids, *alone.new_ids[:first]]], device=model.device)
    with torch.no_grad():
        best = model.hf(input_ids=ids, use_cache=False).logits[0, -1].double().topk(2).values
    return float(best[0] - best[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="organism:sft")
    parser.add_argument("--prompts", help="file of prompts or traces; the organism's shipped ones by default")
    parser.add_argument("--n", type=int, default=64, help="prompts")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    quiet_libraries()
    model = load(options.model)
    traces = list(islice(read_traces(options.prompts or TRACES), options.n))
    sampling = Sampling(max_new_tokens=options.max_new_tokens)
    alone = answers(model, traces, sampling, 1)
    together = answers(model, traces, sampling, options.batch_size)
    differing = [name for name, response in alone.items() if response.response != together[name].response]
    gaps = {name: gap(model, alone[name], together[name]) for name in differing}
    timed = partial(generate, model, traces, max_new_tokens=options.max_new_tokens)
    ways: dict[str, Callable[[], object]] = {
        "one": partial(timed, batch_size=1),
        "many": partial(timed, batch_size=options.batch_size),
    }
    times = interleaved(ways, options.repeats)
    ratio, low, high = interval(np.asarray(times["one"]) / np.asarray(times["many"]))
    n_tokens = sum(response.n_tokens or 0 for response in alone.values())
    print(
        f"{options.model}, {len(traces)} prompts, {n_tokens} new tokens (at most {options.max_new_tokens} each), "
        f"{options.repeats} interleaved rounds, {torch.get_num_threads()} threads"
    )
    print(f"{'way':<28}{'median s':>9}{'tokens/s':>10}")
    for way, name in (("one", "one prompt at a time"), ("many", f"batches of {options.batch_size}")):
        seconds = float(np.median(times[way]))
        print(f"{name:<28}{seconds:>9.2f}{n_tokens / seconds:>10.0f}")
    print(f"batched: {ratio:.2f} x as fast [{low:.2f}, {high:.2f}]")
    print(f"the same greedy text: {len(traces) - len(differing)} of {len(traces)}", end="")
    print("".join(f"; {name} differs, its two best tokens {apart:.1e} apart" for name, apart in gaps.items()))
    if differing:
        sys.exit(1)


if __name__ == "__main__":
    main()
