"""The paper's claims beside ours: the plan for the paper's models, and the whole command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from browser import asked, complaints, faint, look_with, nameless, needs_chromium, overflows, unreached

from analysis.__main__ import _in_a_process, main
from analysis.paper import config
from safekey_interp.errors import InputError, RunError
from safekey_interp.models import organism

pytestmark = pytest.mark.slow


def test_the_plan_for_the_papers_models_is_whole(tmp_path, capsys):
    main(["--dry-run"])
    said = capsys.readouterr().out
    assert "paper.yaml is whole" in said
    assert "kzhou35/SafeKey-8B" in said
    text = config.PAPER.read_text()
    for broken, expected in (
        (text.replace("card_hours: 6", "card_hours: many"), "questions, entry 1: card_hours"),
        (text.replace("number: 7", "number: 8"), "questions"),
        (text.replace("suite: xstest", "suite: nothing"), "no suite 'nothing'"),
        (text.replace("{safekey}", ""), "no place {safekey}"),
        (text.replace("parameters_b: 14.8", "parameters_b: 70"), "GiB of weights"),
        ("models: [", "cannot be read"),
        ("models: []", "no data"),
    ):
        file = tmp_path / "paper.yaml"
        file.write_text(broken)
        with pytest.raises(InputError) as refused:
            config.check(file)
        assert expected in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """A few of the organism's prompts of every kind."""
    every = list(organism.read_shipped())
    chosen = [trace for trace in every if trace.group in {trace.group for trace in every[::32]}]
    file = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    file.write_text("".join(json.dumps(organism.to_row(trace)) + "\n" for trace in chosen))
    return file


@pytest.fixture(scope="module")
def words(prompts, tmp_path_factory) -> list[str]:
    """A command but for its questions; its folder holds the answer to the fifth."""
    out = tmp_path_factory.mktemp("figures")
    words = ["--models", "organism:base", "organism:sft", "--traces", str(prompts), "--jobs", "1", "--out", str(out)]
    main([*words, "--only", "5"])
    return words


def test_one_question_of_two_models_and_the_same_again(words, capsys):
    out = Path(words[-1])
    claims: Any = pd.read_csv(out / "claims.csv")
    assert set(claims["claim"]) == {"5a", "5b"}
    assert claims["toy"].all()
    numbers = (out / "fig_depth.csv").read_bytes()
    index = (out / "index.html").read_text()
    assert "How deep does alignment go?" in index
    assert index.count("(toy model)") > len(claims)
    assert "Prefilled harmful tokens undo the refusal." in index
    assert "Built in, in the toy model" in index
    assert "<code>python -m analysis --models" in index
    made = (out / "fig_depth.html").stat().st_mtime_ns
    main([*words, "--only", "depth"])
    assert "5b organism:sft: " in capsys.readouterr().out
    assert (out / "fig_depth.html").stat().st_mtime_ns == made, "what is there is made again"
    (out / "fig_depth.csv").unlink()
    main([*words, "--only", "5"])
    assert (out / "fig_depth.csv").read_bytes() == numbers


@needs_chromium
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("page", ["index.html", "fig_depth.html"])
def test_pages_are_quiet_fit_and_can_be_read_and_reached(browser, words, page, width):
    complaints(browser)
    asked(browser)
    look_with(browser, width)
    browser.get((Path(words[-1]) / page).as_uri())
    assert not overflows(browser)
    assert faint(browser) == []
    assert nameless(browser) == []
    assert unreached(browser) == []
    assert complaints(browser) == []
    assert [url for url in asked(browser) if url.startswith(("http", "ws"))] == []


@pytest.mark.timeout(900)
def test_all_questions_but_the_training_in_processes_of_their_own(prompts, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    for name, jobs in (("one", "1"), ("two", "2")):
        words = ["--only", "1", "2", "3", "4", "5", "7", "--traces", str(prompts), "--jobs", jobs]
        main([*words, "--out", str(tmp_path / name)])
    one, two = tmp_path / "one", tmp_path / "two"
    files = sorted(path.name for path in one.glob("*.csv"))
    assert {"claims.csv", "fig_key_sentence.csv", "fig_causes.csv", "fig_cost.csv"} <= set(files)
    for name in files:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert (one / "CLAIMS.md").read_text() == (two / "CLAIMS.md").read_text()
    said = capsys.readouterr().err
    assert all(f"{name}: answered" in said for name in ("key_sentence", "attention", "cost"))


SAYS = """#!/bin/sh
echo "organism:sft: 8 of 24, 30 s so far" >&2
echo "analysis: traces: got none" >&2
exit 2
"""


def test_a_question_in_a_process_of_its_own_is_heard_and_its_error_is_told(tmp_path, monkeypatch):
    program, said = tmp_path / "python", []
    program.write_text(SAYS)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RunError, match=r"^cost: traces: got none$"):
        _in_a_process(SimpleNamespace(name="cost"), [], said.append)
    assert said[0] == "cost: organism:sft: 8 of 24, 30 s so far"
