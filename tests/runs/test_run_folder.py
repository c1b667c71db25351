"""A run folder: written whole or not at all, by one process, and never mistaken for another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from safekey_interp.errors import InputError, RunError
from safekey_interp.runs.manifest import differences
from safekey_interp.runs.run_folder import open_run
from safekey_interp.runs.run_writer import RunWriter, check_out, known_run
from safekey_interp.runs.storage import (
    is_leftover,
    read_json,
    save_tensors,
    try_writing,
    write_aside,
    write_folder_aside,
    write_json,
    write_table,
)
from safekey_interp.runs.whole_files import has_its_sizes, write_sizes

MANIFEST: dict[str, Any] = {"safekey_interp": "0", "identity": {"seed": 0, "settings": {"layers": [1]}}}


def other(**identity: Any) -> dict[str, Any]:
    return MANIFEST | {"identity": MANIFEST["identity"] | identity}


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def one_part(folder: Path) -> None:
    (folder / "a.txt").write_text("a")


def test_a_run_begins_goes_on_and_ends(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "one"
    with RunWriter.begin(out, MANIFEST) as writer:
        assert writer.part(0) is None
        writer.write_part(0, one_part)
    assert open_run(out).manifest["status"] == "running"
    with RunWriter.begin(out, MANIFEST) as writer:
        assert writer.part(0) is not None
        assert writer.part(1) is None
        run = writer.finish()
    assert run.is_complete
    assert names(out) == {"run.json"}
    assert known_run(out, MANIFEST) is not None


@pytest.mark.parametrize("damage", ["changed", "gone", "added", "no contents"])
def test_a_part_that_is_not_as_it_was_written_is_not_done(tmp_path: Path, damage: str) -> None:
    with RunWriter.begin(tmp_path / "run", MANIFEST) as writer:
        part = writer.write_part(0, one_part)
        if damage == "changed":
            (part / "a.txt").write_text("b")
        elif damage == "gone":
            (part / "a.txt").unlink()
        elif damage == "added":
            (part / "b.txt").write_text("b")
        else:
            (part / "contents.json").unlink()
        assert writer.part(0) is None
        assert not part.exists()


def test_what_kills_left_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with RunWriter.begin(out, MANIFEST) as writer:
        writer.write_part(0, one_part)
    left = [out / ".traces.parquet.0123abcd.aside", out / "parts" / ".chunk-000001.89abcdef.aside"]
    for folder in left:
        folder.mkdir()
        (folder / "half").write_text("x")
    (out / ".notes").write_text("mine")
    with RunWriter.begin(out, MANIFEST) as writer:
        assert names(out) == {
            *("run.json", ".notes", "parts", "parts/chunk-000000"),
            *("parts/chunk-000000/a.txt", "parts/chunk-000000/contents.json"),
        }


def test_what_another_process_is_writing_is_no_leftover(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from safekey_interp.runs.storage import write_aside\n"
        "def write(file):\n    file.write_text('x'); print('writes', flush=True); sys.stdin.read()\n"
        f"write_aside(Path({str(tmp_path / 'a.json')!r}), write)\n"
    )
    for is_killed in (False, True):
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == b"writes\n"
            try_writing(tmp_path)
            assert [is_leftover(path) for path in tmp_path.iterdir() if path.name != "a.json"] == [True]
            if is_killed:
                process.kill()
            process.stdin.close()
        try_writing(tmp_path)
        assert names(tmp_path) == {"a.json"}


def test_an_error_leaves_nothing_that_takes_room(tmp_path: Path) -> None:
    with RunWriter.begin(tmp_path / "run", MANIFEST) as writer:
        writer.write_part(0, one_part)
    writer = RunWriter.begin(tmp_path / "run", MANIFEST)
    (tmp_path / "run" / ".summaries.00000000.aside").mkdir()
    with pytest.raises(RunError), writer:
        raise RunError("the disk is full")
    assert not [path for path in (tmp_path / "run").iterdir() if is_leftover(path)]


def test_a_folder_that_holds_only_what_a_kill_left_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "run" / ".run.json.0123abcd.aside").mkdir(parents=True)
    with RunWriter.begin(tmp_path / "run", MANIFEST):
        assert names(tmp_path / "run") == {"run.json"}


@pytest.mark.parametrize("error", [RunError("x"), InputError("x")])
def test_a_new_run_that_is_refused_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), RunWriter.begin(tmp_path / "a" / "b", MANIFEST):
        raise error
    assert names(tmp_path) == set()
    (tmp_path / "mine").mkdir()
    with pytest.raises(type(error)), RunWriter.begin(tmp_path / "mine", MANIFEST):
        raise error
    assert names(tmp_path) == {"mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_a_run_that_is_interrupted_stays(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), RunWriter.begin(tmp_path / "run", MANIFEST):
        raise error
    assert names(tmp_path) == {"run", "run/run.json"}


def test_a_folder_is_written_by_one_process(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = (
        "import sys, json; from pathlib import Path; from safekey_interp.runs.run_writer import RunWriter\n"
        f"with RunWriter.begin(Path({str(out)!r}), json.loads({json.dumps(MANIFEST)!r})):\n"
        "    print('holds', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        for overwrite in (False, True):
            with pytest.raises(RunError, match="another process is writing this run"):
                RunWriter.begin(out, MANIFEST, overwrite=overwrite)
        process.kill()
    with RunWriter.begin(out, MANIFEST):
        pass


def test_overwriting_leaves_only_what_is_not_the_runs(tmp_path: Path) -> None:
    with RunWriter.begin(tmp_path, MANIFEST) as writer:
        writer.write_part(0, one_part)
        write_table(tmp_path / "traces.parquet", pd.DataFrame({"a": [1]}))
        (tmp_path / "states").mkdir()
        (tmp_path / "mine.csv").write_text("x")
    with pytest.raises(
        RunError, match=r"other settings \(seed was 0, now 1\); choose another folder or pass --overwrite"
    ):
        RunWriter.begin(tmp_path, other(seed=1))
    with RunWriter.begin(tmp_path, other(seed=1), overwrite=True):
        assert names(tmp_path) == {"run.json", "mine.csv"}


def test_differences_are_named() -> None:
    changed = differences({"a": {"b": 1, "c": "x" * 50}, "d": 1}, {"a": {"b": 2, "c": "x" * 50}, "e": [1]})
    assert [(one.name, one.known, one.asked) for one in changed] == [("a.b", 1, 2), ("d", 1, None), ("e", None, [1])]


@pytest.mark.parametrize("inside", ["notes.txt", "run.json"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).write_text('{"loss": 1}')
    with pytest.raises(RunError, match="not empty and no run of this package"):
        check_out(tmp_path)
    with pytest.raises(RunError, match=r"holds no run\.json of this package"):
        open_run(tmp_path)


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"x": float("nan"), "y": (np.float32(1), np.float64("inf")), "z": np.int64(3)})
    assert read_json(file) == {"x": None, "y": [1.0, None], "z": 3}

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_aside(file, fail)
    assert read_json(file) is not None
    assert names(tmp_path) == {"a.json"}


def test_folders_are_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "part"

    def fill(aside: Path) -> None:
        (aside / "first").write_text("half")
        assert not target.exists(), "the name is given once all is written"
        (aside / "second").write_text("other half")

    def fail(aside: Path) -> None:
        (aside / "first").write_text("half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_folder_aside(target, fail)
    assert names(tmp_path) == set()
    write_folder_aside(target, fill)
    assert names(tmp_path) == {"part", "part/first", "part/second"}


def test_looking_whether_a_folder_can_be_written_spares_what_its_writer_has_there(tmp_path: Path) -> None:
    begun = tmp_path / "run" / ".summaries.00000000.aside"
    with RunWriter.begin(tmp_path / "run", MANIFEST):
        begun.mkdir()
        check_out(tmp_path / "run")
        with pytest.raises(RunError, match="another process is writing"):
            RunWriter.begin(tmp_path / "run", MANIFEST)
        assert begun.is_dir()
    check_out(tmp_path / "run")
    assert not begun.exists(), "its writer has ended"


def test_a_complete_run_of_which_a_table_was_cut_short_is_refused_and_named(tmp_path: Path) -> None:
    with RunWriter.begin(tmp_path / "run", MANIFEST) as writer:
        write_table(tmp_path / "run" / "traces.parquet", pd.DataFrame({"trace_id": ["0", "1"]}))
        writer.finish()
    file = tmp_path / "run" / "traces.parquet"
    with RunWriter.begin(tmp_path / "run", MANIFEST) as writer:
        assert writer.is_complete
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with pytest.raises(RunError, match=r"traces\.parquet: [\d,]+ bytes, expected [\d,]+ .*--overwrite"):
        RunWriter.begin(tmp_path / "run", MANIFEST)
    file.unlink()  # to save room
    with RunWriter.begin(tmp_path / "run", MANIFEST) as writer:
        assert writer.is_complete


def test_what_was_cut_short_in_a_folder_of_a_complete_run_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    inside = run / "checkpoints" / "checkpoint-2" / "optimizer.pt", run / "model" / "chat_template.jinja"
    with RunWriter.begin(run, MANIFEST) as writer:
        for file in (*inside, run / "models" / "base" / "run.json"):
            file.parent.mkdir(parents=True)
            file.write_bytes(b"0123456789")
        write_json(run / "examples.json", [1, 2, 3])
        write_json(run / "models" / "base" / "run.json", {"status": "complete", "files": {"examples.json": 12}})
        (run / "models" / "base" / "examples.json").write_text("[1, 2, 3, 4]")
        writer.finish()
    for file in (
        *inside,
        run / "examples.json",
        run / "models" / "base" / "examples.json",
    ):
        whole = file.read_bytes()
        file.write_bytes(whole[:-5])
        with pytest.raises(RunError, match=f"{file.relative_to(run)}: .*bytes, expected"):
            RunWriter.begin(run, MANIFEST)
        file.write_bytes(whole)
    with RunWriter.begin(run, MANIFEST) as writer:
        assert writer.is_complete


@pytest.mark.parametrize("name", ["notes.json", "model/README.md", "report.html"])
def test_a_complete_run_is_not_refused_for_what_a_person_writes(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    with RunWriter.begin(tmp_path, MANIFEST) as writer:
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
        writer.finish()
    file.write_text("a person's")
    with RunWriter.begin(tmp_path, MANIFEST) as writer:
        assert writer.is_complete


def test_a_complete_run_that_is_extended_is_not_refused_for_what_its_next_part_wrote(tmp_path: Path) -> None:
    with RunWriter.begin(tmp_path, MANIFEST) as writer:
        write_table(tmp_path / "benchmarks.parquet", pd.DataFrame({"value": [1.0]}))
        writer.finish()
        writer.manifest["status"] = "running"
        writer.save()
        write_table(tmp_path / "benchmarks.parquet", pd.DataFrame({"value": [1.0, 2.0], "name": ["a", "b"]}))
    with RunWriter.begin(tmp_path, MANIFEST) as writer:
        assert not writer.is_complete


def test_findings_that_were_cut_short_are_named_and_those_told_anew_are_not(tmp_path: Path) -> None:
    with RunWriter.begin(tmp_path, MANIFEST) as writer:
        write_json(tmp_path / "findings.json", {"headline": "none"})
        writer.finish()
    write_json(tmp_path / "findings.json", {"headline": "another one"})
    with RunWriter.begin(tmp_path, MANIFEST) as writer:
        assert writer.is_complete
    (tmp_path / "findings.json").write_text('{"headline": "an')
    with pytest.raises(RunError, match=r"findings\.json: cannot be read, expected JSON; .*--overwrite"):
        RunWriter.begin(tmp_path, MANIFEST)


@pytest.mark.parametrize("damage", ["cut", "gone", "sizes cut", "sizes gone"])
def test_a_folder_has_its_sizes_or_is_damaged(tmp_path: Path, damage: str) -> None:
    (tmp_path / "inside").mkdir()
    file, sizes = tmp_path / "inside" / "a.pt", tmp_path / "sizes.json"
    file.write_text("0123456789")
    write_sizes(tmp_path)
    assert has_its_sizes(tmp_path)
    hurt = sizes if "sizes" in damage else file
    if "gone" in damage:
        hurt.unlink()
    else:
        os.truncate(hurt, 5)
    assert not has_its_sizes(tmp_path)


def test_every_file_can_be_read_by_those_who_may(tmp_path: Path) -> None:
    write_aside(tmp_path / "a.safetensors", lambda file: save_tensors(file, {"x": np.zeros(3, np.float32)}))
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_no_ordinary_name_is_a_leftover() -> None:
    assert not any(
        map(is_leftover, map(Path, [".git", ".cache-0123abcd", ".report.html", "a.0123abcd.aside", ".DS_Store"]))
    )


@pytest.mark.slow
def test_a_full_disk_is_an_error_that_can_be_mended(tmp_path: Path) -> None:
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from tiny_models import tiny_model, traces\n"
        "from safekey_interp.experiments.probe_run import run_probe\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))\n"
        "from safekey_interp.errors import RunError\n"
        "try:\n    run_probe(tiny_model('llama'), traces(8), out=Path(sys.argv[2]), chunk=2, n_examples=0)\n"
        "except RunError as error:\n    print(error)\n"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parents[1] / "helpers"), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "cannot be written: " in done.stdout, done.stderr
    assert "the same command resumes the run" in done.stdout
