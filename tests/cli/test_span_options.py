"""--span and --prompt-span: the same option of every command that reads traces, and what it finds in the output."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import Type

import safekey_interp as ski
from safekey_interp.cli.app import command_named
from safekey_interp.data.trace import CharSpan

ROWS = [
    {"prompt": "How do I cook?", "response": "<think>They ask how. Wait, fine.</think>So."},
    {"prompt": "How do I sing?", "response": "<think>They ask how. I can say.</think>So."},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("name", ["probe", "segment", "generate", "compare"])
def test_every_command_that_reads_traces_has_the_options(name: str) -> None:
    options = {option.opts[0] for option in command_named(name).params}
    assert {"--span", "--prompt-span"} <= options


def test_segment_shows_and_counts_what_is_found(command: Type, file: Path) -> None:
    asked = ["--span", r"wait=\bWait\b", "--span", "none=xyz", "--span", "k=@rules.key_sentence"]
    shown = command("segment", file, *asked, "--prompt-span", r"verb=I (\w+)").out
    for line in ("wait [21, 25): Wait", "verb (prompt) [9, 13): cook", "wait: in 1 of 2", "none: in 0 of 2", "k: in 2"):
        assert line in shown


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_written_spans_are_read_again(command: Type, file: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"s.{suffix}"
    assert command("segment", file, "--span", "wait=Wait", "--out", out).status == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()] if suffix == "jsonl" else None
    rows = rows or pd.read_parquet(out).to_dict("records")
    again = ski.read_traces([ROWS[i] | {"spans": row["spans"]} for i, row in enumerate(rows)])
    assert [trace.spans.get("wait") for trace in again] == [(CharSpan(21, 25),), None]


def test_without_spans_the_output_is_that_of_before(command: Type, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    command("segment", file, "--out", out)
    assert "spans" not in json.loads(out.read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("option", "word", "says"),
    [
        ("--span", "wait", "--span: got 'wait', expected NAME=REGEX"),
        ("--span", "wait=", "--span: got 'wait=', expected NAME=REGEX"),
        ("--span", "prompt=a", "--span: got 'prompt', which is built in"),
        ("--prompt-span", "a b=a", "--prompt-span: got 'a b', expected a letter"),
        ("--span", "wait=(", "span 'wait': regular expression '('"),
        ("--prompt-span", "k=@rules.key_sentence", "for the prompt, expected a regular expression"),
    ],
)
def test_a_wrong_span_is_one_line_and_status_2(command: Type, file: Path, option: str, word: str, says: str) -> None:
    ended = command("segment", file, option, word)
    assert ended.status == 2
    assert says in ended.err
    assert command("segment", file, "--span", "z=a", "--span", "z=b").status == 2
