"""``safekey-interp generate``, and ``probe --prompts F --generate``: what is typed, and what then lies there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, Type
from endpoint_server import Reply, serving

from safekey_interp.data.trace import Trace
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.generation.local_engine import generate
from safekey_interp.models import organism
from safekey_interp.models.model import load
from safekey_interp.runs.run_folder import open_run
from safekey_interp.segmentation.segmenter import segment


def refused(ended: Ended, said: str) -> None:
    """One line on standard error, nothing on standard output, status 2."""
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("safekey-interp: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err


def write_rows(file: str, rows: list[dict[str, Any]]) -> None:
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_prompts(n: int) -> list[Trace]:
    some = list(organism.read_shipped())[:n]
    shown = ("prompt", "label", "source", "group")
    rows = [{"id": trace.trace_id} | {name: getattr(trace, name) for name in shown} for trace in some]
    write_rows("p.jsonl", [row | {"wrapper": trace.meta["wrapper"]} for row, trace in zip(rows, some, strict=True)])
    return some


def test_prompts_become_responses_that_go_on(here: Path, command: Type) -> None:
    asked = write_prompts(6)
    words = ["generate", "--prompts", "p.jsonl", "--out", "deep/r.jsonl"]
    ended = command(*words, "--max-new-tokens", 40)
    assert ended.status == 0
    assert "6 responses to p.jsonl: 6 new, 0 from before." in ended.out
    assert "deep/r.jsonl" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    read = {trace.trace_id: trace for trace in read_traces("deep/r.jsonl")}
    said = generate(load("organism"), asked, max_new_tokens=40)
    assert [read[trace.trace_id].response for trace in asked] == said
    assert [read[trace.trace_id].label for trace in asked] == [trace.label for trace in asked]
    assert {trace.meta["wrapper"] for trace in read.values()} == {trace.meta["wrapper"] for trace in asked}
    cut = sum(trace.meta["cut"] for trace in read.values())
    assert (f"{cut} of the new ones were cut at 40 tokens" in " ".join(ended.out.split())) == bool(cut)
    before = Path("deep/r.jsonl").read_bytes()
    assert "6 responses to p.jsonl: 0 new, 6 from before." in command(*words).out
    assert Path("deep/r.jsonl").read_bytes() == before
    write_prompts(8)
    assert "8 responses to p.jsonl: 2 new, 6 from before." in command(*words).out


def test_samples_are_those_of_their_seed(here: Path, command: Type) -> None:
    write_prompts(3)
    words = ["generate", "--prompts", "p.jsonl", "--max-new-tokens", 30, "--temperature", 1.5, "--n", 3]
    command(*words, "--out", "a.jsonl")
    command(*words, "--out", "b.jsonl", "--batch-size", 2)
    command(*words, "--out", "c.jsonl", "--seed", 1)
    a, b, c = ({t.trace_id: t.response for t in read_traces(f"{name}.jsonl")} for name in "abc")
    assert len(a) == 9
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("prefill", "n"), [("understanding", 5), ("key_sentence", 5), ("0,3", 10), ("0%,50%,100%", 15), ("swap", 20)]
)
def test_prefills_are_the_traces_own(here: Path, command: Type, prefill: str, n: int) -> None:
    some = [trace.with_(given={}) for trace in list(organism.read_shipped())[:5]]
    rows = [{"id": trace.trace_id, "prompt": trace.prompt, "response": trace.response} for trace in some]
    write_rows("t.jsonl", rows)
    ended = command(
        "generate", "--prompts", "t.jsonl", "--out", "r.jsonl", "--prefill", prefill, "--max-new-tokens", 20
    )
    assert f"{n} responses to t.jsonl: {n} new" in ended.out
    read = list(read_traces("r.jsonl"))
    assert all(trace.response.startswith(trace.meta["prefill"]) for trace in read)
    ours = {trace.trace_id: trace for trace in some}
    for trace in read:
        mine = ours[trace.meta["prompt_id"]]
        u = segment(mine).understanding
        if prefill == "understanding":
            assert u is not None
            assert trace.meta["prefill"] == mine.response[: u.end]
        elif prefill != "swap":
            assert mine.response.startswith(trace.meta["prefill"])
            if trace.meta.get("share") is not None and prefill != "key_sentence":
                k = segment(mine).key_sentence
                assert k is not None
                assert len(trace.meta["prefill"]) <= k.start
    if prefill == "swap":
        assert {trace.meta["condition"] for trace in read} == {"own", "safe", "go_ahead", "neutral"}


def test_an_endpoint_is_asked_with_the_key_of_the_environment(
    here: Path, command: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("SAFEKEY_LLM_API_KEY", key)
    monkeypatch.delenv("SAFEKEY_LLM_OPTIONS", raising=False)
    write_rows("p.jsonl", [{"id": f"p{i}", "prompt": f"number {i}"} for i in range(4)])
    with serving(lambda n, nth: Reply(f"<think>{key}</think>No {n}.")) as server:
        words = ["generate", "--prompts", "p.jsonl", "--endpoint", server.base_url, "--model", "tiny"]
        ended = command(*words, "--out", "r.jsonl")
        assert ended.status == 0
        assert server.authorizations == {f"Bearer {key}"}
        assert len(server.bodies) == 4
        assert command(*words, "--out", "r.jsonl").status == 0
        assert len(server.bodies) == 4
    assert {trace.trace_id: trace.response for trace in read_traces("r.jsonl")} == {
        f"p{i}": f"<think>[key]</think>No {i}." for i in range(4)
    }
    assert key not in ended.out + ended.err
    assert not [path for path in here.rglob("*") if path.is_file() and key in path.read_text()]


WRONG = {
    "no such file": (["--prompts", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    "another kind of out": (["--out", "r.csv"], "expected a name that ends in .jsonl"),
    "a prefill": (["--prefill", "everything"], "--prefill: got 'everything', expected one of none"),
    "a part above all": (["--prefill", "0%,150%"], "parts of the tokens before K"),
    "no such beginning": (["--prefill", "key_sentence"], "no trace of p.jsonl has that to begin with"),
    "samples of one": (["--n", "2"], "raise the temperature"),
    "temperature": (["--temperature", "-1"], "temperature: got -1.0"),
    "top_p": (["--top-p", "2"], "--top-p: got 2.0"),
    "too long": (["--max-new-tokens", "5000"], "lower max_new_tokens"),
    "no model": (["--model", "organism:none"], "no such organism"),
    "vllm and endpoint": (["--vllm", "--endpoint", "http://127.0.0.1:9/v1"], "got both"),
    "device there": (["--device", "cpu", "--endpoint", "http://127.0.0.1:9/v1"], "the model runs there"),
    "tokens there": (
        ["--prefill", "3", "--endpoint", "http://127.0.0.1:9/v1"],
        "an endpoint's tokens are not known here",
    ),
    "a key in the address": (["--endpoint", "http://u:secret@127.0.0.1:9/v1"], "put the key into SAFEKEY_LLM_API_KEY"),
    "someone's file": (["--out", "p.jsonl"], "no p.settings.json beside it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_end_in_one_line(here: Path, command: Type, case: str) -> None:
    write_prompts(2)
    words, message = WRONG[case]
    before = Path("p.jsonl").read_bytes()
    given = {"--prompts": "p.jsonl", "--out": "r.jsonl"}
    rest = [word for name, value in given.items() if name not in words for word in (name, value)]
    ended = command("generate", *rest, *words)
    refused(ended, message)
    assert "secret" not in ended.err
    assert Path("p.jsonl").read_bytes() == before
    assert {path.name for path in here.iterdir()} == {"p.jsonl"}


@pytest.mark.slow
def test_prompts_are_answered_and_then_probed(here: Path, command: Type) -> None:
    write_prompts(24)
    words = ["probe", "--prompts", "p.jsonl", "--generate", "--max-new-tokens", 64, "--no-report", "--examples", 2]
    words += ["--layers", -1]
    ended = command(*words)
    assert ended.status == 0
    assert max(map(len, ended.out.splitlines())) <= 80
    folder = Path("runs/organism-p")
    run_there = open_run(folder)
    answered = list(read_traces(folder / "generated.jsonl"))
    assert len(answered) == 24
    assert run_there.manifest["data"]["n_read"] == 24
    assert all(trace.response.startswith("<think>") for trace in answered)
    before = (folder / "generated.jsonl").stat().st_mtime_ns, (folder / "run.json").read_text()
    assert command(*words).status == 0
    assert ((folder / "generated.jsonl").stat().st_mtime_ns, (folder / "run.json").read_text()) == before
    words[5] = 50
    refused(command(*words), "max_new_tokens was 64, now 50")
    assert command(*words, "--overwrite").status == 0
    assert open_run(folder).manifest["data"]["n_read"] == 24


@pytest.mark.slow
def test_a_probe_goes_on_from_answers_that_a_kill_left(here: Path, command: Type) -> None:
    asked = write_prompts(24)
    answers = Path("half/generated.jsonl")
    command("generate", "--prompts", "p.jsonl", "--out", answers, "--max-new-tokens", 64)
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:9]) + lines[9][:50])
    words = ["probe", "--prompts", "p.jsonl", "--generate", "--max-new-tokens", 64, "--no-report", "--examples", 2]
    assert command(*words, "--out", "half", "--layers", -1).status == 0
    again = answers.read_text().splitlines(keepends=True)
    assert again[:9] == lines[:9]
    assert sorted(json.loads(line)["trace_id"] for line in again) == sorted(trace.trace_id for trace in asked)
    assert open_run("half").manifest["data"]["n_read"] == len(asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts", "p.jsonl"], "add --generate"),
        (["--generate"], "name their file with --prompts"),
        (["--generate", "--prompts", "p.jsonl", "--traces", "p.jsonl"], "got both"),
        (["--generate", "--prompts", "p.jsonl", "--stream"], "stream the file"),
        (["--traces", "p.jsonl", "--stream", "--limit", "3"], "limit, stream: got both"),
        (["--max-new-tokens", "5"], "nothing is generated"),
        (["--generate", "--prompts", "nowhere.jsonl"], "no such file"),
    ],
)
def test_prompts_and_generate_belong_together(here: Path, command: Type, words: list[str], message: str) -> None:
    write_prompts(2)
    refused(command("probe", *words), message)
    assert {path.name for path in here.iterdir()} == {"p.jsonl"}


def test_a_run_of_other_data_is_refused_before_anything_is_generated(here: Path, command: Type) -> None:
    write_prompts(3)
    assert command("probe", "--limit", 30, "--no-report", "--examples", 2, "--out", "r").status == 0
    refused(command("probe", "--prompts", "p.jsonl", "--generate", "--out", "r"), "a run of other data")
    assert not Path("r/generated.jsonl").exists()
