"""Runs for an agent: answers are those of the files, bounded, from inside the folder alone, and nothing is written."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_intervention_runs import write_intervention
from synthetic_probe_runs import write_run

from safekey_interp.errors import InputError
from safekey_interp.reporting import run_queries
from safekey_interp.reporting.run_queries import MOST_CELL, MOST_ROWS, RunQueries
from safekey_interp.runs.run_folder import open_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them two folders down, beside what is none and what lies outside."""
    folder = tmp_path_factory.mktemp("outside") / "runs"
    write_run(folder / "first", n_layers=3, n_heads=2, n_examples=4)
    write_intervention(folder / "more" / "second", "knockout")
    (folder / "no-run").mkdir()
    shutil.copytree(folder / "first", folder.parent / "private")
    (folder / "link").symlink_to(folder.parent / "private")
    return folder


def run_of(folder: Path, within: str) -> str:
    return next(row["run"] for row in RunQueries(folder).runs()["runs"] if row["run"].startswith(within))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_runs_are_those_in_the_folder_and_say_what_they_found(folder: Path) -> None:
    found = RunQueries(folder).runs()
    assert found["n_runs"] == len(found["runs"]) == 2
    assert [row["run"].split("/")[0] for row in found["runs"]] == ["first", "more"]
    for row in found["runs"]:
        run = open_run(folder / row["run"])
        assert row["status"] == run.manifest["status"]
        assert row["found"][:20] == run.findings["headline"][:20]


def test_a_table_is_read_by_name_with_columns_values_and_places(folder: Path) -> None:
    queries, name = RunQueries(folder), run_of(folder, "first")
    whole = open_run(folder / name).table("separability")
    about = next(table for table in queries.about(name)["tables"] if table["table"] == "separability")
    assert (about["n_rows"], list(about["columns"])) == (len(whole), list(whole.columns))
    asked: dict[str, Any] = {"columns": ["position", "layer", "auroc"], "where": {"method": "logistic", "layer": 1}}
    fit = whole[(whole["method"] == "logistic") & (whole["layer"] == 1)].reset_index(drop=True)
    assert len(fit) > 3
    answer = queries.rows(name, "separability", **asked, offset=1, limit=2)
    assert answer["n_rows"] == len(fit)
    expected = fit.loc[1:2, asked["columns"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.DataFrame(answer["rows"]), expected, check_dtype=False)


def test_answers_are_bounded_printable_json_and_say_what_they_left_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, name = RunQueries(folder), run_of(folder, "first")
    monkeypatch.setattr(run_queries, "MOST_CHARACTERS", most := 20_000)
    answers = [queries.runs(), queries.about(name), queries.findings(name)]
    answers.append(queries.rows(name, "attention_by_layer", limit=MOST_ROWS))
    assert "left_away" in answers[-1]
    for answer in answers:
        text = json.dumps(answer, allow_nan=False)
        assert len(text) <= most + 200
    traces = queries.rows(name, "traces", columns=["prompt"], limit=MOST_ROWS)["rows"]
    assert any("<script>" in row["prompt"] for row in traces)  # as it is: JSON is no page
    assert not set("".join(row["prompt"] for row in traces)) & set("\u202e\u2028\x1b\x00")
    assert max(len(row["prompt"]) for row in traces) <= MOST_CELL + 40


def test_a_trace_is_shown_with_its_spans(folder: Path) -> None:
    queries, name = RunQueries(folder), run_of(folder, "first")
    row = open_run(folder / name).traces.iloc[3]
    shown = queries.trace(name, row["trace_id"])["trace"]
    assert shown["key_sentence"][:10] == row["key_sentence"][:10]
    assert shown["understanding_end"] == row["understanding_end"]


@pytest.mark.parametrize("name", ["../private", "link", "/etc", "", "no-run", "first/../../private", "nowhere", "\0"])
def test_nothing_outside_the_folder_is_a_run(name: str, folder: Path) -> None:
    queries = RunQueries(folder)
    for ask in (queries.findings, queries.about, lambda run: queries.rows(run, "traces")):
        with pytest.raises(InputError, match="expected the name of a run"):
            ask(name)


def test_a_file_that_leads_out_of_the_folder_is_not_read(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(folder / run_of(folder, "first"), root / "run")
    for file in ("traces.parquet", "findings.json"):
        (root / "run" / file).rename(tmp_path / file)
        (root / "run" / file).symlink_to(tmp_path / file)
        with pytest.raises(InputError):
            RunQueries(root).rows("run", "traces")
    assert RunQueries(root).runs()["runs"] == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"table": "../first/traces"}, "expected one of traces"),
        ({"table": "steps"}, "has no table steps"),
        ({"table": "traces", "columns": ["nothing"]}, "has no column 'nothing'"),
        ({"table": "traces", "where": {"nothing": 1}}, "has no column 'nothing'"),
        ({"table": "traces", "where": {"label": 1.5}}, "expected values of the columns' types"),
        ({"table": "traces", "limit": MOST_ROWS + 1}, "expected 1 to 200"),
        ({"table": "traces", "offset": -1}, "and 0 or more"),
    ],
)
def test_what_cannot_be_asked_is_one_line(asked: dict[str, Any], said: str, folder: Path) -> None:
    with pytest.raises(InputError, match=said) as error:
        RunQueries(folder).rows(run_of(folder, "first"), asked.pop("table"), **asked)
    assert "\n" not in str(error.value)


def test_without_a_folder_there_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        RunQueries(tmp_path / "absent")


def test_a_client_of_the_sdk_asks_everything_and_the_folder_stays_as_it_was(folder: Path) -> None:
    mcp = pytest.importorskip("mcp", reason="needs the extra [mcp]")
    from safekey_interp.reporting.mcp_server import server_of

    before, name = snapshot(folder), run_of(folder, "first")
    trace_id = open_run(folder / name).traces["trace_id"].iloc[0]
    calls: dict[str, dict[str, Any]] = {
        "list_runs": {},
        "describe_run": {"run": name},
        "read_findings": {"run": name},
        "read_table": {"run": name, "table": "traces", "columns": ["trace_id"], "limit": 3},
        "show_trace": {"run": name, "trace_id": trace_id},
    }

    async def ask() -> tuple[Any, dict[str, Any], Any]:
        async with mcp.Client(server_of(folder)) as client:
            tools = await client.list_tools()
            answers = {tool: await client.call_tool(tool, arguments) for tool, arguments in calls.items()}
            return tools, answers, await client.call_tool("read_findings", {"run": "../private"})

    tools, answers, refused = asyncio.run(ask())
    assert {tool.name for tool in tools.tools} == set(calls)
    assert all(tool.annotations.read_only_hint for tool in tools.tools)
    for tool, answer in answers.items():
        assert not answer.is_error, tool
    queries = RunQueries(folder)
    assert answers["list_runs"].structured_content == json.loads(json.dumps(queries.runs()))
    assert len(answers["read_table"].structured_content["rows"]) == 3
    assert answers["show_trace"].structured_content["trace"]["trace_id"] == trace_id
    assert refused.is_error
    assert "expected the name of a run" in refused.content[0].text
    assert snapshot(folder) == before


def test_without_the_package_the_command_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from safekey_interp.reporting.mcp_server import server_of

    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(InputError, match=r"needs the package mcp.*pip install '.*\[mcp\]'"):
        server_of(folder)
