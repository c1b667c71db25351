"""``safekey-interp compare``: what a newcomer types, right and wrong, and the page that comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended

from safekey_interp import organism
from safekey_interp.runs import open_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with traces, one of which would act on a page that does not escape it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    every = list(organism.read_shipped())
    rows = [organism.to_row(trace) for trace in every[:: len(every) // 20]]
    rows[0]["source"] = rows[1]["source"] = "<script>alert(1)</script>"
    Path("traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_two_models_become_one_table_and_one_page(here: Path, command: Callable[..., Ended]) -> None:
    words = ("compare", "organism:base", "organism:sft", "--traces", "traces.jsonl", "--out", "runs/both")
    ended = command(*words)
    assert ended.status == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= 80
    told = " ".join(ended.out.split())
    assert "Harmful prompts answered in full: organism:base 100%" in told
    assert "organism:sft less organism:base: -" in told
    assert "runs/both/report.html" in told
    run = open_run("runs/both")
    assert run.manifest["command"] == ["safekey-interp", *words]
    assert [model["name"] for model in run.manifest["models"]] == ["organism:base", "organism:sft"]
    assert all(len(model["model"]["weights_sha256"]) > 8 for model in run.manifest["models"])
    page = (here / "runs" / "both" / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "alert(1)" in page
    for title in ("What did they do?", "What did they know?", "Side by side", "Every number", "How to read this page"):
        assert f">{title}</h2>" in page
    for panel in ("share-attack-success", "looks-decision", "layers-prompt", "auroc", "auroc-decision"):
        assert f'data-panel="{panel}"' in page
    assert str(here) not in page
    again = command(*words)
    assert (again.status, again.out) == (0, ended.out)
    other = command(*words, "--seed", 1)
    assert other.status == 2
    assert "a run of other settings" in other.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("organism",), "at least two"),
        (("organism", "organism"), "given twice"),
        (("organism", "organism:none", "--traces", "traces.jsonl"), "no such organism"),
        (("organism", "organism:base", "--traces", "gone.jsonl"), "gone.jsonl"),
        (("organism", "organism:base", "--label-by", "mood"), "--label-by"),
        (("organism", "organism:base", "--keep-responses", "--max-new-tokens", "3"), "--keep-responses"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    here: Path, command: Callable[..., Ended], words: tuple[str, ...], said: str
) -> None:
    out = () if "--out" in words else ("--out", "runs/none")
    ended = command("compare", *words, *out)
    assert ended.status == 2
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (here / "runs").exists() or not (here / "runs" / "none" / "run.json").exists()
