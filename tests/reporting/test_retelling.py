"""A finished run told with other smallest effects of interest: verdicts change, numbers and counts do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended
from synthetic_comparison_runs import write_benchmarks, write_comparison, write_series
from synthetic_intervention_runs import write_intervention
from synthetic_probe_runs import write_run

from safekey_interp.errors import InputError, RunError
from safekey_interp.reporting.findings.effect_size import KINDS, SHARE, SMALLEST, smallest_effects, smallest_of
from safekey_interp.reporting.retelling import retell
from safekey_interp.runs.run_folder import open_run

RUNS: dict[str, Callable[[Path], Path]] = {
    "probe": lambda folder: write_run(folder, n_traces=24, n_layers=4, n_heads=2, n_examples=1),
    "comparison": write_comparison,
    "series": write_series,
    "benchmarks": write_benchmarks,
    "knockout": lambda folder: write_intervention(folder, "knockout by layer", n_layers=4, n_heads=2),
}


def texts(folder: Path) -> list[str]:
    return [finding["text"] for finding in json.loads((folder / "findings.json").read_text())["findings"]]


def test_every_unit_with_a_smallest_effect_has_a_kind() -> None:
    assert sorted(unit for units in KINDS.values() for unit in units) == sorted(SMALLEST)
    with smallest_effects({"share": 0.3}):
        assert smallest_of(SHARE) == 0.3
        assert smallest_of("nats") == SMALLEST["nats"]
    assert smallest_of(SHARE) == SMALLEST[SHARE]


def test_verdicts_go_by_what_is_given_and_the_run_says_so(tmp_path: Path) -> None:
    """Differences of 0.2 [0.1, 0.32] are clear, and too small to matter beside a smallest effect of 0.5."""
    folder = write_comparison(tmp_path / "run")
    tables = {path: path.read_bytes() for path in folder.glob("*.parquet")}
    (folder / "report.html").write_text("the page before")
    assert any("a clear difference" in text for text in texts(folder))
    run = retell(folder, {"share": 0.5, "lift": 0.5})
    assert run.manifest["smallest_effects"] == {"share": 0.5, "lift": 0.5}
    assert not (folder / "report.html").exists(), "an old page says other verdicts"
    shares = [text for text in texts(folder) if "points" in text]
    assert shares
    assert all("too small to matter (the interval lies within ±50 points)" in text for text in shares)
    assert any("±0.5 × distance-matched baseline" in text for text in texts(folder))
    assert {path: path.read_bytes() for path in tables} == tables
    again = retell(folder, {})
    assert again.manifest["smallest_effects"] == {}
    assert any("a clear difference" in text for text in texts(folder))


@pytest.mark.parametrize("kind", RUNS)
def test_every_kind_of_run_is_told_again_with_the_same_numbers(tmp_path: Path, kind: str) -> None:
    folder = RUNS[kind](tmp_path / "run")
    told = retell(folder, {})
    first = texts(folder)
    assert first
    kept = {name: told.findings.get(name) for name in ("left_out", "notes")}
    other = retell(folder, dict.fromkeys(("share", "auroc"), 0.9) | dict.fromkeys(("lift", "nats", "logits"), 9.0))
    assert {name: other.findings.get(name) for name in kept} == kept
    assert len(texts(folder)) == len(first)
    retell(folder, {})
    assert texts(folder) == first


def test_the_commands_option_is_checked_before_work_and_redraws(
    tmp_path: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_comparison(Path("run"))
    ended = command("report", "run", "--smallest-effect", "share=0.5", "--smallest-effect", "lift=.5")
    assert ended.status == 0, ended.err
    assert "±50 points" in Path("run/report.html").read_text()
    wrong = {
        "share=2": "expected a number between 0 and 1",
        "auroc=0": "expected a number between 0 and 1",
        "nats=-1": "expected a number above 0",
        "lift=nan": "expected a number above 0",
        "lift=inf": "expected a number above 0",
        "points=5": "expected one of share, auroc, lift, nats, logits",
        "share": "expected KIND=NUMBER",
        "0.1": "expected KIND=NUMBER",
    }
    for words in (("report", "run"), ("probe", "--out", "new"), ("compare", "a", "b"), ("intervene", "knockout")):
        for given, said in wrong.items() if words[0] == "report" else [("points=5", wrong["points=5"])]:
            ended = command(*words, "--smallest-effect", given)
            assert ended.status == 2, given
            assert said in ended.err
            assert len(ended.err.strip().splitlines()) == 1
    assert not Path("new").exists()


def test_what_has_no_verdicts_is_refused(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_text())
    for change, match in (({"kind": "training"}, "no smallest effect"), ({"status": "running"}, "not complete")):
        other = shutil.copytree(folder, tmp_path / match.replace(" ", "-"))
        (other / "run.json").write_text(json.dumps(manifest | change))
        with pytest.raises((InputError, RunError), match=match):
            retell(other, {"share": 0.1})
    with pytest.raises(InputError, match="smallest_effects: got 'x'"):
        retell(folder, {"x": 1})
    assert "smallest_effects" not in open_run(folder).manifest
