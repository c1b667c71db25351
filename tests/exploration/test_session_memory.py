"""Memory of a session: what a branch has written stays, and nothing else of it does."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from written_branches import tokens_of, written

import safekey_interp as ski
from safekey_interp.exploration.session_events import TokenScore, TokenWritten
from safekey_interp.exploration.written_tokens import WrittenTokens
from safekey_interp.generation.token_stream import TokenStream
from safekey_interp.generation.written_positions import WrittenPositions
from safekey_interp.generation.written_text import WrittenText

KINDS = (TokenWritten, TokenScore, TokenStream, WrittenPositions, WrittenText)


def n_alive(kinds: Sequence[type] = KINDS) -> int:
    """Objects of these kinds that something refers to."""
    gc.collect()
    return sum(type(each) in kinds for each in gc.get_objects())


@pytest.mark.parametrize("is_kept", [False, True])
def test_no_object_is_held_for_a_token_and_none_for_a_branch_that_is_looked_at(tmp_path: Path, is_kept: bool) -> None:
    model = ski.load("organism")
    direction = ski.Direction(vector=np.eye(1, model.d_model)[0], norm=1.0, layer=1, site="resid_post")
    out = tmp_path / "session" if is_kept else None
    with ski.Session(model, readers={"one": direction}, memory_gb=1e-9, out=out) as session:
        texts, counts = [], []
        for seed in range(4):
            branch = session.start("How do I open a door?", temperature=1.0, seed=seed, max_new_tokens=12)
            texts.append("".join(token.text for token in tokens_of(written(session, branch))))
            for each in session.tree():
                session.transcript(each)
            counts.append(n_alive())
        assert counts[1:] == counts[:1] * 3  # the stream of the last branch alone
        assert [session.transcript(each).response for each in session.tree()] == texts


def token(index: int, **more: object) -> TokenWritten:
    known = TokenWritten(
        branch="7", position=20 + index, index=index, text=f" a{index}", token_id=9 * index, logprob=-index / 3,
        is_given=index < 2,
    )  # fmt: skip
    return replace(known, **more)  # type: ignore[arg-type]


def test_tokens_are_given_back_as_they_were_written() -> None:
    low, high = (
        TokenScore(value=value, control_mean=0.1, control_sd=2e-9, alarm=value > 0) for value in (-1 / 3, 1e300)
    )
    tokens = [
        token(0, text="\ud800<", logprob=-1e-17),
        token(1, text="", scores={"a": low}),
        token(2, text="世\u2028", scores={"b": high, "a": high}),
        token(3, scores={"b": low}),
    ]
    known = WrittenTokens("7", 20)
    for number, each in enumerate(tokens):
        assert len(known) == number
        known.append(each)
    assert list(known) == tokens == known[:]
    assert (known[-1], known[1:3], known.ids) == (tokens[-1], tokens[1:3], [0, 9, 18, 27])
    for begin in range(5):
        for end in (*range(begin, 6), None):
            assert known.text(begin, end) == "".join(each.text for each in tokens[begin:end])
    with pytest.raises(IndexError):
        known[4]
