"""Speed of a session against transformers' own cached decoding, and the cost of a fork.

    python analysis/cost/explore.py [--model organism] [--new-tokens 256] [--at 200] [--repeats 9]

Tokens a second of `Session.run` with attention read at every token and one probe with 20 control vectors, against
`model.generate` of transformers and against a bare loop around the model's forward pass, for the same tokens: greedy,
the end of a turn ignored in all of them. Then a fork at a token near the end, against the time that its parent took for
as many new tokens. Interleaved rounds, ratios within a round, their median with a bootstrap interval; processor time,
so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from capture import interval
from transformers.cache_utils import DynamicCache

from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.session_events import TokenWritten
from safekey_interp.generation.requests import Request
from safekey_interp.generation.tokens import prompt_tokens
from safekey_interp.measures.probes import Probe
from safekey_interp.models.model import Model, load
from safekey_interp.models.organism import example

Ways = dict[str, Callable[[], object]]


def endless(model: Model) -> Model:
    """The model, with no token that ends a turn."""
    model.hf.generation_config.eos_token_id = None
    model.tokenizer.eos_token = None
    return model


def random_probe(model: Model) -> Probe:
    """A probe of noise, with controls: its place in the model is what costs time."""
    rows = np.random.default_rng(0).standard_normal((60, model.d_model))
    groups = [str(number) for number in range(60)]
    return Probe.fit(rows, ["harmful", "benign"] * 30, groups, layer=model.n_layers // 2, site="resid_post")


def written(session: Session, n: int) -> tuple[float, list[int]]:
    """Processor time of a new branch of ``n`` tokens, and the tokens."""
    root = session.start(example().prompt, max_new_tokens=n)
    begin = time.process_time()
    tokens = [event.token_id for event in session.run(root) if isinstance(event, TokenWritten)]
    took = time.process_time() - begin
    session.delete(root)
    return took, tokens


def generated(model: Model, ids: torch.Tensor, n: int) -> tuple[float, list[int]]:
    """The same of ``generate`` of transformers."""
    begin = time.process_time()
    with torch.no_grad():
        out = model.hf.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, use_cache=True,
            pad_token_id=0,
        )  # fmt: skip
    return time.process_time() - begin, out[0, ids.shape[1] :].tolist()


def looped(model: Model, ids: torch.Tensor, n: int) -> tuple[float, list[int]]:
    """The same of a loop around the forward pass that does nothing else."""
    begin, tokens, cache = time.process_time(), [], DynamicCache(config=model.hf.config)
    with torch.inference_mode():
        for _ in range(n):
            out = model.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(int(ids))
    return time.process_time() - begin, tokens


def forked(session: Session, n: int, at: int) -> tuple[float, float]:
    """Processor time of a fork's new tokens behind token ``at``, and of its parent's."""
    root = session.start(example().prompt, max_new_tokens=n)
    times = [time.process_time()]
    for event in session.run(root):
        if isinstance(event, TokenWritten):
            times.append(time.process_time())
    place = session.transcript(root).tokens[at].position
    begin = time.process_time()
    fork = session.fork(root, at=place, control=False)
    new = [event for event in session.run(fork) if isinstance(event, TokenWritten) and not event.is_given]
    took = time.process_time() - begin
    of_parent = (times[-1] - times[at]) * len(new) / (n - at)
    session.delete(root)
    return took, of_parent


def main() -> None:
    """Measure, and print one line a ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="organism")
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--at", type=int, default=200, help="token of the response at which a fork leaves")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    quiet_libraries()
    model = endless(load(options.model))
    session = Session(model, readers=random_probe(model))
    root = session.start(example().prompt, max_new_tokens=1)
    prompt = prompt_tokens(model.tokenizer, Request(trace=root.trace)).ids
    inputs = torch.tensor([prompt], device=model.device)
    n = min(options.new_tokens, (model.max_positions or 10**9) - len(prompt))
    at = min(options.at, n - 20)
    ways = {
        "session": partial(written, session, n),
        "generate": partial(generated, model, inputs, n),
        "loop": partial(looped, model, inputs, n),
    }
    texts = {name: way()[1] for name, way in ways.items()}  # also the warm-up
    same = sum(a == b for a, b in zip(texts["session"], texts["generate"], strict=True))
    times = {name: np.zeros(options.repeats) for name in ways}
    forks = np.zeros((options.repeats, 2))
    for number in range(options.repeats):
        for name, way in ways.items():
            times[name][number] = way()[0]
        forks[number] = forked(session, n, at)
    print(
        f"{model.name}: {n} new tokens, {same} the same from session and generate; medians of {options.repeats} rounds"
    )
    for name in ways:
        print(f"  {name}: {np.median(times[name]) / n * 1e3:.2f} ms a token")
    for name in ("generate", "loop"):
        ratio, low, high = interval(times[name] / times["session"])
        print(f"  tokens a second, session / {name}: {ratio:.2f} [{low:.2f}, {high:.2f}]")
    ratio, low, high = interval(forks[:, 0] / forks[:, 1])
    print(f"  fork at token {at} / its parent's time for as many tokens: {ratio:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
