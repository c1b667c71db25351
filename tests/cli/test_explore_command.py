"""Command ``explore``: one line with the address, a session that is kept, and refusals in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from explored_session import OpenTab, Served

import safekey_interp as ski
from safekey_interp.exploration.web.session_server import SessionServer

PROMPT = "How do I open a door?"


@contextmanager
def explored(
    folder: Path, *words: str, program: Sequence[str] = ("-m", "safekey_interp")
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process of its own, and what it prints."""
    typed = [sys.executable, *program, "explore", "--no-browser", "--no-fit", "--quiet", *words]
    environment = os.environ | {"PYTHONPATH": str(Path(ski.__file__).parents[1])}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(typed, cwd=folder, env=environment, text=True, **pipes)
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


HELD = """
import sys
from safekey_interp.cli.app import main
from safekey_interp.exploration.web.session_server import SessionServer

def run(server, session, ready, serve=SessionServer.run):
    layer = session.models[0].hf.get_decoder().layers[1]
    layer.register_forward_pre_hook(lambda *_: (print("a pass", flush=True), sys.stdin.readline()) and None)
    serve(server, session, ready)

SessionServer.run = run
main()
"""
"""The command, whose passes wait for a line of standard input."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 0, "kept; "), (signal.SIGTERM, 143, "safekey-interp: stopped; ")],
)
def test_a_server_that_is_told_to_end_while_it_reads_ends_in_one_line(
    tmp_path: Path, number: signal.Signals, status: int, said: str
) -> None:
    with explored(tmp_path, "--out", "kept", program=("-c", HELD)) as (process, address):
        there, answers = Served(None, address, []), []
        assert there.ask("/api/start", {"prompt": PROMPT, "run": False})[0] == 200
        lens = f"/api/lens?token={there.token}&branch=0&position=3"
        asks = threading.Thread(target=lambda: answers.append(there.ask(lens)))
        asks.start()
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "a pass\n"
        process.send_signal(number)
        asks.join(60)
        assert answers == [(503, {"error": "the server has ended"})]
        process.stdin.write("\n" * 100)
        process.stdin.flush()
        assert process.wait(60) == status
        assert process.stderr is not None
        assert process.stderr.read() == f"{said}`safekey-interp explore --run kept` opens it again\n"
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dtype", "float16"], "--dtype: got float16, expected float32, in which organism wrote session kept"),
        (["--dtype", "auto"], "--dtype: got auto, expected float32"),
        (["--limit", 3], "leave the options of reading"),
        (["--model", "organism", "--out", "other"], "leave --model, --out"),
        (["--device", "no such device"], "device no such device"),
    ],
)
def test_what_contradicts_a_saved_session_is_one_line(command, here, words, said):
    ski.Session(ski.load("organism"), out=here / "kept").close()
    ended = command("explore", "--no-browser", "--run", "kept", *words)
    assert ended.status == 2
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_saved_session_is_loaded_as_it_is_asked_to_be(command, here, monkeypatch):
    ski.Session(ski.load("organism"), out=here / "kept").close()
    served: list[ski.Session] = []
    monkeypatch.setattr(SessionServer, "run", lambda _self, session, _ready: served.append(session))
    for words in ([], ["--device", "cpu"], ["--dtype", "float32"]):
        ended = command("explore", "--no-browser", "--no-fit", "--run", "kept", *words)
        assert (ended.status, ended.out) == (0, "")
    assert len(served) == 3


def test_a_taken_port_is_said_before_a_model_is_loaded(command, here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("explore", "--no-browser", "--no-fit", "--port", port)
    assert ended.status == 2
    assert f"--port {port}" in ended.err
    assert not (here / "runs").exists()
