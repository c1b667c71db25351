"""Several processes share a run: the tables are one process's, whoever is killed, and no one waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from killed_processes import results, run_in_child
from probe_processes import environment, run_in_team, said
from tiny_models import byte_level_tokenizer, tiny_model, traces

from safekey_interp.errors import RunError
from safekey_interp.experiments.probe_measure import chunk_size
from safekey_interp.runs.processes import Place, Team, place
from safekey_interp.runs.run_folder import open_run

DATA = traces(14)
SETTINGS: dict[str, Any] = {"chunk": 2, "n_examples": 3}
N_CHUNKS = 7


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_in_child(DATA, out, **SETTINGS) == 0
    return out


def assert_same(out: Path, whole: Path) -> None:
    mine, theirs = results(out), results(whole)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert {path.name for path in out.iterdir()} == set(mine) | {"run.json"}
    ours, other = open_run(out).manifest, open_run(whole).manifest
    skipped = {"created", "timings", "command", "measured_by"}
    assert {k: v for k, v in ours.items() if k not in skipped} == {k: v for k, v in other.items() if k not in skipped}


def chunks_by(out: Path) -> dict[tuple[int, int], int]:
    """Chunks that each process measured, by its number and the number of processes."""
    return {(who["process"], who["of"]): who["chunks"] for who in open_run(out).manifest["measured_by"]}


@pytest.mark.parametrize("n", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_tables_are_those_of_one_process(whole: Path, tmp_path: Path, n: int) -> None:
    out = tmp_path / "run"
    assert run_in_team(n, DATA, out, **SETTINGS) == [0] * n
    assert_same(out, whole)
    counts = chunks_by(out)
    assert counts.keys() == {(rank, n) for rank in range(n)}
    assert sum(counts.values()) == N_CHUNKS
    assert max(counts.values()) - min(counts.values()) <= 1
    assert chunks_by(whole) == {(0, 1): N_CHUNKS}
    assert run_in_team(n, DATA, out, **SETTINGS) == [0] * n, "a complete run is returned to all"


@pytest.mark.parametrize(
    ("killed", "then"), [(0, 2), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 1), (1, 3)))]
)
def test_a_killed_process_ends_all_and_only_what_is_missing_is_measured_again(
    whole: Path, tmp_path: Path, killed: int, then: int
) -> None:
    out = tmp_path / "run"
    statuses = run_in_team(2, DATA, out, kill_at={killed: 15 if killed else 60}, **SETTINGS)
    assert statuses[killed] == -9
    assert statuses[1 - killed] == 2
    line = said(out, 1 - killed)
    assert line.count("\n") == 1
    assert f"process {killed} of 2" in line
    assert "the same command resumes the run" in line
    done = {path.name for path in (out / "parts").glob("chunk-*")}
    assert 0 < len(done) < N_CHUNKS
    assert run_in_team(then, DATA, out, **SETTINGS) == [0] * then
    assert_same(out, whole)
    if then != 2:
        counts = chunks_by(out)
        assert sum(n for (_, of), n in counts.items() if of == 2) == len(done)
        assert sum(n for (_, of), n in counts.items() if of == then) == N_CHUNKS - len(done)


@pytest.mark.slow
def test_killed_while_summaries_are_made(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_in_team(2, DATA, out, kill_at={1: 54}, **SETTINGS) == [2, -9]
    assert len(list((out / "parts").glob("chunk-*"))) == N_CHUNKS
    assert not (out / "separability.parquet").exists()
    assert run_in_team(2, DATA, out, **SETTINGS) == [0, 0]
    assert_same(out, whole)


@pytest.mark.slow
def test_a_process_group_of_ones_own_is_enough(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_in_team(2, DATA, out, group=tmp_path / "group", **SETTINGS) == [0, 0]
    assert_same(out, whole)


@pytest.mark.parametrize("odd", [0, 1])
def test_processes_with_other_settings_are_refused(tmp_path: Path, odd: int) -> None:
    out = tmp_path / "run"
    assert run_in_team(2, DATA, out, settings_of={odd: {"seed": 5}}, **SETTINGS) == [2, 2]
    assert not out.exists()
    lines = [said(out, rank) for rank in range(2)]
    assert any("the processes were not given the same task: seed is " in line for line in lines)


def test_what_one_process_refuses_ends_all(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    started = time.monotonic()
    assert run_in_team(3, DATA, out, **SETTINGS) == [2, 2, 2]
    assert time.monotonic() - started < 60, "nobody waits for the others"
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert all("not empty and no run of this package" in said(out, rank) for rank in range(3))


def test_when_none_remain_nothing_stays(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_in_team(2, DATA, out, max_length=10, **SETTINGS) == [2, 2]
    assert not out.exists()


def test_a_number_that_no_process_can_have_is_refused_at_once() -> None:
    with pytest.raises(RunError, match="RANK: got 5 of 2 processes, expected one below WORLD_SIZE"), Team(5, 2):
        pass


def test_chunks_are_a_function_of_the_number_of_traces() -> None:
    for n in (1, 31, 32, 300, 400, 512, 2_000, 4_096, 4_097, 10_000, 1_000_000):
        size = chunk_size(n)
        assert 32 <= size <= 256
        n_chunks = -(-n // size)
        assert n_chunks >= 16 or size == 32
        if n >= 10_000:
            for processes in (2, 4, 8, 16):
                assert -(-n_chunks // processes) / (n_chunks / processes) < 1.2


def test_a_launchers_environment_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert place() == Place(0, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert place() == Place(0, 1, 0), "some images set it without a launcher"
    monkeypatch.setenv("RANK", "5")
    assert place() == Place(5, 8, 5)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert place() == Place(5, 8, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert place() == Place(0, 1, 0)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a file of traces."""
    folder = tmp_path_factory.mktemp("here")
    tiny_model("llama").hf.save_pretrained(folder / "tiny")
    byte_level_tokenizer().save_pretrained(folder / "tiny")
    rows = [{"id": t.trace_id, "prompt": t.prompt, "response": t.response, "label": t.label} for t in traces(70)]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def typed(folder: Path, n: int, *words: str, only: int | None = None) -> list[tuple[int, str, str]]:
    """Status, output and errors of a command in each of ``n`` processes, or in one of them alone."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "safekey_interp", *words],
            cwd=folder,
            env=os.environ | set_for | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, set_for in enumerate(environment(n))
        if only in (None, rank)
    ]
    ended = []
    for process in started:
        out, err = process.communicate(timeout=120)
        ended.append((process.returncode, out, err))
    return ended


REFUSED = {
    "bad words": (["--layers", "a-b"], "--layers: got 'a-b'"),
    "standard input": (["--traces", "-"], "standard input: cannot be read by 2 processes; write it to a file"),
    "bad folder": (["--out", "tiny"], "out tiny: not empty and no run of this package"),
}


@pytest.mark.parametrize(
    "case", ["bad words", *(pytest.param(one, marks=pytest.mark.slow) for one in ("standard input", "bad folder"))]
)
def test_a_mistake_is_one_line_in_all(here: Path, case: str) -> None:
    words, line = REFUSED[case]
    ended = typed(
        here, 2, "probe", "--model", "tiny", *([] if "--traces" in words else ["--traces", "t.jsonl"]), *words
    )
    assert [status for status, _, _ in ended] == [2, 2]
    assert [out for _, out, _ in ended] == ["", ""]
    errors = "".join(err for _, _, err in ended)
    assert errors.count("\n") == 1
    assert errors.startswith("safekey-interp: ")
    assert line in errors


@pytest.mark.slow
def test_other_commands_are_the_first_processs_alone(here: Path, tmp_path: Path) -> None:
    file = str(here / "t.jsonl")
    assert typed(tmp_path, 2, "segment", file, "--out", "s.jsonl", only=1) == [(0, "", "")]
    assert list(tmp_path.iterdir()) == []
    assert typed(tmp_path, 2, "report", "nowhere", only=1) == [(0, "", "")]
    [(status, out, read)] = typed(tmp_path, 2, "segment", file, "--out", "s.jsonl", only=0)
    assert (status, out) == (0, "s.jsonl\n")
    assert read.startswith("70 traces of ")
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 70


def probe(out: str) -> list[str]:
    return ["-m", "safekey_interp", "probe", "--model", "tiny", "--traces", "t.jsonl", "--no-report", "--out", out]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"),
    *("--main_process_port", environment(2)[0]["MASTER_PORT"]),
]


@pytest.mark.slow
def test_launchers_run_it(here: Path) -> None:
    pytest.importorskip("accelerate")
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, *probe("one")]
    first = subprocess.run(words, cwd=here, env=environ, capture_output=True, text=True, check=True)
    for name, launcher in {"torchrun": TORCHRUN, "accelerate": ACCELERATE}.items():
        words = [*launcher, *probe(name)]
        done = subprocess.run(words, cwd=here, env=environ, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("70 of 70 traces read") == 1, "the first process alone speaks"
        assert done.stdout.splitlines()[:-1] == first.stdout.splitlines()[:-1]
        assert_same(here / name, here / "one")
        assert chunks_by(here / name) == {(0, 2): 2, (1, 2): 1}


@pytest.mark.slow
def test_a_process_that_is_killed_under_a_launcher(here: Path, tmp_path: Path) -> None:
    words = [*TORCHRUN, *probe(str(tmp_path / "run")), "--chunk", "2"]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    parts = tmp_path / "run" / "parts"
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=here, env=environ, **pipes) as launcher:
        try:
            until = time.monotonic() + 120
            while not (parts.is_dir() and any(parts.glob("chunk-*"))):
                assert time.monotonic() < until
                time.sleep(0.02)
            os.kill(process_of_rank(1, launcher.pid), signal.SIGKILL)
            out, err = launcher.communicate(timeout=60)
        finally:
            launcher.terminate()
    assert launcher.returncode != 0
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("safekey-interp: ")]
    assert lines == ["safekey-interp: stopped; the same command resumes the run"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
    done = subprocess.run(words, cwd=here, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    alone = [sys.executable, *probe(str(tmp_path / "one")), "--chunk", "2"]
    subprocess.run(alone, cwd=here, env=environ, capture_output=True, check=True)
    assert_same(tmp_path / "run", tmp_path / "one")


def process_of_rank(rank: int, launcher: int) -> int:
    """The process that a launcher started as number ``rank`` (Linux)."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError("no such process")
