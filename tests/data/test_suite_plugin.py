"""A benchmark suite of one's own: one file in a package outside this one, and no change inside."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from safekey_interp.data import suites
from safekey_interp.data.trace_reader import read_traces
from safekey_interp.errors import InputError
from safekey_interp.experiments.compare_judges import SuiteJudges, suites_record

PLUGIN = '''
from safekey_interp.data.suites import register_suite


@register_suite("MyBench", needs=("attack", "topic"), judge="rubric")
def read_row(row):
    """Doe et al., MyBench, 2026"""
    return {"prompt": row.text("attack"), "label": "harmful", "group": row.text("topic"), "id": row.get("number")}
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "suite_of_a_study"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mybench.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(suites, "SUITES", dict(suites.SUITES))
    monkeypatch.delitem(sys.modules, "suite_of_a_study.mybench", raising=False)
    importlib.import_module("suite_of_a_study.mybench")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("by_name", [True, False])
def test_a_suite_is_one_file(tmp_path: Path, by_name: bool) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"attack": "Do harm.", "topic": "fraud", "number": 3}) + "\n")
    source = read_traces(suites.suite_files([f"mybench={file}" if by_name else str(file)])).check()
    (trace,) = source
    assert (trace.prompt, trace.label, trace.group) == ("Do harm.", "harmful", "fraud")
    assert (trace.trace_id, trace.source) == ("3", "mybench")
    (record,) = suites_record(source, SuiteJudges())
    assert (record["title"], record["judge"], record["citation"]) == ("MyBench", "rubric", "Doe et al., MyBench, 2026")


@pytest.mark.usefixtures("plugin")
def test_its_rows_are_checked_as_those_of_others(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"attack": "Do harm."}\n')
    with pytest.raises(InputError, match=r"rows.jsonl, line 1: MyBench needs the field 'topic'"):
        list(read_traces(suites.suite_files([f"mybench={file}"])))


def test_a_suite_that_any_file_would_fit_or_nobody_judges_is_refused() -> None:
    with pytest.raises(InputError, match="register_suite: MyBench: expected a field in needs or marks"):
        suites.register_suite("MyBench", needs=(), judge="guard")
    with pytest.raises(InputError, match="judge: got 'jury', expected one of refusal, rubric, guard"):
        suites.register_suite("MyBench", needs=("attack",), judge="jury")  # type: ignore[arg-type]
