"""Tokens of a session are those that were generated, where the tokenizer would read their text as others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from written_branches import written

import safekey_interp as ski
from safekey_interp.models.model import Model


@lru_cache
def loaded() -> Model:
    return ski.load("organism")


def tokens(text: str) -> list[int]:
    return loaded().tokenizer(text, add_special_tokens=False)["input_ids"]


def two_feeds() -> list[int]:
    """Two line feeds that are written as two tokens, and a text behind them."""
    feed, pair = tokens("\n"), tokens("\n\n")
    assert len(feed) == len(pair) == 1
    return [*tokens("<think>\nOkay, the user"), *feed, *feed]


@contextmanager
def writing(model: Model, ids: Sequence[int]) -> Iterator[None]:
    """A model that writes these tokens, one a pass, and then what it would."""
    left: list[int] = list(ids)

    def force(_module: Any, _inputs: Any, logits: torch.Tensor) -> None:
        if left:
            logits[..., -1, left.pop(0)] = 1e4

    handle = model.hf.get_output_embeddings().register_forward_hook(force)
    try:
        yield
    finally:
        handle.remove()


def ids_of(session: ski.Session, branch: ski.Branch | str) -> list[int]:
    return [token.token_id for token in session.transcript(branch).tokens]


@pytest.mark.parametrize("more", [{}, {"text": " is asking"}, {"edits": ski.HideSpan("prompt", from_="generated")}])
def test_a_fork_begins_with_the_tokens_that_its_parent_wrote(tmp_path: Path, more: dict[str, Any]) -> None:
    with ski.Session(loaded(), out=tmp_path / "run") as session:
        root = session.start("How do I open a door?", max_new_tokens=len(two_feeds()) + 3)
        with writing(loaded(), two_feeds()):
            written(session, root)
        end = session.transcript(root).response_start + len(two_feeds())
        written(session, fork := session.fork(root, at=end, **more))
        written(session, again := session.fork(fork, at=end, control=False))
        for branch in (fork, again):
            assert ids_of(session, branch)[: len(two_feeds())] == two_feeds()
        if not more:  # greedy, as the parent is
            assert ids_of(session, fork)[: len(two_feeds()) + 3] == ids_of(session, root)
            np.testing.assert_allclose(session.difference(fork).tokens["kl"], 0, atol=1e-5)
        texts = [token.text for token in session.transcript(fork).tokens]
        assert "".join(texts) == session.transcript(fork).response
        assert texts[len(two_feeds()) - 2 : len(two_feeds())] == ["\n", "\n"]
        before = {each.branch_id: session.transcript(each) for each in session.tree()}
        seen = session.token_attention(fork, end)
    with ski.Session.open(tmp_path / "run", models=loaded()) as opened:
        for name, known in before.items():
            now = opened.transcript(name)
            assert (now.branch.prefill_ids, now.response) == (known.branch.prefill_ids, known.response)
            assert now.prompt_tokens == known.prompt_tokens
            assert ids_of(opened, name) == [token.token_id for token in known.tokens]
        np.testing.assert_allclose(opened.token_attention(fork, end)["weight"], seen["weight"], atol=1e-6)
        later = opened.fork(root.branch_id, at=end, control=False)
        written(opened, later)
        assert ids_of(opened, later)[: len(two_feeds())] == two_feeds()


def test_an_edit_that_grows_together_with_what_is_before_it_is_the_tokens_of_the_text() -> None:
    [feed] = tokens("\n")
    with ski.Session(loaded()) as session:
        root = session.start("How do I open a door?", max_new_tokens=8)
        with writing(loaded(), [*two_feeds(), feed]):
            written(session, root)
        at = session.transcript(root).response_start + len(two_feeds()) - 1
        fork = session.fork(root, at=at, text="\n Okay", control=False)  # the text ends "\n" + "\n Okay"
        written(session, fork)
        given = [token.token_id for token in session.transcript(fork).tokens if token.is_given]
        assert given == [*two_feeds()[:-2], *tokens("\n\n Okay")]


def test_bytes_that_no_tokenizer_would_choose_are_gone_on_with() -> None:
    model = tiny_model("llama")
    with ski.Session(model) as session:
        root = session.start("How do I open a door?", temperature=1.0, seed=1, max_new_tokens=30)
        written(session, root)
        known = session.transcript(root)
        whole = [number for number, token in enumerate(known.tokens, 1) if token.text and "\ufffd" not in token.text]
        assert len(whole) > 5
        for n in whole:
            fork = session.fork(root, at=known.response_start + n, control=False)
            session.step(fork)
            if "\ufffd" not in fork.prefill:
                assert ids_of(session, fork)[:n] == ids_of(session, root)[:n]
