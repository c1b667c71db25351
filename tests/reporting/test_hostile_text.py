"""One rule for text from data: what turns, hides or moves its neighbours reaches no reader."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from html_pages import read
from synthetic_intervention_runs import write_intervention
from synthetic_probe_runs import write_run

import safekey_interp as ski
from safekey_interp.cli.shared import say
from safekey_interp.display import one_line, printable, spelled_out
from safekey_interp.reporting import figures
from safekey_interp.reporting.report_file import write_report

FORBIDDEN = [
    *map(chr, [*range(9), *range(11, 32), *range(0x7F, 0xA0)]),  # C0 without tab and line feed, DEL, C1
    *"\u061c\u200e\u200f",  # marks of direction
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",  # embeddings, overrides, isolates
    *"\u2028\u2029",  # separators
    *"\u00ad\u200b\u2060\ufeff\ufff9\U000e0041",  # without width
    *"\ud800\udfff",  # lone surrogates
]
EVIL = "<script>alert(1)</script>" + "a".join(FORBIDDEN)
JSON_SAFE = "".join(character for character in EVIL if not "\ud800" <= character <= "\udfff")
"""What Parquet and files can hold: a trace replaces lone surrogates."""


def clean(text: str) -> bool:
    return not set(text) & set(FORBIDDEN)


def test_the_rule_keeps_lengths_letters_spaces_and_joiners() -> None:
    for character in FORBIDDEN:
        assert printable(f"a{character}b") == "a\ufffdb", hex(ord(character))
        assert spelled_out(character) == f"‹U+{ord(character):04X}›"
        assert clean(one_line(f"a {character} \n b"))
    kept = "\n\t नमस्ते \u0645\u06cc\u200c\u062e 👩\u200d🔬\ufe0f 日本\u3000語\u00a0\u202f"
    assert printable(kept) == kept == spelled_out(kept)
    assert one_line(" a\n\tb\x0b\u2028c ") == "a b c"


def edit(folder: Path, name: str, change) -> None:
    file = folder / name
    if file.suffix == ".json":
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(change(content) or content), encoding="utf-8")
    else:
        change(pd.read_parquet(file)).to_parquet(file)


def hostile_model(manifest: dict) -> None:
    manifest["model"] |= {"name": EVIL, "spec": EVIL}
    manifest["command"] = ["safekey-interp", EVIL]


def check_page(page: Path) -> None:
    text, outline = read(page)
    assert clean(re.sub(r"<script>.*?</script>", "", text, flags=re.S)), "plotly.js has such characters of its own"
    assert "<script>alert" not in text
    assert "\ufffda\ufffd" in "".join(outline.words)
    for island in re.findall(r'type="application/json"[^>]*>(.*?)</script>', text, re.S):
        assert clean(island)
        assert clean("".join(strings_in(json.loads(island))))


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)


def test_a_probe_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n_traces=24, n_layers=2, n_heads=2, n_examples=2)
    edit(folder, "run.json", hostile_model)
    edit(folder, "traces.parquet", lambda traces: traces.assign(reason=JSON_SAFE, family=JSON_SAFE))
    edit(folder, "coordinates.parquet", lambda table: table.assign(trace_id=table["trace_id"] + JSON_SAFE))

    def hostile_tokens(examples: list) -> None:
        examples[0]["tokens"][:2] = [EVIL, "\u200d"]

    edit(folder, "examples.json", hostile_tokens)
    edit(folder, "findings.json", lambda found: found | {"headline": EVIL})
    page = write_report(folder)
    check_page(page)
    text = page.read_text(encoding="utf-8")
    records = json.loads(re.search(r'id="examples-data">(.*?)</script>', text, re.S)[1])["records"]  # pyright: ignore[reportOptionalSubscript]
    assert "‹U+202E›a" in records[0]["tokens"][0]
    assert records[0]["tokens"][1] == "‹U+200D›"


def test_an_intervention_page(tmp_path: Path) -> None:
    folder = write_intervention(tmp_path / "run", "knockout")
    edit(folder, "run.json", hostile_model)
    edit(folder, "findings.json", lambda found: found | {"headline": EVIL})
    check_page(write_report(folder))


def test_a_figure() -> None:
    table = pd.DataFrame({"place": [JSON_SAFE], "series": [JSON_SAFE], "value": [0.5], "low": [0.4], "high": [0.6]})
    spec = figures.estimates_as_bars.spec(table, title=EVIL, y="share", caption="")
    shown = "".join(
        strings_in({"data": spec["data"], "axis": spec["layout"]["xaxis"], "title": spec["layout"]["title"]})
    )
    assert clean(shown)
    assert "<script" not in shown


def test_a_terminal_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    out = capsys.readouterr().out
    assert clean(out)
    assert "<script>alert(1)</script>" in out.replace("\n", "")


def test_a_notebook_view_and_its_words_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = ski.Trace(trace_id=EVIL, prompt=EVIL, response=f"<think>Okay. {EVIL}</think>{EVIL}")
    for shown in (trace._repr_html_(), ski.segment(trace)._repr_html_()):
        assert clean(shown)
        assert "<script" not in shown
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    ski.show(trace)
    assert clean(sys.stdout.getvalue())  # pyright: ignore[reportAttributeAccessIssue]
