"""Run folder of a session: what was written is there again, whatever ended the process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from written_branches import written

import safekey_interp as ski
from safekey_interp.errors import ModelError, RunError
from safekey_interp.exploration.session_events import BranchFailed
from safekey_interp.models import organism
from safekey_interp.models.model import Model

HOSTILE = "</script>\x1b[31m\ud800 \u2028"


@lru_cache
def loaded() -> Model:
    return ski.load("organism")


def direction() -> ski.Direction:
    rng = np.random.default_rng(1)
    labels = ["harmful", "benign"] * 15
    rows = rng.standard_normal((30, loaded().d_model))
    return ski.Direction.fit(rows, labels, [str(n) for n in range(30)], layer=1, site="resid_post")


def saved(folder: Path) -> ski.Session:
    session = ski.Session(loaded(), readers={"harm": direction()}, out=folder, traces=[organism.example()])
    root = session.start(organism.example(), max_new_tokens=30, name=HOSTILE)
    written(session, root)
    fork = session.fork(root, edits=[ski.HideSpan("understanding"), ski.Steer(direction(), scale=2.0)])
    written(session, fork)
    session.rename(fork, "hidden")
    gone = session.fork(root, control=False)
    session.delete(gone)
    half = session.start("What is this?", temperature=1.0, seed=4, max_new_tokens=20)
    for _ in range(5):
        session.step(half)
    return session


def test_a_session_that_is_opened_again_is_as_it_was_and_goes_on(tmp_path: Path) -> None:
    session = saved(tmp_path / "run")
    before = {branch.branch_id: session.transcript(branch) for branch in session.tree()}
    with pytest.raises(RunError, match="another process"):
        ski.Session.open(tmp_path / "run", models=loaded())
    session.close()
    with ski.Session.open(tmp_path / "run", models=loaded()) as again:
        assert [branch.branch_id for branch in again.tree()] == list(before)
        for branch in again.tree():
            known, now = before[branch.branch_id], again.transcript(branch)
            assert (now.response, now.status, now.spans, now.ended) == (
                known.response, known.status, known.spans, known.ended,
            )  # fmt: skip
            assert [token.text for token in now.tokens] == [token.text for token in known.tokens]
            for one, other in zip(now.tokens, known.tokens, strict=True):
                assert one.scores["harm"] == other.scores["harm"]
            assert (now.branch.name, now.branch.change, now.branch.prefill) == (
                known.branch.name, known.branch.change, known.branch.prefill,
            )  # fmt: skip
        assert [trace.trace_id for trace in again.traces] == [organism.example().trace_id]
        half = again.tree()[-1]
        assert again.transcript(half).status == "paused"
        written(again, half)
        sampling = ski.Sampling(max_new_tokens=20, temperature=1.0, seed=4)
        assert again.transcript(half).response == ski.generate(loaded(), ["What is this?"], sampling=sampling)[0]
        fork = again.tree()[1]
        np.testing.assert_allclose(again.attention(fork, 20)["mass"], session.attention(fork, 20)["mass"], atol=1e-5)
        assert max(int(branch.branch_id) for branch in again.tree()) < int(again.start("x").branch_id)


def test_a_torn_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "run").close()
    log = tmp_path / "run" / "session.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"token": {"branch": "0", "pos')
    with ski.Session.open(tmp_path / "run", models=loaded()) as again:
        assert len(again.tree()) == 4
    assert log.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], b"nonsense\n", *lines[3:]]))
    with pytest.raises(RunError, match=r"session\.jsonl, line 4: cannot be read"):
        ski.Session.open(tmp_path / "run", models=loaded())


@pytest.mark.slow
def test_wherever_the_log_ends_what_had_ended_is_there_and_the_rest_goes_on_to_the_same_text(tmp_path: Path) -> None:
    session = saved(tmp_path / "run")
    known = {branch.branch_id: session.transcript(branch) for branch in session.tree()}
    session.close()
    log = tmp_path / "run" / "session.jsonl"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    given = [number for number, line in enumerate(lines) if b'"branch": "1"' in line and b'"is_given": true' in line]
    within_prefill = len(b"".join(lines[: given[len(given) // 2]]))
    rng = np.random.default_rng(0)
    for end in (0, within_prefill, *rng.integers(len(whole), size=12)):
        log.write_bytes(whole[:end])
        had_ended = [json.loads(line)["ended"]["branch"] for line in whole[:end].splitlines(keepends=True)
                     if line.startswith(b'{"ended"') and line.endswith(b"\n")]  # fmt: skip
        for table in (tmp_path / "run" / "scores").iterdir():
            table.unlink()
        with ski.Session.open(tmp_path / "run", models=loaded()) as again:
            for branch in again.tree():
                transcript, before = again.transcript(branch), known.get(branch.branch_id)
                assert (transcript.status == "ended") == (branch.branch_id in had_ended)
                if transcript.status != "ended" and before is not None and before.ended is not None:
                    written(again, branch)
                    transcript = again.transcript(branch)
                if transcript.status == "ended" and before is not None:
                    assert [token.text for token in transcript.tokens] == [token.text for token in before.tokens]
                    assert (transcript.response, transcript.spans) == (before.response, before.spans)
                    table = pd.read_parquet(tmp_path / "run" / "scores" / f"{branch.branch_id}.parquet")
                    assert list(table["token"]) == [token.text for token in before.tokens]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A block in which the system refuses to make files larger, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 700, 2500])
def test_a_full_disk_is_one_line_and_nothing_is_lost_once_there_is_room(tmp_path: Path, room: int) -> None:
    session = ski.Session(loaded(), readers={"harm": direction()}, out=tmp_path / "run")
    root = session.start(organism.example(), max_new_tokens=30)
    log = tmp_path / "run" / "session.jsonl"
    with no_file_larger_than(log.stat().st_size + room):
        events = list(session.run(root))
        assert isinstance(events[-1], BranchFailed)
        assert "cannot be written" in events[-1].message
        assert "\n" not in events[-1].message
        n = len(session.transcript(root).tokens)
        with pytest.raises(RunError, match="cannot be written"):
            session.start("A door?", name="a door " * 500)
        with pytest.raises(RunError, match="cannot be written"):
            session.rename(root, "a door " * 500)
        assert [branch.name for branch in session.tree()] == [root.name]
    written(session, root)
    tokens = session.transcript(root).tokens
    assert len(tokens) > n
    assert session.transcript(root).response == ski.generate(loaded(), [organism.example()], max_new_tokens=30)[0]
    session.close()
    with ski.Session.open(tmp_path / "run", models=loaded()) as again:
        [branch] = again.tree()
        assert [token.token_id for token in again.transcript(branch).tokens] == [token.token_id for token in tokens]
        assert again.transcript(branch).status == "ended"


def test_the_manifest_says_whether_a_session_is_open(tmp_path: Path) -> None:
    def status() -> str:
        return json.loads((tmp_path / "run" / "run.json").read_text())["status"]

    with ski.Session(loaded(), out=tmp_path / "run"):
        assert status() == "running"
    assert status() == "complete"
    with ski.Session.open(tmp_path / "run", models=loaded()):
        assert status() == "running"
    assert status() == "complete"


@pytest.mark.slow
def test_a_killed_process_loses_no_branch_that_had_ended(tmp_path: Path) -> None:
    code = f"""
