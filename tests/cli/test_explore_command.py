"""Command ``explore``: one line with the address, a session that is kept, and refusals in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from explored_session import OpenTab, Served

import safekey_interp as ski

PROMPT = "How do I open a door?"


@contextmanager
def explored(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process of its own, and what it prints."""
    typed = [sys.executable, "-m", "safekey_interp", "explore", "--no-browser", "--no-fit", "--quiet", *words]
    environment = os.environ | {"PYTHONPATH": str(Path(ski.__file__).parents[1])}
    process = subprocess.Popen(
        typed, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_killed_server_loses_no_finished_branch_and_the_folder_opens_again(tmp_path: Path) -> None:
    with explored(tmp_path, "--out", "kept") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        there = Served(None, address, [])
        assert b"Explore" in there.ask("/")[1]
        tab = OpenTab(there)
        for _ in range(2):
            assert there.ask("/api/start", {"prompt": PROMPT}, **tab.tab)[0] == 200
        tab.until(lambda message: message["type"] == "ended")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with explored(tmp_path, "--run", "kept") as (process, address):
        tab = OpenTab(Served(None, address, []))
        first, second = tab.first["branches"]
        assert (first["prompt"], second["prompt"]) == (PROMPT, PROMPT)
        [response] = ski.generate(ski.load("organism"), [PROMPT], sampling=ski.Sampling())
        assert first["ended"] is not None
        assert "".join(token["text"] for token in first["tokens"]) == response
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "kept; `safekey-interp explore --run kept` opens it again\n"


@pytest.mark.slow
def test_a_server_that_is_told_to_end_says_how_the_session_goes_on(tmp_path: Path) -> None:
    with explored(tmp_path, "--out", "kept") as (process, address):
        assert address
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr is not None
        said = "safekey-interp: stopped; `safekey-interp explore --run kept` opens it again\n"
        assert process.stderr.read() == said
    assert json.loads((tmp_path / "kept" / "run.json").read_text())["status"] == "complete"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "nowhere"], "run nowhere: no such folder"),
        (["--model", "nothing:there"], "nothing:there"),
        (["--traces", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--host", "no.such.name.invalid", "--no-fit"], "--host no.such.name.invalid"),
        (["--reader", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--port", "70000"], "--port"),
    ],
)
def test_what_cannot_be_explored_is_one_line(command, here, words, said):
    ended = command("explore", "--no-browser", *words)
    assert ended.status == 2
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert ended.out == ""


def test_a_taken_port_is_said_before_a_model_is_loaded(command, here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("explore", "--no-browser", "--no-fit", "--port", port)
    assert ended.status == 2
    assert f"--port {port}" in ended.err
    assert not (here / "runs").exists()
