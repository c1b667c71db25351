"""Cost of text: batched generation, a session that reads every token, and a fork of one."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from analysis.cost.bench import Bench
from analysis.cost.entry import Entry, Ways, weight_bytes
from safekey_interp.models.model import Model

_PROMPTS, _NEW, _WRITTEN, _AT = 8, 12, 48, 32


def _batched(bench: Bench) -> Ways:
    from safekey_interp.generation.local_engine import generate

    prompts = [trace.prompt for trace in bench.traces(_PROMPTS)]
    run = partial(generate, _endless(bench.model), prompts, max_new_tokens=_NEW)
    return Ways(partial(run, batch_size=_PROMPTS), partial(run, batch_size=1), n_bytes=_NEW * weight_bytes(bench))


def _session(bench: Bench):
    from safekey_interp.exploration.exploration_session import Session
    from safekey_interp.measures.probes import Probe

    model = _endless(bench.model)
    rows = np.random.default_rng(0).standard_normal((60, model.d_model))
    groups = [str(number) for number in range(60)]
    probe = Probe.fit(rows, ["harmful", "benign"] * 30, groups, layer=model.n_layers // 2, site="resid_post")
    return Session(model, readers=probe)


def _write(session, prompt: str, n: int) -> None:
    root = session.start(prompt, max_new_tokens=n)
    for _ in session.run(root):
        pass
    session.delete(root)


def _streamed(bench: Bench) -> Ways:
    from safekey_interp.generation.requests import Request
    from safekey_interp.generation.tokens import prompt_tokens

    session, prompt = _session(bench), bench.traces(1)[0].prompt
    root = session.start(prompt, max_new_tokens=1)
    ids = torch.tensor([prompt_tokens(bench.model.tokenizer, Request(trace=root.trace)).ids], device=bench.model.device)
    session.delete(root)

    def theirs() -> None:
        with torch.no_grad():
            bench.model.hf.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=_WRITTEN,
                do_sample=False,
                use_cache=True,
                pad_token_id=0,
            )

    return Ways(partial(_write, session, prompt, _WRITTEN), theirs, n_bytes=_WRITTEN * weight_bytes(bench))


def _forked(bench: Bench) -> Ways:
    session, prompt = _session(bench), bench.traces(1)[0].prompt
    parent = session.start(prompt, max_new_tokens=_WRITTEN)
    for _ in session.run(parent):
        pass
    at = session.transcript(parent).tokens[_AT].position

    def fork() -> None:
        child = session.fork(parent, at=at, control=False)
        for _ in session.run(child):
            pass
        session.delete(child)

    return Ways(fork, partial(_write, session, prompt, _WRITTEN))


def _endless(model: Model) -> Model:
    """The model, with no token that ends a turn."""
    model.hf.generation_config.eos_token_id = None
    model.tokenizer.eos_token = None
    return model


ENTRIES = (
    Entry(
        name="generation-batched",
        what=f"{_PROMPTS} prompts in one batch, {_NEW} new tokens each, greedy",
        baseline="one prompt at a time",
        ways=_batched,
    ),
    Entry(
        name="session",
        what=f"a session writes {_WRITTEN} tokens, with attention and one probe read at each",
        baseline="generate of transformers, the same tokens",
        ways=_streamed,
    ),
    Entry(
        name="fork",
        what=f"a fork at token {_AT} of a branch writes {_WRITTEN} tokens",
        baseline="a new branch, as many tokens",
        ways=_forked,
    ),
)
