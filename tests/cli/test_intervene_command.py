"""``safekey-interp intervene``: what a newcomer types, right and wrong, and what then is on the screen."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from command_line import Type
from slow_turns import mostly_slow

from safekey_interp.data.trace import Trace
from safekey_interp.measures.direction_record import Direction
from safekey_interp.measures.probes import Probe
from safekey_interp.models import organism
from safekey_interp.runs.run_folder import open_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with eight requests, each refused and complied with, and as many benign traces."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    forms: dict[str, dict[str, Trace]] = {}
    for trace in organism.read_shipped():
        forms.setdefault(trace.group, {}).setdefault(str(trace.meta["outcome"]), trace)
    mixed = islice((both for both in forms.values() if {"refused", "complied"} <= set(both)), 8)
    benign = islice((trace for trace in organism.read_shipped() if trace.label == "benign"), 12)
    rows = [organism.to_row(trace) for trace in (*(t for both in mixed for t in both.values()), *benign)]
    Path("traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    unit = np.eye(128)[3]
    Direction(vector=unit, norm=2.0, layer=1, site="resid_post", position="decision").save("d.safetensors")
    about = {"layer": 2, "site": "resid_post", "position": "decision"}
    Probe(weight=unit, bias=0.5, mean=np.zeros(128), scale=np.ones(128), **about).save("p.safetensors")
    return tmp_path


GOOD: dict[str, tuple[list[str], str]] = {
    "knockout": (
        ["--by", "layer", "--no-aha", "--n-random", "2", "--n-dose", "1", "--n-donors", "1", "--to-span", "prompt"],
        "Hiding the prompt (X) moves",
    ),
    "edges": (["--top", "1", "--top", "4", "--n-random", "2"], "Cutting the edge in the top heads moves"),
    "patch": (["--layers", "1-2", "--position", "decision"], "States at the token before K move"),
    "paths": (["--sender", "3.mlp", "--sender", "2.head.1"], "Paths to logits move"),
    "direction": (["--n-random", "2", "--layers", "2", "--save"], "A direction that is ablated moves"),
    "suppress": (["--n-random", "2", "--most", "3"], "With U hidden, the prediction of K moves"),
    "lens": (["--layers", "0,-1"], "The log-probability of a token of the trace’s own K is"),
    "trajectory": (["--n-random", "2"], "At the token before K the mean score is"),
}


@pytest.mark.parametrize("kind", mostly_slow(GOOD, quick=("knockout", "direction", "suppress", "trajectory")))
def test_each_command_writes_a_run_and_says_what_was_found(here: Path, command: Type, kind: str) -> None:
    words, says = GOOD[kind]
    ended = command("intervene", kind, "--traces", "traces.jsonl", *words)
    assert ended.status == 0
    assert re.search(r"^about [\d,]+ pass(es)?, [\d,]+ tokens, .+ of memory$", ended.err, re.MULTILINE)
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    said = " ".join(ended.out.split())
    assert "organism on traces.jsonl." in said
    assert "toy" in said
    lines = [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert lines == ["Read", "Effect", "Control", "Verdict", "Page"]
    assert "28 of 28 traces read by finder rules (100%)" in said
    assert says in said
    more = command("intervene", kind, "--traces", "traces.jsonl", *words, "--details")
    assert more.said.startswith(ended.said.partition("Page")[0]), "five lines, then everything"
    assert all(len(line) <= 80 for line in more.out.splitlines())
    for title in ("What was changed?", "What did it do?", "More than chance?"):
        assert title in more.out
        assert title not in ended.out
    assert "control: " in more.out
    folder = here / "runs" / f"organism-traces-{kind}"
    assert f"runs/organism-traces-{kind}/report.html" in ended.out
    assert (folder / "report.html").is_file()
    run = open_run(folder)
    assert run.manifest["command"] == ["safekey-interp", "intervene", kind, "--traces", "traces.jsonl", *words]
    assert len(run.effects)
    assert (folder / "directions").is_dir() == (kind == "direction")
    assert command("intervene", kind, "--traces", "traces.jsonl", *words).said == ended.said


def test_given_files_are_used(here: Path, command: Type) -> None:
    shared = ("--traces", "traces.jsonl", "--limit", "6", "--n-random", "2", "--no-report")
    added = ("--mode", "add", "--scale", "-1", "--scale", "1", "--at", "decision", "--controls", "isotropic")
    assert command("intervene", "direction", "--direction", "d.safetensors", *added, *shared).status == 0
    run = open_run("runs/organism-traces-direction")
    assert sorted(set(run.effects["scale"])) == [-1.0, 1.0]
    assert set(run.effects["layer"]) == {1}
    assert set(run.effects["control"]) == {"none", "isotropic"}
    files = ("--direction", "d.safetensors", "--probe", "p.safetensors", "--controls", "isotropic")
    assert command("intervene", "trajectory", *files, *shared).status == 0
    assert set(open_run("runs/organism-traces-trajectory").effects["layer"]) == {1, 2}


@pytest.mark.slow
def test_responses_under_a_direction_are_written_counted_and_shown(here: Path, command: Type) -> None:
    words = ("--generate", "--scale", "0", "--scale", "0.5", "--n-random", "1", "--max-new-tokens", "24")
    asked = ("intervene", "direction", "--traces", "traces.jsonl", "--n-folds", "2", *words)
    ended = command(*asked, "--details")
    assert ended.status == 0
    assert ended.err.startswith(
        "112 responses are written: to 28 prompts as the model is, and at 1 scale(s) under 1 direction(s), each with 2 "
        "controls\n"
    )
    said = " ".join(ended.out.split())
    assert "Answers that refuse, of harmful prompts" in said
    assert "Malformed answers, of all prompts" in said
    assert "as the model is" in said
    run = open_run("runs/organism-traces-direction_responses")
    assert run.manifest["intervention"] == "direction_responses"
    assert run.manifest["settings"]["judge"]["judge"] == "the act of the answer"
    assert set(run.effects["metric"]) == {"refused", "complied", "malformed"}
    assert (run.effects.groupby("group", observed=True)["fold"].nunique() == 1).all(), "fitted on other requests"
    page = (run.path / "report.html").read_text()
    assert "What organism answers under a direction" in page.replace("<bdi>", "").replace("</bdi>", "")
    again = command(*asked, "--details")
    assert (again.status, again.said, again.err) == (0, ended.said, ""), "nothing is written twice"


WRONG: dict[str, tuple[list[str], str]] = {
    "no kind": ([], "Missing command; see `safekey-interp intervene --help`"),
    "unknown kind": (["cut"], "No such command 'cut'"),
    "unknown option": (["lens", "--mode", "add"], "No such option: --mode"),
    "no such file": (["lens", "--traces", "t.jsonl"], "t.jsonl: no such file"),
    "layers": (["lens", "--layers", "x"], "--layers: got 'x', expected numbers and ranges"),
    "no such layer": (["lens", "--layers", "9"], "layers: got [9], expected some of 0 to 3"),
    "heads": (["knockout", "--heads", "x"], "--heads: got 'x', expected numbers and ranges"),
    "no such head": (["knockout", "--heads", "99"], "heads: got 99, expected from 0 to"),
    "by": (["knockout", "--by", "token"], "--by: got 'token', expected one of together, layer, head"),
    "window": (["knockout", "--window", "2"], "--window: has no effect without --by layer"),
    "span": (["knockout", "--key", "first(answer"], "--to-span: span expression 'first(answer': got the end"),
    "from": (["knockout", "--query", "prmpt"], "span 'prmpt': no trace has one; did you mean 'prompt'?"),
    "control": (["knockout", "--control", "random"], "--control: got 'random', expected some of outside_spans, dose"),
    "n random": (["knockout", "--n-random", "0"], "Invalid value for '--n-random'"),
    "source": (["patch", "--source", "asked"], "source: got 'asked', expected refused or complied"),
    "method": (["patch", "--method", "x"], "--method: got 'x', expected one of exact, attribution, both"),
    "position": (["patch", "--position", "answer("], "--position: span expression 'answer('"),
    "metric": (["patch", "--metric", "loss"], "metric: got 'loss', expected one of aha, key_sentence, logprob"),
    "probe": (["patch", "--metric", "probe(p)"], "p: cannot be read"),
    "one outcome": (["patch", "--limit", "1"], "no pair of traces of one request and different outcomes"),
    "mode": (["direction", "--mode", "x"], "--mode: got 'x', expected one of ablate, add"),
    "scale": (["direction", "--scale", "2"], "--scale: has no effect without --mode add"),
    "scale not a number": (
        ["direction", "--mode", "add", "--scale", "nan"],
        "--scale: got nan, expected a finite number",
    ),
    "no responses": (["direction", "--temperature", "1"], "--temperature: has no effect without --generate"),
    "no position": (["direction", "--generate", "--at", "nowhere"], "span 'nowhere': no trace has one"),
    "no sentences": (["direction", "--generate", "--key-sentences", "x"], "--key-sentences: has no effect beside"),
    "label by": (["direction", "--label-by", "x"], "label_by: no trace has the column 'x'; expected one of label, aha"),
    "one class": (["direction", "--limit", "4"], "directions on held-out requests"),
    "both": (["direction", "--direction", "d.safetensors", "--layers", "1"], "--layers: nothing is fitted"),
    "no direction": (["direction", "--direction", "traces.jsonl"], "traces.jsonl: cannot be read"),
    "a probe": (["direction", "--direction", "p.safetensors"], "p.safetensors: got a file of Probe, expected"),
    "controls": (["direction", "--controls", "x"], "--controls: got 'x', expected some of shuffled_labels"),
    "no controls": (["direction", "--direction", "d.safetensors"], "direction 0: holds no shuffled_labels draws"),
    "align": (["trajectory", "--align", "x"], "span 'x': no trace has one; expected one of prompt"),
    "no probe": (["trajectory", "--probe", "nowhere"], "nowhere: cannot be read"),
    "key sentences": (["lens", "--key-sentences", "traces.jsonl"], "key sentences traces.jsonl: "),
    "finder": (["suppress", "--finder", "x"], "--finder: got 'x', expected one of rules, given, llm"),
    "most": (["suppress", "--most", "1"], "Invalid value for '--most'"),
    "out": (["suppress", "--out", "traces.jsonl"], "out traces.jsonl: a file, expected a folder"),
    "too long": (["lens", "--max-length", "3"], "no trace has a key sentence behind an understanding"),
    "model": (["lens", "--model", "./nowhere"], "./nowhere"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_and_writes_nothing(here: Path, command: Type, case: str) -> None:
    words, said = WRONG[case]
    given = [] if not words or "--traces" in words or case == "unknown kind" else ["--traces", "traces.jsonl"]
    before = sorted(here.rglob("*"))
    ended = command("intervene", *words, *given)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("safekey-interp: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err
    assert sorted(here.rglob("*")) == before


def test_another_run_in_the_folder_is_refused(here: Path, command: Type) -> None:
    words = ("intervene", "suppress", "--traces", "traces.jsonl", "--limit", "4", "--no-report", "--out", "run")
    assert command(*words, "--n-random", "1").status == 0
    other = command(*words, "--n-random", "2")
    assert other.status == 2
    assert "a run of other settings (settings.n_random was 1, now 2)" in other.err
    assert command(*words, "--n-random", "2", "--overwrite").status == 0
    drawn = command("report", "run")
    assert (drawn.status, drawn.out) == (0, "run/report.html\n")
