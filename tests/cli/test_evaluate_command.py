"""``safekey-interp eval``: what a user types, right and wrong; harnesses that crash, lie or hang; the page."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended
from fake_harness import HOSTILE, asked, install

from safekey_interp.errors import install_hint
from safekey_interp.models import organism
from safekey_interp.runs.run_folder import open_run
from safekey_interp.runs.run_writer import RunWriter

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the program that stands for a harness is a script")


@pytest.fixture
def harness(here: Path) -> Path:
    """A program that stands for the Python of an environment with lm_eval."""
    (here / "there").mkdir()
    return install(here / "there")


def words(harness: Path, *tasks: str, models: tuple[str, ...] = ("organism:base", "organism:sft")) -> list[object]:
    return [
        "eval",
        "--allow-unknown",
        *models,
        "--benchmarks",
        *(f"lm-eval:{task}" for task in tasks),
        "--python",
        harness,
    ]


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_numbers_become_one_table_and_one_page(here: Path, harness: Path, command: Callable[..., Ended]) -> None:
    typed = [*words(harness, "easy", "hostile"), "--out", "runs/able"]
    ended = command(*typed)
    assert ended.status == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= 80
    told = " ".join(ended.out.split())
    assert "lm-eval:easy (acc): organism:base 0.600 [0.560, 0.639], organism:sft 0.400" in told
    assert "organism:sft minus organism:base: -0.200 [-0.255, -0.144], a clear difference." in told
    assert asked(harness) == ["easy", "hostile"] * 2
    run = open_run("runs/able")
    table = run.benchmarks
    assert table is not None
    assert len(table) == 8
    assert set(table["harness_version"]) == {"lm-eval 0.4.13"}
    assert list(table.loc[table["is_main"], "n"]) == [600] * 4
    assert [one["name"] for one in run.manifest["models"]] == ["organism:base", "organism:sft"]
    assert run.manifest["models"][0]["thinking"]["marks"] == ["<think>", "</think>"]
    unit = json.loads(
        (here / "runs/able/harness/organism-base").glob("*easy*").__next__().joinpath("unit.json").read_text()
    )
    assert unit["max_new_tokens"] == 204
    page = (here / "runs" / "able" / "report.html").read_text()
    assert HOSTILE not in page
    assert "alert(1)" in page
    assert 'data-panel="benchmark-scores"' in page
    assert str(here / "runs") not in page
    before = files(here / "runs")
    again = command(*typed)
    assert (again.status, again.said) == (0, ended.said)
    assert len(asked(harness)) == 4
    assert files(here / "runs") == before
    drawn = command("report", "runs/able")
    assert drawn.status == 0
    assert files(here / "runs") == before


def test_benchmarks_and_models_join_later_and_other_settings_do_not(
    harness: Path, command: Callable[..., Ended]
) -> None:
    assert command(*words(harness, "easy", models=("organism",)), "--out", "able").status == 0
    assert command(*words(harness, "hard"), "--out", "able").status == 0
    assert asked(harness) == ["easy", "hard", "hard"]
    table = open_run("able").benchmarks
    assert table is not None
    main = table[table["is_main"]]
    assert list(zip(main["model"], main["task"], strict=True)) == [
        ("organism", "easy"),
        ("organism:base", "hard"),
        ("organism:sft", "hard"),
    ]
    other = command(*words(harness, "hard"), "--out", "able", "--limit", 3)
    assert other.status == 2
    assert "limit was None, now 3" in other.err


@pytest.mark.slow
def test_what_fails_is_left_out_with_its_reason_and_asked_again(
    here: Path, harness: Path, command: Callable[..., Ended]
) -> None:
    tasks = ("crash", "killed", "garbage", "silent", "empty", "slow", "easy")
    typed = [*words(harness, *tasks, models=("organism",)), "--out", "able", "--timeout", "1"]
    # A minute is the least that can be typed; here the last have three seconds.
    from safekey_interp.experiments.benchmark_run import run_benchmarks

    why = {}
    for some, seconds in (((*tasks[:-2], "easy"), 60.0), (tasks[-2:], 3.0)):
        named = [f"lm-eval:{task}" for task in some]
        run = run_benchmarks(["organism"], named, out="able", python=str(harness), allow_unknown=True, timeout=seconds)
        why |= {entry["what"]: entry["why"] for entry in run.findings["left_out"]}
    assert {name.split(":")[1].split()[0] for name in why} == set(tasks) - {"easy"}
    assert "RuntimeError: CUDA out of memory" in why["lm-eval:crash of organism"]
    assert "SIGKILL" in why["lm-eval:killed of organism"]
    assert "not JSON" in why["lm-eval:garbage of organism"]
    assert "0 files" in why["lm-eval:silent of organism"]
    assert "no number" in why["lm-eval:empty of organism"]
    assert "longer than 3 s" in why["lm-eval:slow of organism"]
    assert not _lives(int((harness.parent / "pid").read_text()))
    logs = {path.parent.name.split("-")[2]: path for path in (here / "able").rglob("log.txt")}
    assert "out of memory" in logs["crash"].read_text()
    assert logs["easy"].stat().st_size == 65_536  # of 160,001 bytes
    before = len(asked(harness))
    ended = command(*[word for word in typed if word not in ("lm-eval:slow",)])
    assert ended.status == 0, ended.err
    assert "Without a number, for the reasons of --details: lm-eval:crash of organism" in " ".join(ended.out.split())
    assert asked(harness)[before:] == ["crash", "killed", "garbage", "silent", "empty"]
    assert "Left out" in command(*[word for word in typed if word not in ("lm-eval:slow",)], "--details").out


def test_nothing_that_succeeds_is_status_2_and_the_log_stays(
    here: Path, harness: Path, command: Callable[..., Ended]
) -> None:
    ended = command(*words(harness, "crash", models=("organism",)), "--out", "able")
    assert ended.status == 2
    assert "no benchmark succeeded" in ended.err
    assert "CUDA out of memory" in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("safekey-interp: ")]) == 1
    [log] = (here / "able").rglob("log.txt")
    assert "CUDA out of memory" in log.read_text()
    assert not (here / "able" / "report.html").exists()
    assert command("report", "able").status == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_run_asks_nothing_twice_and_leaves_no_harness_behind(here: Path, harness: Path) -> None:
    typed = [str(word) for word in words(harness, "easy", "slow", models=("organism",))]
    begun = subprocess.Popen([sys.executable, "-m", "safekey_interp", *typed, "--out", "able"])
    pid = harness.parent / "pid"
    until = time.monotonic() + 60
    while not (pid.is_file() and pid.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    while _lives(int(pid.read_text())) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(int(pid.read_text()))
    from safekey_interp.experiments.benchmark_run import run_benchmarks

    run = run_benchmarks(
        ["organism"], ["lm-eval:easy", "lm-eval:slow"], out="able", python=str(harness), allow_unknown=True, timeout=3.0
    )
    assert asked(harness) == ["easy", "slow", "slow"]
    assert run.benchmarks is not None
    assert not [path for path in (here / "able").rglob("*") if path.name.endswith(".aside")]


def test_a_file_that_was_changed_is_asked_for_again(here: Path, harness: Path, command: Callable[..., Ended]) -> None:
    typed = [*words(harness, "easy", models=("organism",)), "--out", "able"]
    assert command(*typed).status == 0
    [results] = (here / "able").rglob("results_*.json")
    results.write_text(results.read_text().replace("0.4", "0.9"))
    assert command(*typed).status == 0
    assert asked(harness) == ["easy", "easy"]
    table = open_run("able").benchmarks
    assert table is not None
    assert table["value"].max() < 0.9
    [log] = (here / "able").rglob("log.txt")
    said = log.read_text()
    log.write_text(said[:-1] or "x")
    assert command(*typed).status == 0
    assert asked(harness) == ["easy", "easy", "easy"]
    assert log.read_text() == said


@pytest.mark.slow
def test_a_comparison_shows_them_and_is_else_as_it_was(
    here: Path, harness: Path, command: Callable[..., Ended]
) -> None:
    every = list(organism.read_shipped())
    rows = [organism.to_row(trace) for trace in every[:: len(every) // 12]]
    Path("traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    compared = ("compare", "organism:base", "organism:sft", "--traces", "traces.jsonl", "--out", "both")
    assert command(*compared).status == 0
    before = files(here / "both")
    ended = command(*words(harness, "easy", "crash", models=("organism:sft", "organism:base")), "--out", "both")
    assert ended.status == 0, ended.err
    after = files(here / "both")
    changed = {name for name in after if before.get(name) != after[name] and not name.startswith("benchmarks/")}
    assert changed == {"report.html"}
    assert not before.keys() - after.keys()
    page = (here / "both" / "report.html").read_text()
    assert ">What do benchmarks say?</h2>" in page
    assert 'data-panel="benchmark-scores"' in page
    assert "CUDA out of memory" in page
    assert "organism:sft minus organism:base" in page
    table = open_run("both").benchmarks
    assert table is not None
    assert set(table["model"]) == {"organism:base", "organism:sft"}
    assert command("report", "both").status == 0
    assert files(here / "both") == after
    assert command(*compared).status == 0
    assert files(here / "both") == after
    other = command(*words(harness, "easy", models=("organism:safekey",)), "--out", "both")
    assert other.status == 2
    assert "none of which is given" in other.err
    with RunWriter.begin(here / "both", {"safekey_interp": "0.1.0", "identity": {}}, overwrite=True):
        assert not (here / "both" / "benchmarks").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("organism", "--benchmarks", "math500"), "nearest: math-500"),
        (("organism", "--benchmarks"), "requires an argument"),
        (("organism",), "Missing option '--benchmarks'"),
        (("--benchmarks", "gpqa"), "Missing argument 'MODEL...'"),
        (("organism", "organism", "--benchmarks", "lm-eval:easy"), "given twice"),
        (("organism:none", "--benchmarks", "lm-eval:easy"), "no such organism"),
        (("./gone", "--benchmarks", "lm-eval:easy"), "no such file or folder"),
        (("organism", "--benchmarks", "humaneval"), "--allow-code-execution"),
        (("organism", "--benchmarks", "lm-eval:easy", "--no-thinking"), "enable_thinking"),
        (("organism", "--benchmarks", "lm-eval:easy", "--python", "./gone"), "no such program"),
        (("organism", "--benchmarks", "lm-eval:easy", "--python", "true"), "does not say which packages"),
        (("organism", "--benchmarks", "lm-eval:easy", "--delimiters", "x"), "--delimiters"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    here: Path, harness: Path, command: Callable[..., Ended], typed: tuple[str, ...], said: str
) -> None:
    python = () if "--python" in typed or typed[-1] == "--benchmarks" else ("--python", harness)
    ended = command("eval", "--allow-unknown", "--out", "runs/none", *python, *typed)
    assert ended.status == 2
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (here / "runs").exists()
    assert not asked(harness)


def test_an_absent_package_is_one_line_with_what_to_install(here: Path, command: Callable[..., Ended]) -> None:
    (here / "absent").mkdir()
    program = install(here / "absent")
    ended = command(
        *("eval", "organism", "--allow-unknown", "--benchmarks", "math-500", "--out", "runs/none", "--python", program)
    )
    assert ended.status == 2
    assert install_hint("eval") in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (here / "runs").exists()
    assert not asked(program)


def test_a_folder_of_another_run_is_left_alone(here: Path, harness: Path, command: Callable[..., Ended]) -> None:
    Path("other").mkdir()
    Path("other/run.json").write_text('{"safekey_interp": "0.1.0", "kind": "training", "status": "complete"}')
    Path("taken").mkdir()
    Path("taken/mine.txt").write_text("mine")
    before = files(here)
    for folder, said in (("other", "of kind 'training'"), ("taken", "not empty")):
        ended = command(*words(harness, "easy"), "--out", folder, "--overwrite")
        assert ended.status == 2
        assert said in ended.err
    Path("other/run.json").write_text('{"safekey_interp": "0.1.0", "kind": "comparison", "status": "running"}')
    ended = command(*words(harness, "easy"), "--out", "other")
    assert "not complete" in ended.err
    Path("other/run.json").write_text('{"safekey_interp": "0.1.0", "kind": "training", "status": "complete"}')
    assert files(here) == before


def test_a_run_of_probes_has_no_model_to_hand_over(harness: Path, command: Callable[..., Ended]) -> None:
    Path("probed").mkdir()
    Path("probed/run.json").write_text('{"safekey_interp": "0.1.0", "status": "complete"}')
    ended = command(*words(harness, "easy", models=("probed",)), "--out", "able")
    assert ended.status == 2
    assert "holds traces and no model" in ended.err
    assert not Path("able").exists()


def test_other_weights_under_a_known_name_are_refused(here: Path, harness: Path, command: Callable[..., Ended]) -> None:
    import shutil

    shutil.copytree(organism.weights_folder("organism:base"), here / "mine")
    typed = [*words(harness, "easy", models=("./mine",)), "--out", "able"]
    assert command(*typed).status == 0
    shutil.copy(organism.weights_folder("organism:sft") / "model.safetensors", here / "mine")
    ended = command(*typed)
    assert ended.status == 2
    assert "of other weights" in ended.err
    assert command(*typed, "--overwrite").status == 0
    assert asked(harness) == ["easy", "easy"]


def _lives(pid: int) -> bool:
    """Whether a process is there that is more than an exit status nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_model_that_does_not_know_english_is_refused_and_a_dry_run_asks_nothing(
    here: Path, harness: Path, command: Callable[..., Ended]
) -> None:
    typed = [word for word in words(harness, "easy", models=("organism",)) if word != "--allow-unknown"]
    refused = command(*typed, "--out", "able")
    assert refused.status == 2
    assert "--allow-unknown" in refused.err
    dry = command(*words(harness, "easy", models=("organism",)), "--out", "able", "--dry-run")
    assert (dry.status, dry.out.splitlines()[0]) == (0, "work    1 benchmarks by harnesses")
    assert not Path("able").exists()
    assert not asked(harness)
