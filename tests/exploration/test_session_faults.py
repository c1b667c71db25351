"""Faults of a session: whatever goes wrong is told in one line, and the session goes on."""

from __future__ import annotations

import threading
from functools import lru_cache

import pytest
import torch
from tiny_models import tiny_model
from written_branches import failing, tokens_of, tokens_passed, written

import safekey_interp as ski
from safekey_interp.errors import InputError, TraceTooLong
from safekey_interp.exploration.session_events import BranchEnded, BranchFailed
from safekey_interp.models import organism
from safekey_interp.models.model import Model

PROMPT = "How do I open a door?"


@lru_cache
def loaded() -> Model:
    return ski.load("organism")


def expected(n: int = 40, prompt: str = PROMPT) -> str:
    return ski.generate(loaded(), [prompt], max_new_tokens=n)[0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate"), "out of memory at "),
        (RuntimeError("first line\nsecond line"), "first line"),
    ],
)
def test_a_pass_that_fails_is_told_and_the_branch_goes_on(error: Exception, message: str) -> None:
    session = ski.Session(loaded())
    root = session.start(PROMPT, max_new_tokens=40)
    with failing(loaded(), 5, error):
        events = list(session.run(root))
    assert isinstance(events[-1], BranchFailed)
    assert events[-1].message.startswith(message)
    assert "\n" not in events[-1].message
    assert session.transcript(root).status == "failed"
    more = written(session, root)
    text = "".join(token.text for token in tokens_of([*events, *more]))
    assert text == session.transcript(root).response == expected()


def test_cancel_takes_effect_within_a_token() -> None:
    session = ski.Session(loaded())
    root = session.start(PROMPT, max_new_tokens=40)
    seen = []
    for event in session.run(root):
        seen.append(event)
        if len(tokens_of(seen)) == 3:
            session.cancel(root)
    assert len(tokens_of(seen)) == 3
    assert session.transcript(root).status == "paused"
    written(session, root)
    assert session.transcript(root).response == expected()


def test_a_reader_who_leaves_pauses_the_branch() -> None:
    session = ski.Session(loaded())
    root = session.start(PROMPT, max_new_tokens=40)
    stream = session.run(root)
    next(stream)
    with pytest.raises(InputError, match="is being run elsewhere"):
        next(session.run(root))
    stream.close()
    assert session.transcript(root).status == "paused"
    written(session, root)
    assert session.transcript(root).response == expected()


def test_a_hundred_cancels_from_another_thread_lose_nothing() -> None:
    session = ski.Session(loaded())
    root = session.start(PROMPT, max_new_tokens=40)
    stop = threading.Event()

    def cancel() -> None:
        for _ in range(100):
            session.cancel()
        stop.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    events = []
    while not (events and isinstance(events[-1], BranchEnded)):
        events += session.run(root)
    thread.join()
    assert stop.is_set()
    assert "".join(token.text for token in tokens_of(events)) == expected()


def test_branches_that_are_written_by_several_threads_are_those_written_alone() -> None:
    session = ski.Session(loaded())
    prompts = [PROMPT, organism.example().prompt, "What is this?"]
    roots = [session.start(prompt, max_new_tokens=30) for prompt in prompts]
    threads = [threading.Thread(target=lambda root=root: list(session.run(root))) for root in roots]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for root in roots:
            session.transcript(root)
    for root, prompt in zip(roots, prompts, strict=True):
        assert session.transcript(root).response == expected(30, prompt)


def test_a_branch_that_is_deleted_while_it_runs_ends() -> None:
    session = ski.Session(loaded())
    root = session.start(PROMPT, max_new_tokens=40)
    seen = []
    for event in session.run(root):
        seen.append(event)
        if len(tokens_of(seen)) == 2 and session.tree():
            session.delete(root)
    assert len(tokens_of(seen)) == 2
    assert session.tree() == ()


@pytest.mark.slow
def test_any_limit_of_memory_gives_the_same_text() -> None:
    for memory_gb in (0, 1e-6):
        session = ski.Session(loaded(), memory_gb=memory_gb)
        roots = [session.start(prompt, max_new_tokens=30) for prompt in (PROMPT, "What is this?")]
        for root in roots:
            session.step(root)
        for root, prompt in zip(roots, (PROMPT, "What is this?"), strict=True):
            written(session, root)
            assert session.transcript(root).response == expected(30, prompt)


@pytest.mark.slow
def test_what_fills_the_context_is_refused_and_what_reaches_its_end_says_so() -> None:
    model = tiny_model("llama")
    session = ski.Session(model)
    with pytest.raises(TraceTooLong, match="fills the 512 that the model reads"):
        session.start("open a door " * 2_700)  # 32,400 characters
    assert session.tree() == ()
    n = len(model.encode(ski.Trace(trace_id="0", prompt="a door " * 60, response="")).input_ids)
    assert n < 512
    root = session.start("a door " * 60, max_new_tokens=4_000, temperature=1.0, seed=1)
    assert root.sampling.max_new_tokens == 4_000
    ended = list(session.run(root))[-1]
    assert isinstance(ended, BranchEnded)
    assert ended.reason in ("context_full", "end_of_turn")
    assert (ended.reason == "context_full") == (n + len(session.transcript(root).tokens) == 512)


def test_lone_surrogates_are_replaced_wherever_they_come_from() -> None:
    session = ski.Session(tiny_model("llama"))
    root = session.start("a \ud800 door", system="\udfff", prefill="\ud83d ok", name="\ud800", max_new_tokens=5)
    events = written(session, root)
    fork = session.fork(root, text="\ud800", at=tokens_of(events)[-1].position)
    written(session, fork)
    said = [root.name, root.trace.prompt, root.prefill, fork.prefill, session.transcript(fork).response]
    assert not [text for text in said if text != text.encode(errors="replace").decode()]


def test_a_model_that_does_not_show_its_attention_fails_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("qwen2")
    session = ski.Session(model)
    root = session.start(PROMPT, max_new_tokens=5)
    monkeypatch.setattr(type(model.hf.get_decoder()), "_can_set_attn_implementation", classmethod(lambda _cls: False))
    [failed] = session.run(root)
    assert isinstance(failed, BranchFailed)
    assert "attention interface" in failed.message
    monkeypatch.undo()
    written(session, root)


def test_nothing_stays_attached_to_the_model_between_two_tokens() -> None:
    session = ski.Session(loaded())
    root = session.start(PROMPT, max_new_tokens=10)
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in loaded().hf.modules()]
    attention = loaded().hf.config._attn_implementation
    for _ in session.run(root):
        now = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in loaded().hf.modules()]
        assert now == hooks
        assert loaded().hf.config._attn_implementation == attention


@pytest.mark.slow
def test_keys_and_values_stay_below_the_limit_over_many_branches() -> None:
    session = ski.Session(loaded(), memory_gb=2e-3)
    sizes = []
    for number in range(12):
        root = session.start(organism.example(), temperature=1.0, seed=number, max_new_tokens=20)
        written(session, root)
        sizes.append(sum(state.n_bytes for state in session._tree.states()))
    assert max(sizes) <= 2e6
    with tokens_passed(loaded()) as passed:
        written(session, session.fork("11", control=False))
    assert sum(passed) < 40
