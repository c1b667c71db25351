"""`python -m analysis.cost`: what it writes, what it does not measure twice, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import count
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from analysis.cost import checks, entries
from analysis.cost.__main__ import main
from analysis.cost.checks import Check
from analysis.cost.cost_page import picture, write_page
from analysis.cost.entry import Entry, Ways
from analysis.cost.machines import MEASURED, every_machine
from analysis.cost.shapes import SHAPES, shape_config
from analysis.cost.timing import LEAST, Reading, TooLong, interleaved

ROOT = Path(__file__).parents[2]
FIELDS = {"name", "ratio", "low", "high", "baseline", "device"}


def words(out: Path, *more: str) -> list[str]:
    return ["--out", str(out), "--model", "tiny", "--device", "cpu", "--length", "256", "--minutes", "2", *more]


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "cost.json").read_text())


def test_two_entries_come_to_json_and_page_and_are_not_measured_again(tmp_path: Path) -> None:
    asked = words(tmp_path / "d", "--only", "capture,ablation")
    assert main(asked) == 0
    first = read(tmp_path / "d")
    assert [entry["name"] for entry in first["entries"]] == ["capture", "ablation"]
    for entry in first["entries"]:
        assert set(entry) >= FIELDS
        assert 0 < entry["low"] <= entry["ratio"] <= entry["high"]
        assert entry["rounds"] >= LEAST
        assert entry["share_of_limit"]["share"] > 0
    page = (tmp_path / "d" / "cost.html").read_text()
    assert page.index("<svg") < page.index("<table"), "pictures first"
    assert main(asked) == 0
    assert read(tmp_path / "d")["entries"] == first["entries"]
    assert main(words(tmp_path / "d", "--only", "patch")) == 0
    assert [entry["name"] for entry in read(tmp_path / "d")["entries"]] == ["capture", "ablation", "patch"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--minutes", "0.2"], "another setup"),
        (["--only", "nonsense"], "--only"),
        (["--minutes", "0"], "--minutes"),
        (["--length", "3"], "--length"),
        (["--dtype", "int8"], "dtype"),
        (["--device", "nonsense"], "device"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_folder_as_it_is(
    tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "ENTRIES", ())
    monkeypatch.setattr(checks, "CHECKS", {})
    assert main(words(tmp_path)) == 0
    before = (tmp_path / "cost.json").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(words(tmp_path, *more))
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert (tmp_path / "cost.json").read_bytes() == before


def test_a_damaged_file_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cost.json").write_text("{")
    with pytest.raises(SystemExit):
        main(words(tmp_path))
    assert "cost.json" in capsys.readouterr().err
    assert (tmp_path / "cost.json").read_text() == "{"


def nothing() -> None:
    """A way that takes no time."""


def planted(name: str, ways: Any) -> Entry:
    return Entry(name=name, what="ours", baseline="theirs", ways=ways)


def test_what_fails_or_is_missing_is_said_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_bench: Any) -> Ways:
        raise ValueError("broken <here>")

    def missing(_bench: Any) -> Ways:
        import no_such_package  # type: ignore[import-not-found] # noqa: F401

        raise AssertionError

    here = (planted("fails", fails), planted("missing", missing), planted("works", lambda _: Ways(nothing, nothing)))
    monkeypatch.setattr(entries, "ENTRIES", here)
    monkeypatch.setattr(checks, "CHECKS", {})
    assert main(words(tmp_path)) == 0
    found = read(tmp_path)
    assert found["failed"] == {"fails": "ValueError: broken <here>"}
    assert found["left_out"] == {"missing": "no_such_package is not installed"}
    assert [entry["name"] for entry in found["entries"]] == ["works"]
    page = (tmp_path / "cost.html").read_text()
    assert "broken &lt;here&gt;" in page
    assert "<here>" not in page
    assert "fails" in capsys.readouterr().out


@pytest.mark.parametrize("error", [2.0, nan])
def test_a_wrong_check_ends_with_status_1_and_a_check_that_cannot_run_is_wrong(
    tmp_path: Path, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_bench: Any) -> Iterator[Check]:
        raise RuntimeError("no")
        yield

    monkeypatch.setattr(entries, "ENTRIES", ())
    for number, check in enumerate((lambda _: iter([Check("it", error, 1.0)]), cannot)):
        monkeypatch.setattr(checks, "CHECKS", {"it": check})
        assert main(words(tmp_path / str(number))) == 1
    monkeypatch.setattr(checks, "CHECKS", {"it": lambda _: iter([Check("it", 0.5, 1.0)])})
    assert main(words(tmp_path / "right")) == 0


def test_a_ratio_is_taken_within_a_round_whatever_the_order() -> None:
    speed = count(1)

    def meter(way: Any) -> Reading:
        return Reading(way(), nan)

    seen: list[str] = []
    now = {"value": 1.0}

    def ours() -> float:
        seen.append("ours")
        return 3.0 * now["value"]

    def theirs() -> float:
        seen.append("theirs")
        if len(seen) % 4 == 0:
            now["value"] = float(next(speed))  # the machine slows down between rounds
        return 2.0 * now["value"]

    found = interleaved(ours, theirs, seconds=0, most=60, meter=meter)
    assert found.n == LEAST
    assert found.low <= found.ratio <= found.high
    assert seen[2:6] == ["ours", "theirs", "theirs", "ours"], "the order turns"


def test_what_takes_too_long_is_not_begun() -> None:
    runs: list[int] = []
    with pytest.raises(TooLong, match="--minutes"):
        interleaved(lambda: runs.append(1), lambda: runs.append(2), seconds=0, most=0)
    assert runs == [1, 2], "the first run of each says how long a round takes"


def test_intervals_are_drawn_in_order_and_within_the_picture() -> None:
    rows = [{"name": f"e<{i}>", "ratio": 2.0**i, "low": 2.0**i / 1.3, "high": 2.0**i * 1.2} for i in (-6, -1, 0, 1, 4)]
    drawn = picture(rows)
    centres = [float(x) for x in re.findall(r"circle cx='([\d.]+)'", drawn)]
    bars = [
        (float(a), float(b))
        for a, b in re.findall(r"x1='([\d.]+)' x2='([\d.]+)' y1='[\d.]+' y2='[\d.]+' stroke='#1f6feb'", drawn)
    ]
    assert centres == sorted(centres)
    assert all(0 <= low <= centre <= high <= 900 for centre, (low, high) in zip(centres, bars, strict=True))
    assert "e&lt;0&gt;" in drawn
    assert picture([]) == ""


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-8b", 8.03), ("qwen2.5-7b", 7.62), ("qwen2.5-14b", 14.77), ("qwen3-moe", 30.53), ("smollm2-135m", 0.1345)],
)
def test_a_shape_has_the_published_number_of_parameters(name: str, billions: float) -> None:
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(shape_config(name))
    assert hf.num_parameters() / 1e9 == pytest.approx(billions, rel=2e-3)


def test_results_show_every_machine_as_it_was_measured() -> None:
    text = (ROOT / "analysis" / "RESULTS.md").read_text()
    block = re.search(r"<!-- cost -->\n(.*?)\n?<!-- end -->", text, re.DOTALL)
    assert block is not None
    assert block[1] == every_machine()
    assert list(MEASURED.glob("*.json"))


def test_names_are_unique_and_shapes_are_known() -> None:
    names = [entry.name for entry in entries.ENTRIES]
    assert len(set(names)) == len(names)
    assert "tiny" in SHAPES


def test_a_page_is_written_before_anything_is_measured(tmp_path: Path) -> None:
    setup = {"model": "<m>", "dtype": "float32"}
    machine = {"device": "<d>", "threads": 1, "load": 0, "torch": "2", "transformers": "5"}
    empty = {"identity": {"setup": setup}, "machine": machine, "correctness": {}, "entries": []}
    write_page(empty | {"left_out": {}, "failed": {}}, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "&lt;m&gt;" in text
    assert "<m>" not in text


def files_of(*packages: str) -> set[str]:
    """The top-level files and folders of packages and of all that they require, without extras."""
    names, seen = list(packages), set()
    tops: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        if name not in seen:
            seen.add(name)
            names += [re.split(r"[^\w.-]", each)[0] for each in found.requires or [] if "extra ==" not in each]
            tops |= {file.parts[0] for file in found.files or [] if ".." not in file.parts}
    return tops


@pytest.mark.slow
def test_it_runs_where_nothing_but_torch_and_transformers_is_installed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    installed = Path(torch.__file__).parents[1]
    for top in files_of("torch", "transformers"):
        (site / top).symlink_to(installed / top)
    assert not (site / "pandas").exists()
    assert not (site / "einops").exists()
    only = "capture,capture-against-transformer-lens,probe-attention,training-step,knockout"
    done = subprocess.run(
        [sys.executable, "-S", "-m", "analysis.cost", *words(tmp_path / "out", "--only", only)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "out")
    assert found["failed"] == {}
    assert [entry["name"] for entry in found["entries"]] == ["capture", "training-step", "knockout"]
    assert set(found["left_out"]) == {"capture-against-transformer-lens", "probe-attention"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_runs_on_a_small_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.cost", "--out", str(tmp_path), "--model", "tiny", "--minutes", "2"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path)
    assert found["failed"] == {}
    measured = {entry["name"] for entry in found["entries"]}
    assert measured | set(found["left_out"]) == {entry.name for entry in entries.ENTRIES}
    assert {"capture", "memory-capture"} <= measured
    assert set(found["correctness"]) == set(checks.CHECKS)
