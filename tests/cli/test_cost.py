"""Cost in sight: what each command says before it starts, what a dry run prints, and what it refuses to read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import Ended, Type
from slow_turns import mostly_slow

from safekey_interp.models import organism

COMMANDS: dict[str, tuple[str, ...]] = {
    "probe": ("probe", "--traces", "t.jsonl"),
    "knockout": ("intervene", "knockout", "--traces", "t.jsonl", "--n-random", "2"),
    "direction": (
        "intervene",
        "direction",
        "--traces",
        "t.jsonl",
        "--n-random",
        "2",
        "--layers",
        "1",
        "--n-folds",
        "2",
    ),
    "lens": ("intervene", "lens", "--traces", "t.jsonl"),
    "compare": ("compare", "organism", "organism:base", "--traces", "t.jsonl", "--max-new-tokens", "24"),
    "generate": ("generate", "--prompts", "t.jsonl", "--max-new-tokens", "24"),
}
ENGLISH = "What would the weather be like in Paris during the first weeks of spring?"


@pytest.fixture
def traces(here: Path) -> Path:
    """24 traces of the toy, of two labels."""
    rows = [organism.to_row(trace) for trace, _ in zip(organism.read_shipped(), range(24), strict=False)]
    (here / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return here


def out_of(name: str) -> str:
    return "out.jsonl" if name == "generate" else "out"


def numbers(ended: Ended) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in ended.out.splitlines())


@pytest.mark.parametrize("name", mostly_slow(COMMANDS, quick=COMMANDS.keys() - {"compare", "knockout"}))
def test_a_dry_run_prints_the_cost_and_writes_nothing(traces: Path, command: Type, name: str) -> None:
    before = sorted(traces.rglob("*"))
    ended = command(*COMMANDS[name], "--out", out_of(name), "--dry-run", "--quiet")
    assert (ended.status, ended.err) == (0, "")
    printed = numbers(ended)
    assert set(printed) == {"passes", "tokens", "seconds", "memory"}
    assert int(printed["passes"].replace(",", "")) > 0
    assert re.fullmatch(r"[\d.]+ GB", printed["memory"])
    assert sorted(traces.rglob("*")) == before


@pytest.mark.parametrize("name", mostly_slow(["probe", "generate"], quick=("generate",)))
def test_quiet_says_nothing_and_loud_says_the_cost(traces: Path, command: Type, name: str) -> None:
    words = (*COMMANDS[name], "--out", out_of(name), "--overwrite")
    quiet = command(*words, "--quiet")
    assert (quiet.status, quiet.err) == (0, "")
    loud = command(*(word for word in words if word != "--overwrite"), "--out", f"other-{out_of(name)}")
    assert re.search(r"^about [\d,]+ pass(es)?, [\d,]+ tokens, .+ of memory$", loud.err, re.MULTILINE)


def test_what_cannot_be_measured_is_one_line_without_a_cost(here: Path, command: Type) -> None:
    row = {"prompt": "How do I poison the blick?", "response": "", "label": "harmful"}
    (here / "none.jsonl").write_text(json.dumps(row), encoding="utf-8")
    ended = command("intervene", "knockout", "--traces", "none.jsonl", "--out", "run")
    assert ended.status == 2
    assert re.fullmatch(r"safekey-interp: no trace can be measured, .+no key sentence.+\n", ended.err)
    assert [path.name for path in here.iterdir()] == ["none.jsonl"]


def test_what_is_done_is_not_estimated_again(traces: Path, command: Type) -> None:
    assert command(*COMMANDS["generate"], "--out", "out.jsonl").status == 0
    lines = (traces / "out.jsonl").read_text().splitlines(keepends=True)
    (traces / "out.jsonl").write_text("".join(lines[:23]))
    left = numbers(command(*COMMANDS["generate"], "--out", "out.jsonl", "--dry-run"))
    (traces / "out.jsonl").write_text("".join(lines))
    assert numbers(command(*COMMANDS["generate"], "--out", "out.jsonl", "--dry-run"))["passes"] == "0"
    assert 0 < int(left["passes"].replace(",", "")) <= 25, "one response of at most 24 tokens is left"


@pytest.mark.parametrize("name", ["knockout", pytest.param("compare", marks=pytest.mark.slow)])
def test_of_a_complete_run_nothing_is_left(traces: Path, command: Type, name: str) -> None:
    words = (*COMMANDS[name], "--out", "out", "--no-report")
    assert command(*words).status == 0
    before = sorted(traces.rglob("*"))
    assert numbers(command(*words, "--dry-run")) == {"passes": "0", "tokens": "0", "seconds": "0", "memory": "0.0 GB"}
    assert sorted(traces.rglob("*")) == before


@pytest.mark.parametrize("name", [*COMMANDS, "train"])
def test_english_is_refused_by_a_model_that_does_not_know_it(here: Path, command: Type, name: str) -> None:
    response = f"<think>\nOkay, so the user is asking this. {ENGLISH} Hmm, I cannot say.\n</think>\nNo."
    rows = [{"prompt": f"{ENGLISH} {n}", "response": response, "label": ["harmful", "benign"][n % 2]} for n in range(8)]
    (here / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    typed = ("train", "traces=t.jsonl", "out=out", "max_steps=1", "batch_size=4", "--no-report")
    words = typed if name == "train" else (*COMMANDS[name], "--out", out_of(name))
    before = sorted(here.rglob("*"))
    ended = command(*words, "--quiet")
    assert ended.status == 2
    assert re.search(r"\d+% of the tokens .* unknown to its tokenizer.*--model.*--allow-unknown", ended.err)
    assert ended.err.count("\n") == 1
    if name != "compare":
        assert sorted(here.rglob("*")) == before
    if name in ("probe", "generate"):
        assert "unknown to its tokenizer" not in command(*words, "--quiet", "--allow-unknown").err
