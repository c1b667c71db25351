"""The command line: what a newcomer types, right and wrong, and what then is on the screen and on the disk."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, Type
from tiny_models import byte_level_tokenizer, tiny_model, traces

from safekey_interp.cli.shared import parse_layers, say
from safekey_interp.display import one_line
from safekey_interp.models.organism import CAVEAT

COMMAND = [sys.executable, "-m", "safekey_interp"]
ESCAPE = "\x1b[31mred\x1b[0m\x07\u202e"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its tokenizer, as ``save_pretrained`` leaves them."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama").hf.save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return folder


def write_traces(file: Path, n: int = 6, **changes: Any) -> Path:
    rows = [
        {"trace_id": t.trace_id, "prompt": t.prompt, "response": t.response, "label": t.label} | changes
        for t in traces(n)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def contents(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def refused(ended: Ended, said: str) -> None:
    """One line on standard error, nothing on standard output, status 2."""
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.startswith("safekey-interp: ")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")
    assert said in ended.err


GOOD = '{"prompt": "How?", "response": "<think>\\nOkay, so the user asks how. Hmm, no.\\n</think>"}\n'
BAD_DATA: dict[str, tuple[str, bytes | str, str]] = {
    "empty": ("t.jsonl", "", "t.jsonl: an empty file, expected at least one row"),
    "half a line": ("t.jsonl", GOOD + GOOD[:40] + "\n" + GOOD, "t.jsonl, line 2: broken JSON"),
    "wrong type": (
        "t.jsonl",
        GOOD + '{"prompt": 3, "response": "x"}\n',
        "line 2: prompt: got the number 3, expected text",
    ),
    "wrong label": ("t.jsonl", '{"prompt": "x", "label": 3}\n', "--label-field"),
    "missing field": ("t.jsonl", '{"ask": "x", "reply": "y"}\n', "no prompt; the fields are ask, reply"),
    "numbers": ("t.json", "[1, 2, 3]", "t.json, row 1: got the number 1, expected an object with a prompt"),
    "not UTF-8": ("t.jsonl", GOOD.encode() + b'{"prompt": "caf\xe9"}\n', "t.jsonl, line 2: not UTF-8"),
    "broken Parquet": ("t.parquet", b"PAR1 nothing", "t.parquet: broken Parquet"),
    "unknown kind": ("t.docx", "x", "not a known kind of file"),
    "same id": ("t.jsonl", '{"id": 1, "prompt": "x"}\n{"id": 1, "prompt": "y"}\n', "--id-field"),
    "escapes": ("t.jsonl", json.dumps({ESCAPE: 1}) + "\n", "no prompt"),
}


@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("name", ["probe", "segment"])
def test_bad_data_end_in_one_line(here: Path, command: Type, case: str, name: str) -> None:
    file, data, said = BAD_DATA[case]
    (here / file).write_bytes(data if isinstance(data, bytes) else data.encode())
    before = contents(here)
    ended = command("probe", "--traces", file) if name == "probe" else command("segment", file)
    refused(ended, said)
    assert "\x1b" not in ended.err
    assert contents(here) == before


WRONG_WORDS: dict[str, tuple[list[str], str]] = {
    "no command": ([], "Missing command; see `safekey-interp --help`"),
    "unknown command": (["prob"], "No such command 'prob'"),
    "unknown option": (["probe", "--trace", "t.jsonl"], "No such option: --trace"),
    "no value": (["probe", "--traces"], "requires an argument"),
    "extra word": (["probe", "--traces", "t.jsonl", "u.jsonl"], "unexpected extra argument"),
    "no such file": (["probe", "--traces", "u.jsonl"], "u.jsonl: no such file; did you mean t.jsonl?"),
    "no match": (["probe", "--traces", "*.csv"], "*.csv: no file matches"),
    "seed a word": (["probe", "--traces", "t.jsonl", "--seed", "x"], "Invalid value for '--seed'"),
    "seed below 0": (["probe", "--traces", "t.jsonl", "--seed", "-1"], "Invalid value for '--seed'"),
    "limit 0": (["probe", "--traces", "t.jsonl", "--limit", "0"], "Invalid value for '--limit'"),
    "layers": (["probe", "--traces", "t.jsonl", "--layers", "a-b"], "--layers: got 'a-b', expected numbers and ranges"),
    "layers empty": (["probe", "--traces", "t.jsonl", "--layers", "5-2"], "--layers: got 5-2, an empty range"),
    "layers huge": (["probe", "--traces", "t.jsonl", "--layers", "0-99999999999"], "--layers: got '0-99999999999'"),
    "batch": (
        ["probe", "--traces", "t.jsonl", "--batch-size", "²"],
        "--batch-size: got '²', expected a whole number of at least 1 or auto",
    ),
    "batch 0": (["probe", "--traces", "t.jsonl", "--batch-size", "0"], "--batch-size: got 0, expected"),
    "finder": (
        ["probe", "--traces", "t.jsonl", "--finder", "x"],
        "--finder: got 'x', expected one of rules, given, llm",
    ),
    "backend": (["probe", "--traces", "t.jsonl", "--backend", "x"], "--backend: got 'x', expected one of hf, bridge"),
    "label by": (
        ["probe", "--traces", "t.jsonl", "--label-by", "x"],
        "label_by: no trace has the column 'x'; expected one of label, aha, source",
    ),
    "delimiters": (["probe", "--traces", "t.jsonl", "--delimiters", "<a>"], "--delimiters: got '<a>', expected"),
    "field": (["probe", "--traces", "t.jsonl", "--prompt-field", "x"], "no 'x'; the fields are"),
    "out a file": (["probe", "--traces", "t.jsonl", "--out", "t.jsonl"], "out t.jsonl: a file, expected a folder"),
    "out in a file": (["probe", "--traces", "t.jsonl", "--out", "t.jsonl/x/y"], "out t.jsonl/x/y: cannot be written"),
    "out nowhere": (["probe", "--traces", "t.jsonl", "--out", "/proc/x"], "out /proc/x: cannot be written"),
    "out too long": (["probe", "--traces", "t.jsonl", "--out", "x" * 300], "cannot be written: File name too long"),
    "out no run": (["probe", "--traces", "t.jsonl", "--out", "."], "not empty and no run of this package"),
    "sample of no stream": (
        ["probe", "--traces", "t.jsonl", "--stream-sample", "5"],
        "--stream-sample: got 5, expected none",
    ),
    # Said before traces are looked for.
    "revision here": (["probe", "--traces", "no.jsonl", "--revision", "main"], "leave revision 'main' out"),
    "revision of a folder": (
        ["intervene", "lens", "--model", ".", "--traces", "no.jsonl", "--revision", "v1"],
        "model .: no",
    ),
    "revision of answers": (
        ["generate", "--prompts", "no.jsonl", "--out", "r.jsonl", "--revision", "v1"],
        "no hub model",
    ),
    "revision to train": (["train", "traces=[no.jsonl]", "--revision", "v1"], "model organism:base: no hub model"),
    "segment out": (["segment", "t.jsonl", "--out", "x.txt"], "expected a name that ends in .jsonl or .parquet"),
    "segment nowhere": (["segment", "t.jsonl", "--out", "/proc/x.jsonl"], "--out /proc/x.jsonl: cannot be written"),
    "segment no folder": (["segment", "t.jsonl", "--out", "no/x.jsonl"], "--out no/x.jsonl: cannot be written"),
    "label map": (
        ["segment", "t.jsonl", "--label-map", "x=harmful,X=benign"],
        "--label-map: got 'x' twice, expected it",
    ),
    "segment finder": (["segment", "t.jsonl", "--finder", "x"], "--finder: got 'x'"),
    "agreement": (["segment", "t.jsonl", "--agreement", "no.jsonl"], "no.jsonl"),
    "report no run": (["report", "."], "holds no run.json of this package"),
    "report nothing there": (["report", "nowhere"], "run nowhere: no such folder"),
    "report nothing": (["report"], "Missing argument"),
}


@pytest.mark.parametrize("case", WRONG_WORDS)
def test_wrong_words_end_in_one_line(here: Path, command: Type, case: str) -> None:
    words, said = WRONG_WORDS[case]
    write_traces(here / "t.jsonl")
    before = contents(here)
    refused(command(*words), said)
    assert contents(here) == before


def test_a_folder_with_someone_elses_run_json_is_left_alone(here: Path, command: Type) -> None:
    write_traces(here / "t.jsonl")
    (here / "theirs").mkdir()
    (here / "theirs" / "run.json").write_text('{"run": 1}')
    before = contents(here)
    refused(command("probe", "--traces", "t.jsonl", "--out", "theirs", "--overwrite"), "no run of this package")
    assert contents(here) == before


BAD_MODELS = {
    "no such folder": "./nowhere",
    "no weights": "no-weights",
    "no tokenizer": "no-tokenizer",
    "broken weights": "broken",
    "not a model": "empty",
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models_end_in_one_line(here: Path, command: Type, model_folder: Path, case: str) -> None:
    write_traces(here / "t.jsonl")
    for name, kept in {
        "no-weights": lambda file: file.suffix != ".safetensors",
        "no-tokenizer": lambda file: "token" not in file.name,
        "broken": lambda file: True,
        "empty": lambda file: False,
    }.items():
        (here / name).mkdir()
        for file in filter(kept, model_folder.iterdir()):
            (here / name / file.name).write_bytes(file.read_bytes())
    (here / "broken" / "model.safetensors").write_bytes(b"\x10" + b"\0" * 30)
    before = contents(here)
    ended = command("probe", "--model", BAD_MODELS[case], "--traces", "t.jsonl")
    refused(ended, BAD_MODELS[case])
    assert ended.err.startswith("safekey-interp: model ")
    assert contents(here) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layers", "7"], "layers: got [7], expected some of 0 to 2"),
        (["--max-length", "3"], "no trace can be measured; trace t0: key sentence ends at token"),
        (["--dtype", "int7"], "dtype int7: expected float32"),
        (["--device", "abacus"], "device abacus: not available here"),
    ],
)
def test_what_the_model_does_not_allow_ends_in_one_line(
    here: Path, command: Type, model_folder: Path, words: list[str], said: str
) -> None:
    write_traces(here / "t.jsonl")
    before = contents(here)
    refused(command("probe", "--model", model_folder, "--traces", "t.jsonl", *words), said)
    assert contents(here) == before


def assert_plain(text: str) -> None:
    assert "\x1b" not in text
    assert "\r" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_without_arguments_the_organism_reads_its_own_traces(here: Path, command: Type) -> None:
    ended = command("probe", "--limit", "80")
    assert ended.status == 0
    assert_plain(ended.out)
    assert ended.out.startswith("Read      organism on traces.jsonl.")
    assert re.search(r"\d+ of 80 traces read by finder rules \(\d+%\), \d+ measured", " ".join(ended.out.split()))
    assert "toy" in ended.out
    folder = here / "runs" / "organism"
    for name in ("traces.parquet", "attention.parquet", "separability.parquet", "run.json", "report.html"):
        assert (folder / name).is_file(), name
    for prompts in ("plain", "wrapped"):
        assert prompts in ended.out
    assert CAVEAT in (folder / "report.html").read_text()
    assert command("segment", "--limit", "1").status == 0


def test_a_run_says_what_was_found(here: Path, command: Type, model_folder: Path) -> None:
    write_traces(here / "t.jsonl", 12)
    words = ("probe", "--model", model_folder, "--traces", "t.jsonl")
    ended = command(*words)
    assert ended.status == 0
    assert re.match(r"about [\d,]+ pass(es)?, [\d,]+ tokens, .+ of memory\n", ended.err)
    assert_plain(ended.out)
    lines = [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert lines == ["Read", "K", "Looks", "Knows", "Page"]
    more = command(*words, "--details")
    for title in ("Where does the model decide?", "What does it look at there?", "What did it already know?"):
        assert title in more.out
        assert title not in ended.out
    assert "n = 12; control: " in more.out
    assert_plain(more.out)
    folder = here / "runs" / "tiny-t"
    assert re.search(r"runs/tiny-t/report.html \(\d+ s\)\n$", ended.out)
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["command"] == ["safekey-interp", *map(str, words)]
    page = folder / "report.html"
    before = contents(folder)
    assert command(*words).said == ended.said, "a run that is complete is said again"
    assert contents(folder) == before
    page.unlink()
    assert command(*words).status == 0
    assert page.is_file(), "a page that is absent is drawn"
    page.unlink()
    refused(command(*words, "--by", "none"), "a run of other settings (settings.by was source, now None)")
    drawn = command("report", folder)
    assert (drawn.status, drawn.out) == (0, f"{folder}/report.html\n")
    refused(command(*words, "--seed", 3), "a run of other settings (seed was 0, now 3)")
    (here / "t.jsonl").write_text((here / "t.jsonl").read_text().replace("t3", "t33"))
    refused(command(*words), "a run of other data (data.traces_sha256 was ")
    ended = command(*words, "--overwrite", "--no-report")
    assert ended.status == 0
    assert not page.exists()
    assert "runs/tiny-t (" in ended.out


def test_a_run_that_is_not_complete_has_no_page(here: Path, command: Type) -> None:
    (here / "run").mkdir()
    (here / "run" / "run.json").write_text('{"safekey_interp": "0", "status": "running"}')
    refused(command("report", "run"), "not complete; the command that began it resumes it")


def test_what_files_say_does_not_reach_the_terminal_raw(here: Path, command: Type, model_folder: Path) -> None:
    rows = [
        {"trace_id": f"{ESCAPE}{i}漢字" * (1 + i * 9), "prompt": f"{ESCAPE} how?", "response": f"<think>\n{ESCAPE}\n"}
        for i in range(4)
    ]
    rows += [
        {"trace_id": "good", "prompt": "How?", "response": "<think>\nOkay, so the user asks how. Hmm, no.\n</think>"}
    ]
    name = "t\x1b[31m.jsonl"
    (here / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = command(
        "probe", "--model", model_folder, "--traces", name, "--out", "run", "--no-report", "--max-length", 90
    )
    assert ended.status == 0
    assert_plain(ended.out)
    ended = command("segment", name)
    assert ended.status == 0
    assert not set(ended.out) & {"\x1b", "\x07", "\u202e"}


def test_segment_writes_what_it_prints(here: Path, command: Type) -> None:
    import pandas as pd

    write_traces(here / "t.jsonl")
    printed = command("segment", "t.jsonl")
    assert printed.status == 0
    assert "\x1b" not in printed.out
    assert "Hmm, that could be used to break into a home." in " ".join(printed.out.split())
    assert command("segment", "t.jsonl", "--out", "s.jsonl").out == "s.jsonl\n"
    assert command("segment", "t.jsonl", "--out", "s.parquet").status == 0
    rows = [json.loads(line) for line in (here / "s.jsonl").read_text().splitlines()]
    table = pd.read_parquet(here / "s.parquet")
    assert [row["trace_id"] for row in rows] == list(table["trace_id"]) == [f"t{i}" for i in range(6)]
    trace = traces(6)[5]
    start, end = rows[5]["key_sentence"]
    assert trace.response[start:end] == rows[5]["key_sentence_text"] == table["key_sentence_text"].iloc[5]
    assert sorted(path.name for path in here.iterdir()) == ["s.jsonl", "s.parquet", "t.jsonl"]


def test_segment_takes_several_files(here: Path, command: Type) -> None:
    write_traces(here / "a.jsonl", 2, trace_id=None)
    write_traces(here / "b.jsonl", 1, trace_id=None)
    assert command("segment", "a.jsonl", "--traces", "b.jsonl", "--out", "s.jsonl").status == 0
    assert [json.loads(line)["trace_id"] for line in (here / "s.jsonl").read_text().splitlines()] == [
        "a-0",
        "a-1",
        "b-0",
    ]


def test_agreement_with_the_shared_annotations(here: Path, command: Type) -> None:
    shared = Path(__file__).parents[3] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("no shared data here")
    ended = command("segment", shared / "star1.jsonl", "--limit", 50, "--agreement", shared / "key_sentences.jsonl")
    assert ended.status == 0
    assert "key sentence" in ended.out


def test_annotated_openings_are_segmented_where_no_file_is_named(here: Path, command: Type) -> None:
    [trace] = traces(1)
    end = trace.response.index(".") + 1
    marked = {"understanding": [0, end], "key_sentence": [end + 1, end + 9], "aha": "safe", "hint": "no"}
    row = {"id": "a-0", "prompt": trace.prompt, "response": trace.response, "agreed": True}
    (here / "a.jsonl").write_text(json.dumps(row | {"annotator_a": marked, "annotator_b": marked}))
    ended = command("segment", "--agreement", "a.jsonl")
    assert ended.status == 0
    assert re.search(r"annotators, key sentence +1 +1 ", ended.out)


def test_models_version_and_help(here: Path, command: Type) -> None:
    assert "smollm2: " in command("models").out
    assert re.fullmatch(r"safekey-interp \d+\.\d+\.\d+\S*\n", command("--version").out)
    for words in (["--help"], ["-h"], ["probe", "--help"], ["segment", "-h"]):
        ended = command(*words)
        assert (ended.status, ended.err) == (0, "")
        assert "Usage: " in ended.out


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=120, **options)


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom safekey_interp.cli.app import main\n"
        "try:\n    main([*sys.argv[1:], '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'pandas', 'numpy', 'pyarrow', 'plotly', 'sklearn', "
        "'scipy', 'starlette', 'uvicorn', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    for words in ([], ["probe"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_completion_exists() -> None:
    done = run(
        env={
            "_SAFEKEY_INTERP_COMPLETE": "complete_bash",
            "COMP_WORDS": "safekey-interp pr",
            "COMP_CWORD": "1",
            **os.environ,
        }
    )
    assert done.stdout.split() == ["probe"]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    file = write_traces(tmp_path / "t.jsonl", 200)
    done = subprocess.run(
        f"{sys.executable} -m safekey_interp segment {file} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_segment_writes_over_nothing_unasked(command, tmp_path: Path) -> None:
    file = write_traces(tmp_path / "t.jsonl", 2)
    before = file.read_bytes()
    for words in (["--out", str(file)], ["--out", str(file), "--overwrite"]):
        assert command("segment", str(file), *words).status == 2
        assert file.read_bytes() == before
    out = tmp_path / "s.jsonl"
    assert command("segment", str(file), "--out", str(out)).status == 0
    assert command("segment", str(file), "--out", str(out)).status == 2
    assert command("segment", str(file), "--out", str(out), "--overwrite").status == 0


def test_standard_input_is_a_source(tmp_path: Path) -> None:
    text = write_traces(tmp_path / "t.jsonl", 2).read_text()
    done = run("segment", "-", "--out", "s.jsonl", input=text, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "s.jsonl\n")
    assert done.stderr.startswith("2 traces of standard input read as columns: prompt from prompt, response from")
    done = run("segment", "-", input="", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "safekey-interp: standard input: empty, expected JSON Lines\n",
    )


@pytest.mark.slow
def test_in_a_terminal_progress_is_shown_and_wiped(tmp_path: Path, model_folder: Path) -> None:
    write_traces(tmp_path / "t.jsonl", 12)
    words = [*COMMAND, "probe", "--model", str(model_folder), "--traces", "t.jsonl", "--no-report", "--chunk", "4"]
    screen = terminal(words, tmp_path)[1]
    assert "measuring" in screen
    assert "/12 [" in screen
    first = "Read      tiny on t.jsonl."
    last = screen[screen.rindex(first) :]
    assert "\x1b" not in last
    before = screen[: screen.rindex(first)]
    assert before.rstrip("\r\n").rsplit("\r", 1)[-1].isspace(), "the bar is wiped"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_in_one_line_and_the_run_goes_on(
    tmp_path: Path, model_folder: Path, number: int, status: int
) -> None:
    write_traces(tmp_path / "t.jsonl", 300)
    words = [*COMMAND, "probe", "--model", str(model_folder), "--traces", "t.jsonl", "--no-report", "--chunk", "8"]
    # A shell's background job ignores Ctrl-C, and so would its children: here the default holds.
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    parts = tmp_path / "runs" / "tiny-t" / "parts"
    for _ in range(600):
        if parts.is_dir() and any(parts.glob("chunk-*")):
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    *cost, last = err.splitlines()
    assert last == "safekey-interp: stopped; the same command resumes the run"
    assert len(cost) <= 1, "what it costs, and how it ended"
    assert json.loads((parts.parent / "run.json").read_text())["status"] == "running"


def terminal(words: list[str], folder: Path) -> tuple[int, str]:
    """Status of a command in a terminal of 80 columns, and all that reached the screen."""
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        os.execv(words[0], words)
    screen = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], 120)
        try:
            piece = os.read(descriptor, 65536) if ready else b""
        except OSError:  # how Linux says that the other side is gone
            piece = b""
        if not piece:
            break
        screen += piece
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), screen.decode()


@pytest.mark.parametrize("columns", ["20", "40", "80", "200", "3"])
def test_said_sentences_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str) -> None:
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", columns)
    text = f"a sentence {ESCAPE} with 漢字仮名交じり文がとても長く続いている and {'long' * 40} words, 1 2 3"
    say(text, indent="  - ", hang="    ")
    lines = capsys.readouterr().out.splitlines()
    assert all(cell_len(line) <= max(20, min(80, int(columns))) for line in lines)
    assert lines[0].startswith("  - ")
    assert all(line.startswith("    ") for line in lines[1:])
    assert "".join(line[4:] for line in lines).replace(" ", "") == one_line(text).replace(" ", "")


def test_layers_are_numbers_and_ranges() -> None:
    assert parse_layers(None) is None
    assert parse_layers("0-3, 7,-1") == [0, 1, 2, 3, 7, -1]
