"""``safekey-interp train``: what a newcomer types, right and wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended

from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.models.safety_head import load_safety_head
from safekey_interp.runs.run_folder import open_run

QUICK = ("epochs=1", "batch_size=8", "micro_batch_size=8", "learning_rate=3e-4", "auxiliary_epochs=null")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with traces and a recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = [organism.to_row(trace) for trace, _ in zip(organism.read_shipped(), range(48), strict=False)]
    Path("traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("recipe.yaml").write_text("model: organism:base\ntraces: traces.jsonl\nout: runs/mine\n")
    return tmp_path


def test_a_recipe_is_trained_and_drawn(here: Path, command: Callable[..., Ended]) -> None:
    ended = command("train", "recipe.yaml", *QUICK)
    assert ended.status == 0
    assert re.match(r"about [\d,]+ pass(es)?, [\d,]+ tokens, .+ of memory\n", ended.err), "the cost is said beforehand"
    assert max(map(len, ended.out.splitlines())) <= 80
    lines = [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert lines == ["Read", "Losses", "Model", "Page"], "no snapshots were asked for"
    assert "Language modelling, held out: from " in " ".join(ended.out.split())
    assert "Did the losses fall?" in command("train", "recipe.yaml", *QUICK, "--details").out
    assert "runs/mine/report.html" in ended.out
    assert (here / "runs" / "mine" / "report.html").is_file()
    run = open_run("runs/mine")
    assert run.manifest["command"] == ["safekey-interp", "train", "recipe.yaml", *QUICK]
    assert run.manifest["settings"]["epochs"] == 1
    assert load("runs/mine/model").n_layers == load("organism:base").n_layers
    assert load_safety_head("runs/mine/model").head.understanding.in_features == 128
    again = command("train", "recipe.yaml", *QUICK)
    assert again.said == ended.said
    other = command("train", "recipe.yaml", *QUICK, "seed=1")
    assert other.status == 2
    assert "a run of other settings (seed was 2002, now 1" in other.err
    assert command("train", "recipe.yaml", *QUICK, "seed=1", "--overwrite", "--no-report").status == 0


def test_a_dry_run_shows_what_would_be_and_writes_nothing(here: Path, command: Callable[..., Ended]) -> None:
    before = sorted(here.rglob("*"))
    with (here / "traces.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "How do I pet the \x1b[31mblick?", "response": "", "label": "benign"}) + "\n")
    ended = command("train", "recipe.yaml", *QUICK, "query_prompt=other", "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 80
    words = " ".join(ended.out.split())
    assert "steps of 8 traces" in words
    assert re.search(r"passes [\d,]+ tokens [\d,]+ seconds [\d,]+ memory [\d.]+ GB", words)
    assert "Memory: about" in words
    assert "Learning rate: 0.0003; of the safety head 0.0" in words
    assert "Query mask: short, another request's prompt before it: " in words
    assert "left out (n = 1): no response; the first is 48" in words
    assert "<user>" in words
    assert "<end>" in words
    assert sorted(here.rglob("*")) == before
    assert "\x1b" not in ended.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recipe.yaml", "epoch=3"], "epoch: no such setting; did you mean epochs?"),
        (["recipe.yaml", "epochs=many"], "epochs: got 'many', expected a number"),
        (["recipe.yaml", "other.yaml"], "'other.yaml': expected key=value; one recipe comes first"),
        (["seed=1", "recipe.yaml"], "'recipe.yaml': expected key=value; one recipe comes first"),
        (["nothing.yaml"], "recipe nothing.yaml: No such file or directory"),
        (["model=organism:base"], "traces: got none, expected files of traces"),
        (["recipe.yaml", "traces=nothing.jsonl"], "nothing.jsonl"),
        (["recipe.yaml", "out=traces.jsonl"], "out traces.jsonl: a file, expected a folder"),
        (["recipe.yaml", "max_length=10"], "none of 48 left to train on (48 longer than 10 tokens)"),
        (["recipe.yaml", "model=no/such/folder"], "no/such/folder"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    here: Path, command: Callable[..., Ended], words: list[str], says: str
) -> None:
    before = sorted(here.rglob("*"))
    ended = command("train", *words)
    assert ended.status == 2
    assert ended.err.startswith("safekey-interp: ")
    assert ended.err.count("\n") == 1
    assert says in ended.err
    assert ended.out == ""
    assert sorted(here.rglob("*")) == before


def test_too_much_memory_is_said_with_an_estimate(here: Path, command: Callable[..., Ended]) -> None:
    """So many traces in one forward pass as no machine holds."""
    ended = command("train", "recipe.yaml", f"batch_size={2**30}", f"micro_batch_size={2**30}")
    assert ended.status == 2
    assert "memory: training needs about" in ended.err
    assert "take micro_batch_size=1" in ended.err
    assert not (here / "runs").exists()
