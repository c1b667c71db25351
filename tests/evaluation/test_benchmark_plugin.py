"""A benchmark from a package of its own: one entry, and no module of this package is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended
from fake_harness import asked, install

from safekey_interp.errors import InputError
from safekey_interp.evaluation.benchmarks.catalogue import NAMED, benchmarks_of, known_benchmarks
from safekey_interp.runs.run_folder import open_run

ENTRY = """from safekey_interp.evaluation.benchmarks.catalogue import Benchmark

EASY = Benchmark(name="easy-task", harness="lm-eval", task="easy", metric="acc,none", cites="Nobody 2026")
TAKEN = Benchmark(name="gpqa", harness="lm-eval", task="easy")
"""


def install_package(folder: Path, name: str, entry: str) -> None:
    """A package with one entry point, as an installer leaves it."""
    (folder / f"{name}.py").write_text(ENTRY)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[safekey_interp.benchmarks]\nmine = {name}:{entry}\n")


@pytest.mark.skipif(os.name == "nt", reason="the program that stands for a harness is a script")
def test_an_installed_package_adds_a_benchmark(
    here: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(here, "easy_benchmarks", "EASY")
    monkeypatch.syspath_prepend(here)
    [benchmark] = benchmarks_of(["easy-task"])
    assert (benchmark.harness, benchmark.task, benchmark.cites) == ("lm-eval", "easy", "Nobody 2026")
    assert set(known_benchmarks()) == {entry.name for entry in NAMED} | {"easy-task"}
    (here / "there").mkdir()
    harness = install(here / "there")
    ended = command(
        "eval",
        "organism:base",
        "--benchmarks",
        "easy-task",
        "--python",
        harness,
        "--out",
        "runs/easy",
        "--allow-unknown",
    )
    assert ended.status == 0, ended.err
    assert asked(harness) == ["easy"]
    table = open_run("runs/easy").benchmarks
    assert table is not None
    assert list(table.loc[table["is_main"], ["benchmark", "metric", "value"]].iloc[0]) == ["easy-task", "acc", 0.6]


@pytest.mark.parametrize(("entry", "reason"), [("TAKEN", "the name gpqa is taken"), ("ENTRY", "cannot be loaded")])
def test_an_entry_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, reason: str
) -> None:
    install_package(tmp_path, f"broken_{entry.lower()}", entry)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"entry point broken_{entry.lower()}:{entry}: {reason}"):
        known_benchmarks()
