"""A file of responses: none lost, doubled or asked for twice, whatever ends the process that writes it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from safekey_interp.data.trace import CharSpan, Message, Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError, ModelError, RunError
from safekey_interp.generation.requests import Generated, Request
from safekey_interp.generation.response_file import ResponseFile, settings_file
from safekey_interp.generation.response_run import write_responses
from safekey_interp.generation.sampling import Sampling


class Echo:
    """Answers with the prompt backwards, and notes what it was asked."""

    name = "echo"

    def __init__(self, *, log: Path | None = None, pause: float = 0.0, fails_at: str = "", spec: str = "echo") -> None:
        self.asked: list[tuple[str, int]] = []
        self.log, self.pause, self.fails_at, self.spec = log, pause, fails_at, spec

    def record(self) -> dict[str, Any]:
        return {"engine": self.name, "spec": self.spec}

    def usual_limit(self, requests: Sequence[Request]) -> int:
        return 5

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Generated]:
        for request in requests:
            if request.trace.trace_id == self.fails_at:
                raise ModelError("echo: no more")
            self.asked.append((request.trace.trace_id, request.sample))
            if self.log:
                with self.log.open("a") as lines:
                    lines.write(f"{request.trace.trace_id}\n")
            time.sleep(self.pause)
            response = request.prefill + request.trace.prompt[::-1] + f" {request.sample}"
            yield Generated(request=request, response=response, cut=False, n_tokens=3, engine=self.name)


def requests(n: int, start: int = 0) -> list[Request]:
    return [Request(trace=Trace(trace_id=f"p{i}", prompt=f"Wie\n„{i}“?", response="")) for i in range(start, n)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_is_read_as_traces(tmp_path: Path) -> None:
    trace = Trace(
        trace_id="a",
        prompt="Again?",
        response="",
        label="harmful",
        source="wrapped",
        group="g",
        messages=(Message(role="user", content="Again?"), Message(role="assistant", content="No.")),
        meta={"wrapper": "story", "answer": "a column that readers take for a response", "cut": "theirs"},
    )
    written = write_responses(Echo(), [Request(trace=trace, prefill="<think>")], out=tmp_path / "deep" / "a.jsonl")
    [read] = read_traces(written.path)
    assert read.response == "<think>?niagA 0"
    same = ("trace_id", "prompt", "label", "source", "group", "messages")
    assert [getattr(read, name) for name in same] == [getattr(trace, name) for name in same]
    assert read.meta["wrapper"] == "story"
    assert "answer" not in read.meta
    assert (read.meta["cut"], read.meta["prefill"], read.meta["sample"]) == (False, "<think>", 0)


def test_what_a_row_said_of_its_old_response_does_not_stay(tmp_path: Path) -> None:
    trace = Trace(
        trace_id="a", prompt="x", response="old", given={"key_sentence": CharSpan(0, 2)}, meta={"outcome": "refused"}
    )
    [read] = read_traces(write_responses(Echo(), [Request(trace=trace)], out=tmp_path / "a.jsonl").path)
    assert "outcome" not in read.meta
    assert not read.given


def test_it_goes_on_and_grows_and_asks_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with pytest.raises(ModelError):
        write_responses(Echo(fails_at="p3"), requests(6), out=out)
    engine = Echo()
    assert write_responses(engine, requests(6), out=out)[1:4] == (6, 3, 0)
    assert engine.asked == [("p3", 0), ("p4", 0), ("p5", 0)]
    engine = Echo()
    assert write_responses(engine, requests(6), out=out).n_new == 0
    warm = Sampling(temperature=1.0)
    write_responses(engine, requests(8, start=4), out=out)
    assert engine.asked == [("p6", 0), ("p7", 0)]
    assert [row["trace_id"] for row in rows(out)] == [f"p{i}" for i in range(8)]
    with pytest.raises(RunError, match=r"other settings \(sampling.temperature was 0.0, now 1.0\).*--overwrite"):
        write_responses(engine, requests(6), out=out, sampling=warm)
    samples = tmp_path / "samples.jsonl"
    write_responses(engine, requests(2), out=samples, sampling=warm)
    engine = Echo()
    assert write_responses(engine, requests(2), out=samples, sampling=Sampling(temperature=1.0, n=3)).n_new == 4
    assert engine.asked == [("p0", 1), ("p0", 2), ("p1", 1), ("p1", 2)]
    assert sorted(row["trace_id"] for row in rows(samples)) == ["p0", "p0.1", "p0.2", "p1", "p1.1", "p1.2"]


def test_the_largest_number_of_tokens_stays_what_it_was(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    write_responses(Echo(), requests(1), out=out, sampling=Sampling(max_new_tokens=7))
    assert write_responses(Echo(), requests(2), out=out).max_new_tokens == 7
    with pytest.raises(RunError, match="max_new_tokens was 7, now 8"):
        write_responses(Echo(), requests(2), out=out, sampling=Sampling(max_new_tokens=8))
    assert write_responses(Echo(), requests(2), out=out, sampling=Sampling(max_new_tokens=8), overwrite=True).n_new == 2
    assert len(rows(out)) == 2


@pytest.mark.parametrize("kept", [0, 1, 40, -2, -1])
def test_half_a_line_is_dropped_and_asked_for_again(tmp_path: Path, kept: int) -> None:
    out = tmp_path / "a.jsonl"
    write_responses(Echo(), requests(4), out=out)
    whole = out.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    out.write_bytes(whole[: last + kept] if kept >= 0 else whole[:kept])
    engine = Echo()
    write_responses(engine, requests(4), out=out)
    assert engine.asked == [("p3", 0)]
    assert out.read_bytes() == whole


def _write(folder: str) -> None:
    write_responses(Echo(log=Path(folder) / "asked", pause=0.004), requests(60), out=Path(folder) / "a.jsonl")


def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    n_kills = 0
    for wait in (0.0, 0.03, 0.11, 0.05, 0.02, 0.08, 60.0):
        process = context.Process(target=_write, args=(str(tmp_path),))
        process.start()
        process.join(wait)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            n_kills += 1
    assert process.exitcode == 0
    assert n_kills >= 4
    assert sorted(row["trace_id"] for row in rows(tmp_path / "a.jsonl")) == sorted(f"p{i}" for i in range(60))
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "a.settings.json", "asked"}
    asked = (tmp_path / "asked").read_text().split()
    assert len(asked) <= 60 + n_kills, "only what was under way is asked again"


def test_two_processes_do_not_write_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    settings = {"engine": {"engine": "echo", "spec": "echo"}}
    with (
        ResponseFile.open(out, settings),
        pytest.raises(RunError, match="another process is writing this file"),
    ):
        ResponseFile.open(out, settings)
    with ResponseFile.open(out, settings) as again:
        assert len(again) == 0


def test_another_model_and_another_prompt_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    write_responses(Echo(), requests(2), out=out)
    before = out.read_bytes()
    with pytest.raises(RunError, match=r"engine.spec was echo, now other"):
        write_responses(Echo(spec="other"), requests(2), out=out)
    changed = [Request(trace=Trace(trace_id="p1", prompt="Something else?", response=""))]
    with pytest.raises(RunError, match=r"another prompt or prefill under the id 'p1'"):
        write_responses(Echo(), changed, out=out)
    with pytest.raises(RunError, match="another prompt or prefill"):
        write_responses(Echo(), [Request(trace=requests(1)[0].trace, prefill="Sure")], out=out)
    assert out.read_bytes() == before


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "mine.jsonl"
    out.write_text('{"prompt": "mine"}\n')
    for overwrite in (False, True):
        with pytest.raises(RunError, match=r"not empty, and no mine\.settings\.json beside it"):
            write_responses(Echo(), requests(1), out=out, overwrite=overwrite)
    assert out.read_text() == '{"prompt": "mine"}\n'
    with pytest.raises(RunError, match=r"ends in \.jsonl"):
        write_responses(Echo(), requests(1), out=tmp_path / "a.json")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(RunError, match=r"folder.jsonl: cannot be written: Is a directory"):
        write_responses(Echo(), requests(1), out=tmp_path / "folder.jsonl")


def test_a_line_that_cannot_be_read_is_told_with_its_number(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    write_responses(Echo(), requests(3), out=out)
    lines = out.read_text().splitlines()
    lines[1] = '{"trace_id": "p1"}'
    out.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="line 2 is no response of this package; delete the line"):
        write_responses(Echo(), requests(3), out=out)


def test_an_error_before_the_first_response_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        write_responses(Echo(fails_at="p0"), requests(3), out=tmp_path / "deep" / "er" / "a.jsonl")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no prompts"):
        write_responses(Echo(), [], out=tmp_path / "a.jsonl")


def test_ids_that_would_be_the_same_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    clash = [
        Request(trace=Trace(trace_id="a", prompt="x", response=""), condition="safe"),
        Request(trace=Trace(trace_id="a-safe", prompt="y", response="")),
    ]
    engine = Echo()
    with pytest.raises(RunError, match="two responses would have the id 'a-safe'"):
        write_responses(engine, clash, out=tmp_path / "a.jsonl")
    assert engine.asked == []


def test_its_settings_say_what_made_it(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    write_responses(Echo(), requests(1), out=out, about={"prompts": ["p.jsonl"]})
    said = json.loads(settings_file(out).read_text())
    assert said["settings"]["engine"] == {"engine": "echo", "spec": "echo"}
    assert said["settings"]["sampling"] == {"max_new_tokens": 5, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    assert said["prompts"] == ["p.jsonl"]
    assert {"safekey_interp", "created", "versions"} <= set(said)