import safekey_interp as ski
session = ski.Session(ski.load("organism"), out={str(tmp_path / "run")!r})
done = session.start("How do I open a door?", max_new_tokens=20)
list(session.run(done))
for number in range(10_000):
    for event in session.run(session.start("What is this?", seed=number, temperature=1.0, max_new_tokens=200)):
        print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 2:
            break
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with ski.Session.open(tmp_path / "run", models=loaded()) as again:
        first, *others = again.tree()
        expected = ski.generate(loaded(), ["How do I open a door?"], max_new_tokens=20)[0]
        assert again.transcript(first).response == expected
        assert [again.transcript(branch).status for branch in others[:2]] == ["ended", "ended"]
        table = pd.read_parquet(tmp_path / "run" / "scores" / "0.parquet")
        assert "".join(table["token"]) == expected
        last = others[-1]
        written(again, last)  # it goes on where it was killed
        sampling = ski.Sampling(max_new_tokens=200, temperature=1.0, seed=last.sampling.seed)
        assert again.transcript(last).response == ski.generate(loaded(), ["What is this?"], sampling=sampling)[0]


def test_branches_are_traces_that_are_read_again(tmp_path: Path) -> None:
    session = ski.Session(loaded())
    turns = [ski.Message(role="user", content="Hello."), ski.Message(role="assistant", content="Hello!")]
    plain = session.start(organism.example(), max_new_tokens=20)
    turned = session.start("How do I open a door?", turns=turns, system="Be kind.", max_new_tokens=20)
    for branch in (plain, turned):
        written(session, branch)
    assert session.save_traces(tmp_path / "branches.jsonl") == 2
    first, second = ski.read_traces(tmp_path / "branches.jsonl")
    assert (first.prompt, first.response) == (organism.example().prompt, session.transcript(plain).response)
    assert (first.label, first.trace_id) == (organism.example().label, plain.branch_id)
    assert second.response == session.transcript(turned).response
    assert [turn.content for turn in second.turns] == ["Be kind.", "Hello.", "Hello!", "How do I open a door?"]


@pytest.mark.slow
def test_folders_of_others_and_weights_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        ski.Session(loaded(), out=tmp_path)
    with pytest.raises(RunError, match="no session of this package"):
        ski.Session.open(tmp_path)
    saved(tmp_path / "run").close()
    with pytest.raises(RunError, match="holds a run already"):
        ski.Session(loaded(), out=tmp_path / "run")
    with pytest.raises(ModelError, match="its weights are not those"):
        ski.Session.open(tmp_path / "run", models=ski.load("organism:safekey"))
    names: Any = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["notes.txt", "run"]
